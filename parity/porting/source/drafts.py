"""Modules as text, and one class for all that differ in numbers only."""

from __future__ import annotations

import inspect
import keyword
import re
from dataclasses import dataclass, field
from typing import Any

import torch

from jaxnn import nn
from parity.porting.operators.expression import Constant, constants, filled, marked, optional
from parity.porting.source.body import Body, Extras
from parity.porting.source.call import Call
from parity.porting.source.formatting import spaced, wrapped


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


@dataclass(frozen=True)
class Parameter:
    """An argument of a constructor, with the default that it has."""

    name: str
    default: str | None


def class_of(members: list[Draft], name: str) -> str:
    """The text of the one class of ``members``, which differ in numbers: those are arguments of its constructor."""
    first = members[0]
    places = constants(first.text())
    columns = list(zip(*([place.value for place in constants(draft.text())] for draft in members), strict=True))
    split = len(constants("\n".join([first.bases, *first.constructor])))
    parameters = _parameters(members, places, columns, split)
    distinct = {parameter: columns[i] for i, parameter in parameters.items()}
    for i, draft in enumerate(members):
        draft.class_name = name
        required = [marked(column[i], x.name) for x, column in distinct.items() if x.default is None]
        others = [optional(x.name, column[i], x.default) for x, column in distinct.items() if x.default is not None]
        draft.arguments = ", ".join(required) + "".join(others)
    stored = {parameter.name for i, parameter in parameters.items() if i >= split}
    values = [None if column[0] == place.default else column[0] for place, column in zip(places, columns, strict=True)]
    for i, parameter in parameters.items():
        values[i] = parameter.name if i < split else f"self.{parameter.name}"
    return _rendered(name, first, list(distinct), sorted(stored), values)


def _parameters(
    members: list[Draft], places: list[Constant], columns: list[tuple[str, ...]], split: int
) -> dict[int, Parameter]:
    """What stands at each place where ``members`` differ, those without a default first.

    Equal numbers are one parameter, but of those with a default only if they are called the same. What methods read,
    from ``split`` on, is an attribute: not one that the layer keeps which the class is derived from.
    """
    known: dict[Any, Parameter] = {}
    found: dict[int, Parameter] = {}
    kept = _kept_by(members[0].bases)
    differing = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    for i in sorted(differing, key=lambda i: places[i].default is not None):
        place, column = places[i], columns[i]
        is_own = bool(kept) and i >= split
        key = (column, is_own) if place.default is None else (column, place.hint, place.default)
        if (column, is_own) not in known and key not in known:
            wanted = place.hint if place.default is not None else _attribute_named(column, members) or place.hint
            used = {parameter.name for parameter in known.values()} | (kept if is_own else set())
            known[key] = Parameter(_fresh(wanted or "size", used), place.default)
        found[i] = known.get((column, is_own)) or known[key]
    return found


def _kept_by(bases: str) -> set[str]:
    """The attributes of a layer of jaxnn."""
    if not bases.startswith("nn.") or bases == "nn.Sequential":
        return set()
    return set(inspect.signature(getattr(nn, bases.removeprefix("nn.")).__init__).parameters)


def _attribute_named(column: tuple[str, ...], members: list[Draft]) -> str | None:
    """The attribute of the torch modules that holds the numbers."""
    for attribute, value in vars(members[0].module).items():
        if attribute.startswith("_") or repr(value) != column[0]:
            continue
        if all(repr(vars(d.module).get(attribute)) == entry for d, entry in zip(members, column, strict=True)):
            return attribute
    return None


def _fresh(wanted: str, used: set[str]) -> str:
    wanted = wanted if wanted.isidentifier() and not keyword.iskeyword(wanted) else "size"
    name, count = wanted, 1
    stem = re.sub(r"_\d+$", "", wanted)
    while name in used:
        count += 1
        name = f"{stem}_{count}"
    return name


def _rendered(name: str, draft: Draft, parameters: list[Parameter], stored: list[str], values: list[str | None]) -> str:
    """The text of one class."""
    remaining = iter(values)

    def fill(text: str) -> str:
        return filled(text, [next(remaining) for _ in constants(text)])

    lines = [f"class {name}({fill(draft.bases)}):"]
    constructor = [fill(line) for line in draft.constructor]
    if constructor or stored:
        given = [x.name if x.default is None else f"{x.name}={x.default}" for x in parameters]
        typed = ", ".join(["self", *given, *(["*", "rngs: nnx.Rngs"] if draft.needs_rngs() else [])])
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
        lines += [line and wrapped(fill(line), 8) for line in spaced(body.lines)]
    if len(lines) == 1:
        lines.append("    pass")
    return "\n".join(lines)
