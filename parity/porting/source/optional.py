"""Modules that do without what others of their class have: a child, which the class is told to build, or any call."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from parity.porting.operators.expression import constants, filled, skeleton
from parity.porting.source.levels import kind_of

if TYPE_CHECKING:
    from parity.porting.source.drafts import Draft

ABSENT = "nn.Identity()"

_OF_METHODS = {"deterministic", "rngs"}
"""What the methods of a class keep on it besides children and arrays."""


def assigned(line: str) -> str:
    """What a line of a constructor assigns to ``self``; the whole line if it does something else."""
    match = re.match(r"self\.(\w+) = ", line)
    return match[1] if match else line


def joined(groups: list[list[Draft]]) -> list[list[Draft]]:
    """Groups of modules that are written alike, those without a child or a call together with those that have it."""
    found: list[list[Draft]] = []
    for group in sorted(groups, key=lambda group: (-len(group[0].constructor), not group[0].methods)):
        for others in found:
            if kind_of(group[0].module) == kind_of(others[0].module) and _does_without(group, others):
                others += group
                break
        else:
            found.append(list(group))
    first = {group[0].path: i for i, group in enumerate(groups)}
    return sorted(found, key=lambda group: min(first.get(draft.path, len(first)) for draft in group))


def _does_without(group: list[Draft], others: list[Draft]) -> bool:
    """Whether ``group`` is as ``others`` are but for children, or never called; if so, its drafts note what lacks."""
    before = [draft.constructor for draft in group]
    for draft in group:
        draft.constructor = _completed(draft, others[0])
    if _is_alike(group, others):
        return True
    for draft, constructor in zip(group, before, strict=True):
        draft.constructor = constructor
    return False


def _completed(draft: Draft, full: Draft) -> list[str]:
    """The constructor, with what the methods of ``full`` need besides children where ``draft`` is never called."""
    lines = list(draft.constructor)
    if not draft.methods:
        own = {assigned(line) for line in lines}
        for i, line in enumerate(full.constructor):
            if assigned(line) in _OF_METHODS - own:
                lines.insert(i, line)
    return lines


def _is_alike(group: list[Draft], others: list[Draft]) -> bool:
    one, full = group[0], others[0]
    own = {assigned(line): line for line in one.constructor}
    lacks = {name for name, line in map(_named, full.constructor) if own.get(name, "") != line and _is_none(one, name)}
    rest, needed = (
        [skeleton(line) for name, line in map(_named, draft.constructor) if name not in lacks] for draft in (one, full)
    )
    if (one.methods and not lacks) or rest != needed:
        return False
    if one.bases != full.bases or one.needs_rngs() != full.needs_rngs():
        return False
    if one.methods and _methods(one) != _methods(full, lacks):
        return False
    for draft in group:
        draft.lacks, draft.fullest = lacks, full
    columns = list(zip(*(draft.values() for draft in (*others, *group)), strict=True))
    if all(_follows(column, columns) for column in columns):
        return True
    for draft in group:
        draft.lacks, draft.fullest = set(), None
    return False


def _named(line: str) -> tuple[str, str]:
    return assigned(line), line


def _is_none(draft: Draft, name: str) -> bool:
    """Whether the module has no child ``name``, or one that does nothing."""
    if name in draft.extras.arrays or name in draft.extras.layers or name in draft.module._parameters:
        return False
    line = next((line for line in draft.constructor if assigned(line) == name), None)
    return line is None or line.endswith(f" = {ABSENT}")


def _follows(column: tuple[str | None, ...], columns: list[tuple[str | None, ...]]) -> bool:
    """Whether a column with gaps is one number, or goes with one that has none."""
    if None not in column or len({*column} - {None}) == 1:
        return True
    return any(None not in other and agree(column, other) for other in columns)


def agree(column: tuple[str | None, ...], other: tuple[str | None, ...]) -> bool:
    """Whether the numbers of ``column`` are those of ``other``, but for gaps."""
    return all(a in (None, b) for a, b in zip(column, other, strict=True))


def _methods(draft: Draft, lacks: set[str] = frozenset()) -> list[tuple[str, str]]:  # type: ignore[assignment]
    """The methods without calls of the children that ``lacks`` names: those give back what they are given."""
    found = []
    for name, body in draft.methods.items():
        head = f"def {name}({', '.join(body.parameters)}):"
        text = "\n".join([head, *(f"    {line}" for line in body.lines)])
        tree = ast.parse(filled(text, ["0" for _ in constants(text)]))
        found.append((name, ast.dump(_Without(lacks).visit(tree))))
    return found


class _Without(ast.NodeTransformer):
    """Takes the calls of children out of a method."""

    def __init__(self, names: set[str]) -> None:
        self.calls = {f"self.{name}" for name in names}

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        is_alone = len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred)
        return node.args[0] if is_alone and ast.unparse(node.func) in self.calls else node
