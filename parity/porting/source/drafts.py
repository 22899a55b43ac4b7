"""Modules as text, and one class for all that differ in numbers only."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from jaxnn import nn
from parity.porting.operators.expression import Constant, constants, filled, marked, optional
from parity.porting.source.body import Body, Extras
from parity.porting.source.call import Call
from parity.porting.source.formatting import spaced, wrapped
from parity.porting.source.optional import ABSENT, agree, assigned


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
    lacks: set[str] = field(default_factory=set)
    fullest: Draft | None = None  # of the class, where this one lacks something

    def text(self) -> str:
        """Everything, to be compared with other instances."""
        lines = [self.bases, *self.constructor]
        for name, body in self.methods.items():
            lines += [f"{name}({', '.join(body.parameters)})", *body.lines]
        return "\n".join(lines)

    def values(self) -> list[str | None]:
        """The marked numbers as the class has them, with gaps where this module lacks a child, or every call."""
        own: Iterator[str | None] = (place.value for place in constants(self.text()))
        if self.fullest is None:
            return list(own)
        found: list[str | None] = []
        for line in self.fullest.text().split("\n"):
            gap = assigned(line) in self.lacks
            found += [None if gap else next(own, None) for _ in constants(line)]
        return found

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
    columns = list(zip(*(draft.values() for draft in members), strict=True))
    split = len(constants("\n".join([first.bases, *first.constructor])))
    parameters = _parameters(members, places, columns, split)
    distinct: dict[Parameter, Sequence[str | None]] = {}
    for i, parameter in parameters.items():
        distinct.setdefault(parameter, columns[i])
    flags = _flags(members, {parameter.name for parameter in distinct})
    distinct |= {flag: [repr(child not in draft.lacks) for draft in members] for child, flag in flags.items()}
    for i, draft in enumerate(members):
        draft.class_name = name
        given = [(x, str(column[i])) for x, column in distinct.items()]
        required = [marked(value, x.name) for x, value in given if x.default is None]
        others = [optional(x.name, value, x.default) for x, value in given if x.default is not None]
        draft.arguments = ", ".join(required) + "".join(others)
    stored = {parameter.name for i, parameter in parameters.items() if i >= split}
    values = [None if column[0] == place.default else column[0] for place, column in zip(places, columns, strict=True)]
    for i, parameter in parameters.items():
        values[i] = parameter.name if i < split else f"self.{parameter.name}"
    return _rendered(name, first, list(distinct), sorted(stored), values, flags)


def _flags(members: list[Draft], used: set[str]) -> dict[str, Parameter]:
    """The children that not all of ``members`` have, each with the argument that says whether it is there."""
    found: dict[str, Parameter] = {}
    for child in map(assigned, members[0].constructor):
        if any(child in draft.lacks for draft in members):
            found[child] = Parameter(_fresh(child, used), "False")
            used.add(found[child].name)
    return found


def _parameters(
    members: list[Draft], places: list[Constant], columns: list[tuple[str | None, ...]], split: int
) -> dict[int, Parameter]:
    """What stands at each place where ``members`` differ, those without a default first.

    Equal numbers are one parameter, but of those with a default only if they are called the same. What methods read,
    from ``split`` on, is an attribute: not one that the layer keeps which the class is derived from.
    """
    known: list[tuple[int, bool, Parameter]] = []
    found: dict[int, Parameter] = {}
    kept = _kept_by(members[0].bases)
    differing = [i for i in range(len(columns)) if _differs(i, places, columns)]
    for i in sorted(differing, key=lambda i: (places[i].default is not None, None in columns[i])):
        place, column = places[i], columns[i]
        is_own = bool(kept) and i >= split
        named = place.hint, place.default
        same = (
            parameter
            for j, own, parameter in known
            if agree(column, columns[j])
            and (own == is_own if places[j].default is None else named == (places[j].hint, places[j].default))
        )
        parameter = next(same, None)
        if parameter is None:
            wanted = place.hint if place.default is not None else _attribute_named(column, members) or place.hint
            used = {x.name for _, _, x in known} | (kept if is_own else set())
            parameter = Parameter(_fresh(wanted or "size", used), place.default)
            known.append((i, is_own, parameter))
        found[i] = parameter
    return found


def _differs(i: int, places: list[Constant], columns: list[tuple[str | None, ...]]) -> bool:
    """Whether the number at a place is none of the class, but of its members.

    One that few of them have goes with another that has its name, or its size: of sizes, few are equal by chance.
    """
    numbers = {*columns[i]} - {None}
    if None not in columns[i] or len(numbers) > 1:
        return len(numbers) > 1
    is_size = all(number.isdigit() and int(number) > 7 for number in numbers if number)
    return any(
        None not in column
        and len({*column}) > 1
        and place.default == places[i].default
        and (place.hint == places[i].hint or (is_size and place.default is None))
        and agree(columns[i], column)
        for place, column in zip(places, columns, strict=True)
    )


def _kept_by(bases: str) -> set[str]:
    """The attributes of a layer of jaxnn."""
    if not bases.startswith("nn.") or bases == "nn.Sequential":
        return set()
    return set(inspect.signature(getattr(nn, bases.removeprefix("nn.")).__init__).parameters)


def _attribute_named(column: tuple[str | None, ...], members: list[Draft]) -> str | None:
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


def _rendered(
    name: str,
    draft: Draft,
    parameters: list[Parameter],
    stored: list[str],
    values: list[str | None],
    flags: dict[str, Parameter],
) -> str:
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
        for line in constructor:
            flag = flags.get(assigned(line))
            if flag is not None:
                lines += [f"        self.{assigned(line)} = {ABSENT}", f"        if {flag.name}:"]
            lines.append(wrapped(line, 8 if flag is None else 12))
    for method, body in draft.methods.items():
        head = fill(f"{method}({', '.join(['self', *body.parameters])})")
        lines += ["", wrapped(f"def {head}:", 4)] if len(lines) > 1 else [wrapped(f"def {head}:", 4)]
        lines += [line and wrapped(fill(line), 8) for line in spaced(body.lines)]
    if len(lines) == 1:
        lines.append("    pass")
    return "\n".join(lines)
