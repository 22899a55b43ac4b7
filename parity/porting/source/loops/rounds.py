"""Equal rounds of statements, one for each member of a list of modules, as loops.

``for i, (conv, norm) in enumerate(zip(convs, norms)): x = norm(conv(x, edges[i]))`` is unrolled in the graph. Its
rounds are found again: the same operators and layers, each fed by its own round, by what no round makes, or by what the
round before has left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.porting.graph.nodes import in_place
from parity.porting.source.call import Call
from parity.porting.source.loops.matching import Matching, Member, member_of, nodes_of, results
from parity.porting.source.loops.repeating import write_rounds
from parity.porting.source.loops.runs import Loop
from parity.porting.source.naming import source_places

if TYPE_CHECKING:
    from parity.porting.source.statements import Writer


@dataclass(eq=False)
class Rounds:
    """Rounds of statements.

    What is made in a round has a place: the item, and which of its results.

    Attributes:
        rounds: the items of each.
        start: the number of the first member.
        containers: the lists that are gone through side by side, in the order of their use.
        parts: sequences of arrays that are gone through with them, each from the part that the first round takes.
        carried: the places of what the next round takes, with what the first one takes.
        collected: the places of what is read behind the rounds, of every one.
        outside: what all of them take.
        counted: the operators of every round that take its number.
    """

    rounds: list[list[Any]]
    start: int
    containers: dict[str, None] = field(default_factory=dict)
    parts: dict[tuple[Node, int], None] = field(default_factory=dict)
    carried: dict[tuple[int, int], Node] = field(default_factory=dict)
    collected: list[tuple[int, int]] = field(default_factory=list)
    outside: dict[Node, None] = field(default_factory=dict)
    counted: dict[int, None] = field(default_factory=dict)

    def needs(self) -> list[Node]:
        """What comes from before the loop."""
        return [*self.carried.values(), *self.outside, *(sequence for sequence, _ in self.parts)]

    def write(self, writer: Writer) -> None:
        """Write the statements of the loop; what the second round does stands for all."""
        write_rounds(writer, self)

    def left(self, number: int) -> list[Node]:
        """What the next round takes of this one, or what follows of the last."""
        return [self.made(number, place) for place in self.carried]

    def made(self, number: int, place: tuple[int, int]) -> Node:
        """What stands at a place of one round."""
        item, result = place
        return results(self.rounds[number][item])[result]


def in_rounds(writer: Writer, items: list[Any], outputs: Sequence[Node]) -> list[Any]:
    """``items`` with equal rounds of them as one."""
    live = [item for item in items if not _is_dead(item)]
    places = {id(item): source_places(next(iter(nodes_of(item)), None)) for item in live}
    candidates = list(_candidates(writer, live))
    candidates.sort(key=lambda candidate: not _begins_at_the_top([places[id(item)] for item in candidate[0][1]]))
    most: dict[tuple[int, int, int], int] = {}  # rounds from an item on, as far as they have been found equal
    for stretches, start in candidates:
        key = id(stretches[0][0]), len(stretches[0]), start
        if len(stretches) > most.get(key, len(stretches)):
            continue
        found = Rounds(stretches, start)
        matching = Matching(writer, found, outputs)
        if matching.succeeds():
            first, last = _position(items, found.rounds[0][0]), _position(items, found.rounds[-1][-1])
            return [*items[:first], found, *in_rounds(writer, items[last + 1 :], outputs)]
        most[key] = matching.equal
    return items


def _position(items: list[Any], wanted: Any) -> int:
    return next(i for i, item in enumerate(items) if item is wanted)


def _is_dead(item: Any) -> bool:
    return isinstance(item, Node) and not item.users and not in_place(item)


def _candidates(writer: Writer, items: list[Any]) -> Iterator[tuple[list[list[Any]], int]]:
    """Stretches of ``items`` that may be rounds, with the number of the first member.

    They are of one length, and each has the next member of a list. Of those that begin with the same member, the most
    come first, from the earliest item. Where the first member is left out, no others are.
    """
    for positions in _first_uses(writer, items).values():
        numbers = sorted(positions)
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            continue
        steps = [positions[b] - positions[a] for a, b in pairwise(numbers)]
        for skipped, length in enumerate(steps[:2]):
            if length <= 0:
                continue
            equal = next((i for i, step in enumerate(steps[skipped:]) if step != length), len(steps) - skipped)
            most, least = equal + 1, len(numbers) - skipped if skipped else 2
            for count in range(most, least - 1, -1):
                for begin in range(positions[numbers[skipped]], positions[numbers[skipped]] - length, -1):
                    if begin >= 0 and begin + count * length <= len(items):
                        rounds = [items[begin + i * length : begin + (i + 1) * length] for i in range(count)]
                        yield rounds, numbers[skipped]


def _begins_at_the_top(places: list[list[tuple[str, int]]]) -> bool:
    """Whether no line of torch source that led to a round stands above the line of its first item.

    Args:
        places: the files and numbers of the lines that led to each item, outermost first.
    """
    first, *others = places
    for other in others:
        a, b = next(((a, b) for a, b in zip(first, other, strict=False) if a != b), (("", 0), ("", 0)))
        if a[0] == b[0] and b[1] < a[1]:
            return False
    return True


def _first_uses(writer: Writer, items: list[Any]) -> dict[str, dict[int, int]]:
    """Which item is the first to use each member of each list."""
    found: dict[str, dict[int, int]] = {}
    for position, item in enumerate(items):
        for member in _members(writer, item):
            found.setdefault(member.container, {}).setdefault(member.number, position)
    return found


def _members(writer: Writer, item: Any) -> Iterator[Member]:
    """The members of lists that ``item`` calls or reads, each reached through the outermost list."""
    if isinstance(item, Call):
        paths = [item.path]
    elif isinstance(item, Loop):
        paths = [item.container]
    else:
        leaves = torch_tree.tree_leaves((item.args, item.kwargs)) if isinstance(item, Node) else []
        paths = [node.meta["path"] for node in leaves if isinstance(node, Node) and node.meta.get("path")]
    for path in paths:
        if (member := member_of(writer, path)) is not None:
            yield member
