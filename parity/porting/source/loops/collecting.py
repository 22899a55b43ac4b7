"""The lists that a loop fills, one entry a round."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.fx import Node

from parity.porting.source.loops.lists import joined, joined_by, spread
from parity.porting.source.naming import assigned, naming_line, source_lines

if TYPE_CHECKING:
    from parity.porting.source.loops.rounds import Rounds
    from parity.porting.source.statements import Writer


@dataclass(frozen=True)
class Collection:
    """A list: its name, the place of what each round adds, and how many entries it has before."""

    name: str
    place: tuple[int, int]
    begins_with: int


def begun(writer: Writer, loop: Rounds) -> list[Collection]:
    """The lists that ``loop`` fills; the statement is written of each that does not begin empty."""
    lists = []
    needed = {writer.names[node] for node in loop.needs() if node in writer.names}
    for place in loop.collected:
        nodes = [loop.made(number, place) for number in range(len(loop.rounds))]
        joining = joined_by(nodes, writer.call.items)
        before = _at_hand(writer, joining, nodes[0]) if joining is not None else []
        wanted = list_name(writer, nodes, joining)
        while writer.free(wanted) in needed:
            wanted = f"{wanted}_list"
        name = writer.unused(wanted)
        if before:
            writer.lines.append(f"{name} = {_start(writer, before, joining, name)}")
        writer.lists[tuple(before + nodes)] = name
        for i, node in enumerate(nodes):
            writer.bind(node, f"{name}[{len(before) + i}]")
        lists.append(Collection(name, place, len(before)))
    return lists


def _at_hand(writer: Writer, joining: Node, first: Node) -> list[Node]:
    """What is joined before ``first``, if all of it is known before the loop."""
    row = joined(joining)
    before = row[: row.index(first)]
    return before if all(node in writer.names or node in writer.pending for node in before) else []


def _start(writer: Writer, before: list[Node], joining: Node, name: str) -> str:
    """What a list begins with; from now on it is read there."""
    waiting = [node for node in before if node in writer.pending]
    text = spread(writer.lists, before, [writer.value(node) for node in before]).text
    for i, node in enumerate(before):
        if node in waiting:
            writer.bind(node, f"{name}[{i}]")
        elif writer.last.get(node, -1) < len(writer.items):
            readers = [k for k, item in enumerate(writer.items) if item is not joining and node in writer.needs(item)]
            writer.last[node] = max(readers, default=-1)
    return text


def list_name(writer: Writer, nodes: list[Node], joining: Node | None) -> str:
    """What the torch source calls the list, or the plural of what it calls an entry."""
    lines = [line for node in nodes[:1] for line in source_lines(node)]
    appended = [match[1] for line in lines if (match := re.search(r"(\w+)\.append\(", line))]
    made = [name for line in lines if (name := assigned(line)) and re.search(r"=\s*\[.*\bfor\b", line)]
    given = re.findall(r"(?:cat|stack|concat\w*)\(\[?\*?(\w+)[,)\]]", naming_line(joining)) if joining else []
    entry = writer.source_name(nodes[0]) or "x"
    plural = entry if entry.endswith("s") else f"{entry}s"
    return next(iter([*appended, *made, *(given if len(given) == 1 else []), plural]))
