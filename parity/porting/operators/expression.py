"""Python expressions as text that know how tightly they bind and which names they read."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

ATOM, POWER, SIGN, PRODUCT, SUM, SHIFT, AND, XOR, OR, COMPARISON, NOT, LOWEST = range(20, 8, -1)

# What may differ between instances of one class, between marks: its value, and what it is called. That of an argument
# that has a default stands with the argument's name, and the default before it: ``, stride=2``.
_VALUE = "\x01([^\x02]*)\x02([^\x03]*)\x03"
_MARK = re.compile(f"(?:\x04([^\x05]*)\x05([^\x01]*))?{_VALUE}\x06?")


@dataclass(frozen=True)
class Expression:
    """Text, its binding strength, and the local names it reads."""

    text: str
    strength: int = ATOM
    names: frozenset[str] = frozenset()

    def within(self, strength: int) -> str:
        """The text as an operand, in parentheses if it binds less tightly than ``strength``."""
        return self.text if self.strength >= strength else f"({self.text})"

    def __len__(self) -> int:
        return length(self.text)


@dataclass(frozen=True)
class Several(Expression):
    """Several results, each an expression of its own for where it is the only one that is read."""

    parts: tuple[Expression, ...] = ()


def several(*parts: Expression, together: Expression | None = None) -> Several:
    """The results of one operator, in order; ``together`` gives all of them at once."""
    names = frozenset[str]().union(*(part.names for part in parts))
    text = together.text if together is not None else ", ".join(part.text for part in parts)
    return Several(text, LOWEST, names, parts)


def literal(value: Any) -> str:
    """``value`` as Python."""
    return repr(value).replace("'", '"')


def constant(value: Any, hint: str = "") -> str:
    """A number as text that remembers its place, so that instances of one class may differ in it."""
    return marked(literal(value), hint)


def marked(value: str, hint: str) -> str:
    """The text of a number, with its place."""
    return f"\x01{value}\x02{hint}\x03"


def optional(name: str, value: str, default: str) -> str:
    """``, name=value``, to be left out where the value is the default."""
    return f"\x04{default}\x05, {name}={marked(value, name)}\x06"


def plain(text: str) -> str:
    """``text`` without marks."""
    return filled(text, (None if value == default else value for value, _, default in constants(text)))


def length(text: str) -> int:
    """How long ``text`` is if whole numbers have three digits: instances of one class break their lines alike."""
    values = (None if value == default else value for value, _, default in constants(text))
    return len(filled(text, ("000" if value is not None and value.isdigit() else value for value in values)))


def skeleton(text: str) -> str:
    """``text`` without the numbers."""
    return re.sub(_VALUE, "\x01", text)


class Constant(NamedTuple):
    """A marked number: its value, what it is called, and the default of the argument that it is, if that has one."""

    value: str
    hint: str
    default: str | None


def constants(text: str) -> list[Constant]:
    """The marked numbers of ``text``, in order."""
    return [Constant(match[3], match[4], match[1]) for match in _MARK.finditer(text)]


def filled(text: str, values: Iterable[str | None]) -> str:
    """``text`` with ``values`` in place of its marked numbers; without the arguments whose value is None."""
    remaining = iter(values)

    def fill(match: re.Match[str]) -> str:
        value = next(remaining)
        return "" if value is None else (match[2] or "") + value

    return _MARK.sub(fill, text).replace("(, ", "(")


def binary(operator: str, left: Expression, right: Expression, strength: int) -> Expression:
    """``left operator right``, associating to the left."""
    text = f"{left.within(strength)} {operator} {right.within(strength + 1)}"
    return Expression(text, strength, left.names | right.names)
