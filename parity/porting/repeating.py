"""The statements of a loop over equal rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.porting.call import Call
from parity.porting.functionalization import packet
from parity.porting.loops import carried_name, gone_through
from parity.porting.naming import access

if TYPE_CHECKING:
    from parity.porting.rounds import Rounds
    from parity.porting.writing import Writer

COUNTED = {"eq": 1, "ne": 1, "select": 2}
"""Which argument of which operator may be the number of the round."""


class Counter(int):
    """The number of a round, written by name."""

    name: str

    def __repr__(self) -> str:
        return self.name


def write_rounds(writer: Writer, loop: Rounds) -> None:
    """Write the statements of a loop; the second round stands for all, for it takes what another has left."""
    for node in loop.outside:
        if node in writer.pending:
            writer.settle_before(node)
    writer.settle_readers(loop.carried.values())
    busy = {writer.names[node] for node in loop.outside if node in writer.names}
    names = _carried(writer, loop, busy)
    busy.update(names)
    members: dict[str, tuple[str, str]] = {}
    for container in loop.containers:
        members[container] = gone_through(writer, container, loop.start, len(loop.rounds), busy)
        busy.add(members[container][1])
    number = _number(writer, busy) if loop.counted else None
    lines = _body(writer, loop, names, [name for _, name in members.values()], number)
    for container, (_, name) in members.items():
        member = access(writer.call.path, f"{container}.{loop.start + 1}", writer.modules)
        lines = [line.replace(member, name) for line in lines]
    writer.lines.append(_head(list(members.values()), number))
    writer.lines += [f"    {line}" for line in lines]
    for node, name in zip(loop.left(-1), names, strict=True):
        writer.bind(node, name)


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


def _body(writer: Writer, loop: Rounds, carried: list[str], members: list[str], number: str | None) -> list[str]:
    """The statements of the second round, which end with what it leaves."""
    call = Call(writer.call.path, writer.call.index, writer.call.module, None, loop.rounds[1], outputs=loop.left(1))
    inner = writer.nested(call)
    inner.sizes = writer.sizes
    inner.outer = (inner.outer | {*members, *filter(None, [number])}) - set(carried)
    for node in loop.outside:
        if node in writer.names:
            inner.bind(node, writer.names[node])
    for node, name in zip(loop.left(0), carried, strict=True):
        inner.bind(node, name)
    if number is not None:
        _count(loop, number)
    lines = inner.body(root_outputs=call.outputs).lines
    left = ", ".join(carried)
    lines[-1] = lines[-1].replace("return ", f"{left} = ", 1)
    return lines[:-1] if lines[-1] == f"{left} = {left}" else lines


def _count(loop: Rounds, name: str) -> None:
    """Call the number of the round by its name."""
    counter = Counter(loop.start + 1)
    counter.name = name
    for i in loop.counted:
        node = loop.rounds[1][i]
        at = COUNTED[packet(node)]
        node.args = (*node.args[:at], counter, *node.args[at + 1 :])


def _head(members: list[tuple[str, str]], number: str | None) -> str:
    lists, items = (", ".join(part) for part in zip(*members, strict=True))
    if len(members) > 1:
        lists, items = f"zip({lists}, strict=True)", f"({items})" if number else items
    return f"for {items} in {lists}:" if number is None else f"for {number}, {items} in enumerate({lists}):"
