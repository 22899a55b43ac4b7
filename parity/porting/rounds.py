"""Equal rounds of statements, one for each member of a list of modules, as loops.

``for i, (conv, norm) in enumerate(zip(convs, norms)): x = norm(conv(x, edges[i]))`` is unrolled in the graph. Its
rounds are found again: the same operators and layers, each fed by its own round, by what no round makes, or by what the
round before has left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.porting.branches import is_conditional
from parity.porting.call import Call
from parity.porting.differentiation import is_derivative
from parity.porting.functionalization import in_place, is_symbolic, packet, written
from parity.porting.loops import Loop, alike, structure
from parity.porting.naming import is_indexed
from parity.porting.repeating import COUNTED, write_rounds

if TYPE_CHECKING:
    from parity.porting.writing import Writer


class Member(NamedTuple):
    """What is reached through a member of a list: the list, the member's number, and the rest of the path."""

    container: str
    number: int
    rest: str


@dataclass(eq=False)
class Rounds:
    """Rounds of statements.

    Attributes:
        rounds: the items of each.
        start: the number of the first member.
        containers: the lists that are gone through side by side, in the order of their use.
        carried: which results of a round the next one takes, by their place within it, with what the first one takes.
        outside: what all of them take.
        counted: the operators of every round that take its number.
    """

    rounds: list[list[Any]]
    start: int
    containers: dict[str, None] = field(default_factory=dict)
    carried: dict[tuple[int, int], Node] = field(default_factory=dict)
    outside: dict[Node, None] = field(default_factory=dict)
    counted: dict[int, None] = field(default_factory=dict)

    def needs(self) -> list[Node]:
        """What comes from before the loop."""
        return [*self.carried.values(), *self.outside]

    def write(self, writer: Writer) -> None:
        """Write the statements of the loop; what the second round does stands for all."""
        write_rounds(writer, self)

    def left(self, number: int) -> list[Node]:
        """What the next round takes of this one, or what follows of the last."""
        return [_results(self.rounds[number][item])[result] for item, result in self.carried]


def in_rounds(writer: Writer, items: list[Any], outputs: Sequence[Node]) -> list[Any]:
    """``items`` with equal rounds of them as one."""
    live = [item for item in items if not _is_dead(item)]
    found = _first(writer, live, outputs)
    if found is None:
        return items
    first, last = _position(items, found.rounds[0][0]), _position(items, found.rounds[-1][-1])
    return [*items[:first], found, *in_rounds(writer, items[last + 1 :], outputs)]


def _position(items: list[Any], wanted: Any) -> int:
    return next(i for i, item in enumerate(items) if item is wanted)


def _is_dead(item: Any) -> bool:
    return isinstance(item, Node) and not item.users and not in_place(item)


def _first(writer: Writer, items: list[Any], outputs: Sequence[Node]) -> Rounds | None:
    """The first rounds among ``items``; of those that begin with the same members, the most, from the earliest item."""
    firsts: dict[str, dict[int, int]] = {}
    for position, item in enumerate(items):
        for member in _members(writer, item):
            firsts.setdefault(member.container, {}).setdefault(member.number, position)
    for positions in firsts.values():
        numbers = sorted(positions)
        if len(numbers) < 2 or numbers != list(range(numbers[0], numbers[-1] + 1)):
            continue
        steps = [positions[b] - positions[a] for a, b in pairwise(numbers)]
        length = steps[0]
        if length <= 0:
            continue
        equal = next((i for i, step in enumerate(steps) if step != length), len(steps))
        for count in range(equal + 1, 1, -1):
            for offset in range(length):
                begin = positions[numbers[0]] - offset
                if begin < 0 or begin + count * length > len(items):
                    continue
                parts = [items[begin + i * length : begin + (i + 1) * length] for i in range(count)]
                if (found := _matched(writer, parts, numbers[0], outputs)) is not None:
                    return found
    return None


def _members(writer: Writer, item: Any) -> Iterator[Member]:
    """The members of lists that ``item`` calls or reads, each reached through the outermost list."""
    if isinstance(item, Call):
        paths = [item.path]
    elif isinstance(item, Loop):
        paths = [item.container]
    else:
        paths = [node.meta["path"] for node in _leaves(item) if isinstance(node, Node) and node.meta.get("path")]
    for path in paths:
        if (member := _member(writer, path)) is not None:
            yield member


def _member(writer: Writer, path: str) -> Member | None:
    parts = path.split(".")
    scope = len(writer.call.path.split(".")) if writer.call.path else 0
    for i in range(scope + 1, len(parts)):
        container = ".".join(parts[:i])
        if parts[i].isdigit() and is_indexed(writer.modules.get(container)):
            return Member(container, int(parts[i]), ".".join(parts[i + 1 :]))
    return None


