"""Python expressions as text that know how tightly they bind and which names they read."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ATOM, POWER, SIGN, PRODUCT, SUM, SHIFT, AND, XOR, OR, COMPARISON, NOT, LOWEST = range(20, 8, -1)

# A number that may differ between instances of one class: its value and what it is called, between marks.
_MARK = re.compile("\x01([^\x02]*)\x02([^\x03]*)\x03")


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


def constant(value: Any, hint: str = "") -> str:
    """A number as text that remembers its place, so that instances of one class may differ in it."""
    return f"\x01{value!r}\x02{hint}\x03"


def plain(text: str) -> str:
    """``text`` without marks."""
    return _MARK.sub(lambda match: match[1], text)


def length(text: str) -> int:
    """How long ``text`` is if whole numbers have three digits: instances of one class break their lines alike."""
    return len(_MARK.sub(lambda match: "000" if match[1].isdigit() else match[1], text))


def skeleton(text: str) -> str:
    """``text`` without the numbers."""
    return _MARK.sub("\x01", text)


def constants(text: str) -> list[tuple[str, str]]:
    """The marked numbers of ``text``, each with its hint, in order."""
    return [(match[1], match[2]) for match in _MARK.finditer(text)]


def filled(text: str, values: Iterable[str]) -> str:
    """``text`` with ``values`` in place of its marked numbers."""
    remaining = iter(values)
    return _MARK.sub(lambda match: next(remaining), text)


def binary(operator: str, left: Expression, right: Expression, strength: int) -> Expression:
    """``left operator right``, associating to the left."""
    text = f"{left.within(strength)} {operator} {right.within(strength + 1)}"
    return Expression(text, strength, left.names | right.names)
