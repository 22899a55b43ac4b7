"""Calls that are each given all that those before have made, as the layers of a DenseNet are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.fx import Node

from parity.porting.source.call import Call
from parity.porting.source.loops.collecting import list_name
from parity.porting.source.loops.lists import Listed, arguments, joined_by, spread
from parity.porting.source.loops.runs import gone_through
from parity.porting.source.naming import access, is_indexed

if TYPE_CHECKING:
    from parity.porting.source.statements import Writer


@dataclass(eq=False)
class Growing:
    """Calls of modules that take one list, whose results are appended to it."""

    calls: list[Call]
    before: list[Node]

    def needs(self) -> list[Node]:
        """What the list begins with."""
        return self.before

    def write(self, writer: Writer) -> None:
        """Write the list and the statements that make it grow."""
        results = [call.outputs[0] for call in self.calls]
        held = list(self.before)
        name = writer.unused(list_name(writer, results, joined_by([*held, *results], writer.call.items)))
        writer.lines.append(f"{name} = {spread(writer.lists, held, [writer.value(node) for node in held]).text}")
        lines = []
        for call, result in zip(self.calls, results, strict=True):
            writer.lists[tuple(held)] = name
            lines.append(f"{name}.append({writer.called(call).text})")
            del writer.lists[tuple(held)]
            writer.bind(result, f"{name}[{len(held)}]")
            held.append(result)
        writer.lists[tuple(held)] = name
        writer.lines += self._as_loop(writer, lines) or lines

    def _as_loop(self, writer: Writer, lines: list[str]) -> list[str] | None:
        """``lines`` as one, where the modules are members of a list, in its order."""
        container, _, start = self.calls[0].path.rpartition(".")
        paths = [f"{container}.{int(start) + i}" for i in range(len(lines))] if start.isdigit() else []
        if [call.path for call in self.calls] != paths or not is_indexed(writer.modules.get(container)):
            return None
        members, item = gone_through(writer, container, int(start), len(lines), set())
        ways = [access(writer.call.path, path, writer.modules) for path in paths]
        alike = {line.replace(way, item) for line, way in zip(lines, ways, strict=True)}
        return [f"for {item} in {members}:", f"    {alike.pop()}"] if len(alike) == 1 else None


def grown(writer: Writer, items: list[Any]) -> list[Any]:
    """``items`` with calls in a row, each given a list that the one before has appended to, as one."""
    result: list[Any] = []
    i = 0
    while i < len(items):
        calls = _run(writer, items[i:])
        if len(calls) > 1:
            result.append(Growing(calls, list(_list_of(calls[0]))))
        else:
            result.append(items[i])
        i += max(len(calls), 1)
    return result


def _run(writer: Writer, items: list[Any]) -> list[Call]:
    """The first of ``items`` that are such calls; the list that they leave is read as a whole."""
    calls: list[Call] = []
    held: tuple[Node, ...] = ()
    for item in items:
        given = _list_of(item)
        if not given or (calls and given != held):
            break
        calls.append(item)
        held = (*given, item.outputs[0])
    return calls if calls and joined_by(list(held), writer.call.items) else calls[:-1]


def _list_of(item: Any) -> tuple[Node, ...]:
    """The list that is all that a call takes."""
    if not isinstance(item, Call) or item.leaf or len(item.outputs) != 1:
        return ()
    match arguments(item):
        case [Listed(nodes=nodes)]:
            return nodes
    return ()
