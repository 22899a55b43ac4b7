"""Modules as text, and one class for all that differ in numbers only."""

from __future__ import annotations

import keyword
from dataclasses import dataclass, field

import torch

from parity.porting.body import Body, Extras
from parity.porting.call import Call
from parity.porting.expression import constants, filled
from parity.porting.formatting import wrapped


@dataclass(eq=False)
class Draft:
    """One module as text: its constructor and its methods, numbers marked."""

    path: str
    module: torch.nn.Module
    calls: list[Call]
    bases: str = "nnx.Module"
    constructor: list[str] = field(default_factory=list)
    methods: dict[str, Body] = field(default_factory=dict)
    extras: Extras = field(default_factory=Extras)
    method_of: dict[int, str] = field(default_factory=dict)
    class_name: str = ""
    arguments: str = ""

    def text(self) -> str:
        """Everything, to be compared with other instances."""
        lines = [self.bases, *self.constructor]
        for name, body in self.methods.items():
            lines += [f"{name}({', '.join(body.parameters)})", *body.lines]
        return "\n".join(lines)

    def needs_rngs(self) -> bool:
        """Whether the constructor passes random streams on."""
        return any("rngs" in line for line in self.constructor)


def class_of(members: list[Draft], name: str) -> str:
    """The text of the one class of ``members``, which differ in numbers: those are arguments of its constructor."""
    first = members[0]
    hints = [hint for _, hint in constants(first.text())]
    columns = list(zip(*([value for value, _ in constants(draft.text())] for draft in members), strict=True))
    split = len(constants("\n".join([first.bases, *first.constructor])))
    parameters: dict[tuple[str, ...], str] = {}
    for column, hint in zip(columns, hints, strict=True):
        if len(set(column)) > 1 and column not in parameters:
            parameters[column] = _fresh(_attribute_named(column, members) or hint or "size", set(parameters.values()))
    for i, draft in enumerate(members):
        draft.class_name = name
        draft.arguments = ", ".join(_marked(column[i], parameter) for column, parameter in parameters.items())
    stored = {parameters[column] for column in columns[split:] if column in parameters}
    values = [
        (parameters[column] if i < split else f"self.{parameters[column]}") if column in parameters else column[0]
        for i, column in enumerate(columns)
    ]
    return _rendered(name, first, list(parameters.values()), sorted(stored), values)


def _attribute_named(column: tuple[str, ...], members: list[Draft]) -> str | None:
    """The attribute of the torch modules that holds the numbers."""
    for attribute, value in vars(members[0].module).items():
        if attribute.startswith("_") or repr(value) != column[0]:
            continue
        if all(repr(vars(d.module).get(attribute)) == entry for d, entry in zip(members, column, strict=True)):
            return attribute
    return None


def _marked(value: str, hint: str) -> str:
    """A number that is text already, marked again."""
    return f"\x01{value}\x02{hint}\x03"


def _fresh(wanted: str, used: set[str]) -> str:
    wanted = wanted if wanted.isidentifier() and not keyword.iskeyword(wanted) else "size"
    name, count = wanted, 1
    while name in used:
        count += 1
        name = f"{wanted}_{count}"
    return name


def _rendered(name: str, draft: Draft, parameters: list[str], stored: list[str], values: list[str]) -> str:
    """The text of one class."""
    remaining = iter(values)

    def fill(text: str) -> str:
        return filled(text, [next(remaining) for _ in constants(text)])

    lines = [f"class {name}({fill(draft.bases)}):"]
    constructor = [fill(line) for line in draft.constructor]
    if constructor or stored:
        signature = ["self", *parameters, *(["*", "rngs: nnx.Rngs"] if draft.needs_rngs() else [])]
        typed = ", ".join(signature)
        lines.append(wrapped(f"def __init__({typed}):", 4))
        lines += [
            f"        self.{parameter} = {parameter}"
            for parameter in stored
            if f"self.{parameter} =" not in constructor
        ]
        lines += [wrapped(line, 8) for line in constructor]
    for method, body in draft.methods.items():
        head = fill(f"{method}({', '.join(['self', *body.parameters])})")
        lines += ["", wrapped(f"def {head}:", 4)] if len(lines) > 1 else [wrapped(f"def {head}:", 4)]
        lines += [wrapped(fill(line), 8) for line in body.lines]
    if len(lines) == 1:
        lines.append("    pass")
    return "\n".join(lines)
