"""Runs of modules that feed one another, as loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.porting.operators.expression import Expression
from parity.porting.source.call import Call
from parity.porting.source.loops.lists import Listed, arguments
from parity.porting.source.naming import RESERVED, access, singular

if TYPE_CHECKING:
    from parity.porting.source.statements import Writer


@dataclass(eq=False)
class Loop:
    """A run of calls, each fed with what the one before gave."""

    calls: list[Call]
    container: str
    start: int
    slot: int
    given: list[Node]
    length: int

    def needs(self) -> list[Node]:
        """What the first call takes."""
        return self.given

    def is_whole(self) -> bool:
        """Whether every member of the container is called."""
        return self.start == 0 and len(self.calls) == self.length

    def write(self, writer: Writer) -> None:
        """Write its statements."""
        write_loop(writer, self)


def looped(writer: Writer, items: list[Any]) -> list[Any]:
    """``items`` with every run of calls that feed one another as one loop."""
    result: list[Any] = []
    i = 0
    while i < len(items):
        run = _run(writer, items, i)
        if run is None:
            result.append(items[i])
            i += 1
        else:
            result.append(run)
            i += len(run.calls)
    return result


def _run(writer: Writer, items: list[Any], start: int) -> Loop | None:
    first = items[start]
    if not isinstance(first, Call) or len(first.outputs) != 1:
        return None
    container, _, number = first.path.rpartition(".")
    parent = writer.modules.get(container)
    if (
        not number.isdigit()
        or not isinstance(parent, torch.nn.Sequential | torch.nn.ModuleList)
        or container == writer.call.path
    ):
        return None
    calls, slot = [first], None
    for item in items[start + 1 :]:
        previous = calls[-1]
        if (
            not isinstance(item, Call)
            or item.path != f"{container}.{int(number) + len(calls)}"
            or len(item.outputs) != 1
        ):
            break
        before, now = writer.given(previous), writer.given(item)
        changed = [k for k, (a, b) in enumerate(zip(before, now, strict=False)) if a is not b]
        if len(before) != len(now) or len(changed) != 1 or now[changed[0]] is not previous.outputs[0]:
            break
        if slot not in (None, changed[0]) or not alike(writer, previous, item):
            break
        if (
            any(user in writer.inner and user not in set(item.nodes()) for user in previous.outputs[0].users)
            or previous.outputs[0] in writer.call.outputs
        ):
            break
        slot = changed[0]
        calls.append(item)
    if len(calls) < 2:
        return None
    assert slot is not None
    return Loop(calls, container, int(number), slot, writer.given(first), len(parent))


def alike(writer: Writer, a: Call, b: Call) -> bool:
    """Whether two calls are written alike but for the module."""
    if a.leaf or b.leaf:
        return all(call.leaf and len(torch_tree.tree_leaves(structure(call))) == 1 for call in (a, b))
    if any(isinstance(given, Listed) for call in (a, b) for given in arguments(call)):
        return False
    return (
        type(a.module) is type(b.module)
        and writer.method(a)[0] == writer.method(b)[0] == "__call__"
        and not writer.method(a)[1]
        and not writer.method(b)[1]
    )


def write_loop(writer: Writer, loop: Loop) -> None:
    """Write the statements of a loop."""
    given = loop.given[loop.slot]
    writer.settle_readers([given])
    carried = writer.value(given)
    others = {k: writer.value(n) for k, n in enumerate(loop.given) if k != loop.slot}
    busy = {n for other in others.values() for n in other.names}
    name = carried_name(writer, given, carried, writer.call_name(loop.calls[0]), busy)
    members, item = gone_through(writer, loop.container, loop.start, len(loop.calls), {name})
    args = [name if k == loop.slot else others[k].text for k in range(len(loop.given))]
    writer.lines.append(f"for {item} in {members}:")
    writer.lines.append(f"    {name} = {item}({', '.join(args)})")
    writer.bind(loop.calls[-1].outputs[0], name)


def carried_name(writer: Writer, given: Node, carried: Expression, wanted: str | None, busy: set[str]) -> str:
    """The name of what every round of a loop makes anew, bound to what the first one takes; none of ``busy``."""
    dying = writer.last.get(given, -1) <= writer.position
    if carried.text.isidentifier() and carried.text in writer.bound and dying and carried.text not in busy:
        return carried.text
    name = writer.free(wanted or "x")
    while name in busy:
        name = writer.free(f"{name}_out")
    writer.lines.append(f"{name} = {carried.text}")
    return name


def gone_through(writer: Writer, container: str, start: int, count: int, busy: set[str]) -> tuple[str, str]:
    """The members of a list that a loop goes through, and what each of them is called; none of ``busy``."""
    members = access(writer.call.path, container, writer.modules)
    cut = cut_out(start, count, len(writer.modules[container]))
    *owners, name = container.removeprefix(f"{writer.call.path}.").split(".")
    wanted = singular(name)
    owned = [f"{owners[-1]}_{wanted}"] if owners and owners[-1].isidentifier() else []
    return f"{members}{cut}", member_name(writer, [wanted, *owned], busy)


def cut_out(start: int, count: int, length: int) -> str:
    """What picks ``count`` from a list, from ``start`` on."""
    end = start + count
    return "" if count == length else f"[{start or ''}:{end if end < length else ''}]"


def member_name(writer: Writer, wanted: list[str], busy: set[str]) -> str:
    """What the member that a round has is called: the first of ``wanted`` that nothing else is; none of ``busy``."""

    def taken(name: str) -> bool:
        return name in RESERVED or name in busy or name in writer.bound or name in writer.outer

    name = next((name for name in wanted if not taken(name)), wanted[0])
    while taken(name):
        name = f"{name}_"
    return name


def structure(call: Call) -> Any:
    """What a layer was given."""
    assert call.record is not None
    return (call.record.positional, call.record.keywords)
