"""Subscripts of what is a subscript already: ``x[:, :5][..., None]`` is ``x[:, :5, None]``."""

import re

from parity.porting.operators.expression import ATOM, Expression
from parity.porting.operators.operation import Tensor

# Entries that keep an axis or make one: the axes of the result are counted by them.
_ENTRY = r"(?:None|\.\.\.|[^\[\](),]*:[^\[\](),]*)"
_SUBSCRIPT = re.compile(rf"(.+)\[({_ENTRY}(?:, {_ENTRY})*)\]")


def picked(operand: Tensor, dim: int, entry: Expression) -> Expression:
    """``operand[:, :, entry]``."""
    base, entries = _apart(operand)
    dim %= operand.ndim
    if entries[dim] != ":":
        base, entries = operand.within(ATOM), [":"] * operand.ndim
    entries[dim] = entry.text
    return Expression(f"{base}[{_joined(entries)}]", ATOM, operand.names | entry.names)


def widened(operand: Tensor, dim: int) -> Expression | None:
    """``operand[:, None]``, as people write it; None where they would not."""
    base, entries = _apart(operand)
    plain = "None" not in entries
    if plain and (operand.ndim > 4 or (dim > 2 and dim != operand.ndim)):
        return None
    entries.insert(dim, "None")
    return Expression(f"{base}[{_joined(entries)}]", ATOM, operand.names)


def whole(operand: Expression) -> str:
    """The text of ``operand`` where a subscript follows: what a variable holds is subscripted as the variable is."""
    return operand.within(ATOM).removesuffix("[...]")


def _apart(operand: Tensor) -> tuple[str, list[str]]:
    """What is subscripted, and an entry for each axis."""
    match = _SUBSCRIPT.fullmatch(operand.text) if operand.strength == ATOM else None
    if match is None:
        return operand.within(ATOM), [":"] * operand.ndim
    entries = match[2].split(", ")
    if "..." not in entries:
        entries.append("...")
    place = entries.index("...")
    entries[place : place + 1] = [":"] * (operand.ndim - len(entries) + 1)
    return match[1], entries


def _joined(entries: list[str]) -> str:
    """The entries as people write them: no colons behind the last, an ellipsis for several before the first."""
    last = max(i for i, entry in enumerate(entries) if entry != ":")
    first = next(i for i, entry in enumerate(entries) if entry != ":")
    if first > 1 and last == len(entries) - 1:
        return ", ".join(["...", *entries[first:]])
    return ", ".join(entries[: last + 1])