def _matched(writer: Writer, parts: list[list[Any]], start: int, outputs: Sequence[Node]) -> Rounds | None:
    """The rounds that ``parts`` are, or None."""
    found = Rounds(parts, start)
    places = [{node: (i, k) for i, item in enumerate(part) for k, node in enumerate(_results(item))} for part in parts]
    for number in range(1, len(parts)):
        if not all(_same(writer, found, places, number, i) for i in range(len(parts[0]))):
            return None
    made = {node for place in places for node in place}
    if not found.carried or not found.containers or (found.counted and start):
        return None
    if any(node in made for node in found.needs()):
        return None
    return found if _is_closed(writer, found, places, outputs) else None


def _same(writer: Writer, found: Rounds, places: list[dict[Node, Any]], number: int, i: int) -> bool:
    """Whether an item of a round does what it does in the first one."""
    first, item = found.rounds[0][i], found.rounds[number][i]
    if type(first) is not type(item) or len(_results(first)) != len(_results(item)):
        return False

    def related(a: Any, b: Any, at: int) -> bool:
        if not isinstance(a, Node) or not isinstance(b, Node):
            return _is_counted(found, first, i, at, a, b, number) or (type(a) is type(b) and a == b)
        if is_symbolic(a) or is_symbolic(b):
            return is_symbolic(a) and is_symbolic(b) and str(a.meta["val"]) == str(b.meta["val"])
        if a in places[0]:
            return places[number].get(b) == places[0][a]
        if a.op == b.op == "placeholder" and a.meta.get("path") and a is not b:
            return _goes_through(writer, found, a.meta["path"], str(b.meta.get("path")), number)
        if a is b:
            if not a.meta.get("path"):
                found.outside[a] = None
            return True
        place = places[number - 1].get(b)
        return place is not None and found.carried.setdefault(place, a) is a

    if isinstance(first, Node):
        if first.target != item.target or is_conditional(first) or is_derivative(first) or _changes_a_buffer(first):
            return False
        given = [torch_tree.tree_flatten((node.args, node.kwargs)) for node in (first, item)]
    else:
        a, b = _calls(first), _calls(item)
        whole = isinstance(first, Loop) and first.is_whole() and item.is_whole()
        if (len(a) != len(b) and not whole) or not _goes_through(writer, found, a[0].path, b[0].path, number):
            return False
        if not (a[0].leaf and b[0].leaf) and not alike(writer, a[0], b[0]):
            return False
        given = [_given(writer, thing) for thing in (first, item)]
    (before, spec), (now, other) = given
    if spec != other or len(before) != len(now):
        return False
    return all(related(a, b, at) for at, (a, b) in enumerate(zip(before, now, strict=True)))


def _changes_a_buffer(node: Node) -> bool:
    target = written(node) if in_place(node) else None
    return isinstance(target, Node) and bool(target.meta.get("path"))


def _is_counted(found: Rounds, node: Any, i: int, at: int, a: Any, b: Any, number: int) -> bool:
    """Whether an argument is the number of the round."""
    if not isinstance(node, Node) or COUNTED.get(packet(node)) != at or type(a) is not int or type(b) is not int:
        return False
    if a != found.start or b != found.start + number:
        return False
    found.counted[i] = None
    return True


def _goes_through(writer: Writer, found: Rounds, first: str, path: str, number: int) -> bool:
    """Whether two paths lead through members of one list, or are one."""
    if first == path:
        return True
    a, b = _member(writer, first), _member(writer, path)
    if a is None or b is None or (a.container, a.rest) != (b.container, b.rest):
        return False
    if (a.number, b.number) != (found.start, found.start + number):
        return False
    found.containers[a.container] = None
    return True


def _is_closed(writer: Writer, found: Rounds, places: list[dict[Node, Any]], outputs: Sequence[Node]) -> bool:
    """Whether nothing is read of a round but what the next one takes, and of the last but the same."""
    inside = [{node for item in part for node in _nodes(item)} for part in found.rounds]
    for number, place in enumerate(places):
        last = number == len(places) - 1
        for node, key in place.items():
            if node in outputs and not (last and key in found.carried):
                return False
            for user in node.users:
                if user in inside[number] or is_symbolic(user) or user not in writer.inner:
                    continue
                onward = last or user in inside[number + 1]
                if key not in found.carried or not onward:
                    return False
    return True


def _calls(item: Any) -> list[Call]:
    return item.calls if isinstance(item, Loop) else [item]


def _nodes(item: Any) -> Iterator[Node]:
    if isinstance(item, Node):
        yield item
    else:
        for call in _calls(item):
            yield from call.nodes()


def _results(item: Any) -> list[Node]:
    return [item] if isinstance(item, Node) else _calls(item)[-1].outputs


def _leaves(item: Any) -> list[Any]:
    return torch_tree.tree_leaves((item.args, item.kwargs)) if isinstance(item, Node) else []


def _given(writer: Writer, item: Any) -> tuple[list[Any], Any]:
    """What a layer or a run of them takes, flat, and its structure."""
    if isinstance(item, Loop):
        return list(item.given), (item.slot, item.start)
    if not item.leaf:
        return list(item.inputs), None
    flat, spec = torch_tree.tree_flatten(structure(item))
    return [writer.referred(item)(x) for x in flat], spec
