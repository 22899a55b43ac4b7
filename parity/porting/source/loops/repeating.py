"""The statements of a loop over equal rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.fx import Node

from parity.porting.graph.nodes import packet
from parity.porting.operators.expression import Expression, length
from parity.porting.source.call import Call
from parity.porting.source.loops.collecting import Collection, begun
from parity.porting.source.loops.runs import carried_name, cut_out, gone_through, member_name
from parity.porting.source.naming import access, singular

if TYPE_CHECKING:
    from parity.porting.source.loops.rounds import Rounds
    from parity.porting.source.statements import Writer

COUNTED = {"eq": 1, "ne": 1, "select": 2}
"""Which argument of which operator may be the number of the round."""

LINE = 112


class Counter(int):
    """The number of a round, written by name."""

    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Names:
    """What things are called in a loop.

    Attributes:
        carried: what is carried from round to round.
        lists: what is collected.
        members: lists of modules, as they are gone through, and a member of each.
        parts: sequences of arrays likewise.
        number: of the round, if it is counted.
    """

    carried: list[str]
    lists: list[Collection]
    members: dict[str, tuple[str, str]]
    parts: dict[tuple[Node, int], tuple[str, str]]
    number: str | None


def write_rounds(writer: Writer, loop: Rounds) -> None:
    """Write the statements of a loop; the second round stands for all, for it takes what another has left."""
    for node in loop.outside:
        if node in writer.pending:
            writer.settle_before(node)
    names = _named(writer, loop)
    lines = _body(writer, loop, names)
    head = _head([*names.members.values(), *names.parts.values()], names.number, loop.start)
    if (whole := _comprehension(names, head, lines)) is not None:
        writer.lines.append(whole)
    else:
        writer.lines += [f"{x.name} = []" for x in names.lists if not x.begins_with]
        writer.lines += [head, *(f"    {line}" for line in lines)]
    for node, name in zip(loop.left(-1), names.carried, strict=True):
        writer.bind(node, name)


def _named(writer: Writer, loop: Rounds) -> Names:
    lists = begun(writer, loop)
    writer.settle_readers(loop.carried.values())
    busy = {writer.names[node] for node in loop.outside if node in writer.names}
    carried = _carried(writer, loop, busy)
    busy.update(carried)
    members: dict[str, tuple[str, str]] = {}
    for container in loop.containers:
        members[container] = gone_through(writer, container, loop.start, len(loop.rounds), busy)
        busy.add(members[container][1])
    parts: dict[tuple[Node, int], tuple[str, str]] = {}
    for sequence, begin in loop.parts:
        name, cut = writer.value(sequence).text, cut_out(begin, len(loop.rounds), len(sequence.meta["val"]))
        item = member_name(writer, [singular(name) if name.endswith("s") else "part"], busy)
        busy.add(item)
        parts[sequence, begin] = f"{name}{cut}", item
    number = _number(writer, busy) if loop.counted else None
    return Names(carried, lists, members, parts, number)


def _carried(writer: Writer, loop: Rounds, busy: set[str]) -> list[str]:
    """The names of what is carried from round to round, bound to what the first one takes."""
    taken = {writer.names[node] for node in loop.carried.values() if node in writer.names}
    names: list[str] = []
    for (i, _), given, made in zip(loop.carried, loop.carried.values(), loop.left(0), strict=True):
        item = loop.rounds[0][i]
        wanted = writer.call_name(item) if isinstance(item, Call) else writer.source_name(made)
        start = writer.value(given)
        names.append(carried_name(writer, given, start, wanted, busy | set(names) | (taken - {start.text})))
    return names


def _number(writer: Writer, busy: set[str]) -> str:
    """What the number of the round is called."""
    name = writer.free("i")
    while name in busy:
        name = writer.free(f"{name}_round")
    return name


def _body(writer: Writer, loop: Rounds, names: Names) -> list[str]:
    """The statements of the second round, which end with what it leaves."""
    inner = _inner(writer, loop, names)
    added = [x for x in names.lists if x.place not in loop.carried]
    made = [loop.made(1, x.place) for x in added]

    def ending(inner: Writer) -> Expression:
        for collection, node in zip(added, made, strict=True):
            inner.lines.append(f"{collection.name}.append({inner.value(node).text})")
        return Expression(", ".join(inner.value(node).text for node in loop.left(1)))

    left = ", ".join(names.carried)
    *lines, last = inner.body(ending, root_outputs=[*made, *loop.left(1)]).lines
    last = last.replace("return ", f"{left} = ", 1)
    lines += [last] if left and last != f"{left} = {left}" else []
    kept = dict(zip(loop.carried, names.carried, strict=True))
    lines += [f"{x.name}.append({kept[x.place]})" for x in names.lists if x.place in kept]
    for container, (_, name) in names.members.items():
        member = access(writer.call.path, f"{container}.{loop.start + 1}", writer.modules)
        lines = [line.replace(member, name) for line in lines]
    return lines


def _inner(writer: Writer, loop: Rounds, names: Names) -> Writer:
    """The writer of a round, which knows what comes from outside of it."""
    inner = writer.nested(Call(writer.call.path, writer.call.index, writer.call.module, None, loop.rounds[1]))
    inner.sizes = writer.sizes
    members = [name for _, name in (*names.members.values(), *names.parts.values())]
    outside = {node: writer.names[node] for node in loop.outside if node in writer.names}
    read = {name for name in inner.outer if not writer.is_free(name)} | set(outside.values())
    inner.outer = (read | {*members, *filter(None, [names.number])}) - set(names.carried)
    for node, name in outside.items():
        inner.bind(node, name)
    for node, name in zip(loop.left(0), names.carried, strict=True):
        inner.bind(node, name)
    for (sequence, begin), (_, name) in names.parts.items():
        part = next(x for x in sequence.users if x.args[1] == begin + 1)
        inner.bind(part, name)
    if names.number is not None:
        _count(loop, names.number)
    return inner


def _count(loop: Rounds, name: str) -> None:
    """Call the number of the round by its name."""
    counter = Counter(loop.start + 1)
    counter.name = name
    for i in loop.counted:
        node = loop.rounds[1][i]
        at = COUNTED[packet(node)]
        node.args = (*node.args[:at], counter, *node.args[at + 1 :])


def _head(members: list[tuple[str, str]], number: str | None, start: int) -> str:
    lists, items = (", ".join(part) for part in zip(*members, strict=True))
    if len(members) > 1:
        lists, items = f"zip({lists}, strict=True)", f"({items})" if number else items
    if number is None:
        return f"for {items} in {lists}:"
    return f"for {number}, {items} in enumerate({lists}{f', {start}' if start else ''}):"


def _comprehension(names: Names, head: str, lines: list[str]) -> str | None:
    """The whole loop, where all that it does is to fill one list."""
    if names.carried or len(lines) != 1 or any(x.begins_with for x in names.lists):
        return None
    name, _, entry = lines[0].removesuffix(")").partition(".append(")
    text = f"{name} = [{entry} {head.removesuffix(':')}]"
    return text if length(text) <= LINE else None
