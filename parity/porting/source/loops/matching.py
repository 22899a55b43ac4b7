"""Whether stretches of statements are equal rounds."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.porting.graph.differentiation import is_derivative
from parity.porting.graph.nodes import is_symbolic, packet, written_path
from parity.porting.graph.own_gradients import is_owned
from parity.porting.source.branches import is_conditional
from parity.porting.source.call import Call
from parity.porting.source.loops.growing import Growing
from parity.porting.source.loops.lists import joined_by
from parity.porting.source.loops.repeating import COUNTED
from parity.porting.source.loops.runs import Loop, alike, structure
from parity.porting.source.naming import is_indexed

if TYPE_CHECKING:
    from parity.porting.source.loops.rounds import Rounds
    from parity.porting.source.statements import Writer


class Matching:
    """Holds the rounds of ``found`` against the first of them, and notes there what a loop has to know.

    Args:
        writer: of the method that they stand in.
        found: the stretches that may be rounds.
        outputs: what the method returns.
    """

    def __init__(self, writer: Writer, found: Rounds, outputs: Sequence[Node]) -> None:
        self.writer, self.found, self.outputs = writer, found, outputs
        self.places = [_places(found.rounds[0])]  # of the rounds that are looked at
        self.roles: dict[tuple[int, int], str] = {}
        self.equal = 1  # so many rounds have been found so

    def succeeds(self) -> bool:
        """Whether they are equal rounds."""
        found = self.found
        for items in found.rounds[1:]:
            self.places.append(_places(items))
            if not all(self._is_repeated(self.equal, i) for i in range(len(found.rounds[0]))):
                return False
            self.equal += 1
        made = {node for place in self.places for node in place}
        if not found.containers or any(node in made for node in found.needs()):
            return False
        return self._is_closed() and bool(found.carried or found.collected)

    @cached_property
    def inside(self) -> list[set[Node]]:
        """Every operator within each round."""
        return [{node for item in items for node in nodes_of(item)} for items in self.found.rounds]

    # One item of a round.

    def _is_repeated(self, number: int, i: int) -> bool:
        """Whether an item does what it does in the first round."""
        first, item = self.found.rounds[0][i], self.found.rounds[number][i]
        if isinstance(first, Growing) or type(first) is not type(item) or len(results(first)) != len(results(item)):
            return False
        if not (_same_operator(first, item) if isinstance(first, Node) else self._same_layer(first, item, number, i)):
            return False
        (before, spec), (now, other) = (_given(self.writer, x) for x in (first, item))
        if spec != other or len(before) != len(now):
            return False
        return all(
            self._plays(self._role(a, b, number, i, at), i, at)
            for at, (a, b) in enumerate(zip(before, now, strict=True))
        )

    def _same_layer(self, first: Any, item: Any, number: int, i: int) -> bool:
        a, b = calls_of(first), calls_of(item)
        whole = isinstance(first, Loop) and first.is_whole() and item.is_whole()
        if len(a) != len(b) and not whole:
            return False
        if not (a[0].leaf and b[0].leaf) and not alike(self.writer, a[0], b[0]):
            return False
        return self._plays(self._way(a[0].path, b[0].path, number), i, -1)

    def _plays(self, role: str | None, i: int, at: int) -> bool:
        """Whether an argument has a role, the same in every round."""
        return role is not None and self.roles.setdefault((i, at), role) == role

    def _role(self, a: Any, b: Any, number: int, i: int, at: int) -> str | None:
        """What an argument is to its round: ``a`` in the first, ``b`` in this one."""
        if not isinstance(a, Node) or not isinstance(b, Node):
            return "equal" if type(a) is type(b) and a == b else self._counted(a, b, number, i, at)
        if is_symbolic(a) or is_symbolic(b):
            same = is_symbolic(a) and is_symbolic(b) and str(a.meta["val"]) == str(b.meta["val"])
            return "size" if same else None
        if a in self.places[0]:
            return "made" if self.places[number].get(b) == self.places[0][a] else None
        if a is b:
            if not a.meta.get("path"):
                self.found.outside[a] = None
            return "outside"
        if a.op == b.op == "placeholder" and a.meta.get("path"):
            return self._way(a.meta["path"], str(b.meta.get("path")), number)
        return self._part(a, b, number) or self._carried(a, b, number)

    def _counted(self, a: Any, b: Any, number: int, i: int, at: int) -> str | None:
        """The number of the round, where an operator takes that."""
        item, start = self.found.rounds[0][i], self.found.start
        if not isinstance(item, Node) or COUNTED.get(packet(item)) != at or type(a) is not int or type(b) is not int:
            return None
        if (a, b) != (start, start + number):
            return None
        self.found.counted[i] = None
        return "number"

    def _way(self, first: str, path: str, number: int) -> str | None:
        """One path, or two that lead through the members of one list that the rounds have."""
        if first == path:
            return "same"
        a, b = member_of(self.writer, first), member_of(self.writer, path)
        if a is None or b is None or (a.container, a.rest) != (b.container, b.rest):
            return None
        if (a.number, b.number) != (self.found.start, self.found.start + number):
            return None
        self.found.containers[a.container] = None
        return "member"

    def _part(self, a: Node, b: Node, number: int) -> str | None:
        """One part after the other of a sequence that an operator of this method has made."""
        if a.target is not operator.getitem or b.target is not operator.getitem or a.args[0] is not b.args[0]:
            return None
        sequence, begin = a.args
        if b.args[1] != begin + number or not any(item is sequence for item in self.writer.call.items):
            return None
        self.found.parts[sequence, begin] = None
        return "part"

    def _carried(self, a: Node, b: Node, number: int) -> str | None:
        """What the round before has left."""
        place = self.places[number - 1].get(b)
        if place is None or self.found.carried.setdefault(place, a) is not a:
            return None
        return "carried"

    # What is read of a round outside of it.

    def _is_closed(self) -> bool:
        """Whether what a round makes is read by the next one if that takes it, or of every round behind the last.

        Of a result that only the last round leaves, the name says enough.
        """
        found, last = self.found, len(self.places) - 1
        behind: dict[tuple[int, int], list[int]] = {}
        for number, place in enumerate(self.places):
            for node, key in place.items():
                readers = self._rounds_of_readers(node, number)
                if any(reader != number + 1 or key not in found.carried for reader in readers if reader is not None):
                    return False
                if None in readers:
                    behind.setdefault(key, []).append(number)
        found.collected = sorted(key for key, rounds in behind.items() if rounds != [last] or key not in found.carried)
        return all(len(behind[key]) == len(self.places) and self._is_list(key) for key in found.collected)

    def _rounds_of_readers(self, node: Node, number: int) -> set[int | None]:
        """The numbers of the other rounds that read ``node``; None for what stands behind all of them."""
        users = [user for user in node.users if user in self.writer.inner and not is_symbolic(user)]
        where = {next((k for k, inside in enumerate(self.inside) if user in inside), None) for user in users}
        return (where | ({None} if node in self.outputs else set())) - {number}

    def _is_list(self, place: tuple[int, int]) -> bool:
        """Whether the results at a place are a list to its readers, or those of all the members and carried on."""
        nodes = [self.found.made(number, place) for number in range(len(self.places))]
        if all(node in self.outputs for node in nodes) or joined_by(nodes, self.writer.call.items) is not None:
            return True
        whole = any(len(self.writer.modules[container]) == len(nodes) for container in self.found.containers)
        return whole and place in self.found.carried


class Member(NamedTuple):
    """What is reached through a member of a list: the list, the member's number, and the rest of the path."""

    container: str
    number: int
    rest: str


def member_of(writer: Writer, path: str) -> Member | None:
    """The member of a list that ``path`` leads through, if any: of the outermost list."""
    parts = path.split(".")
    scope = len(writer.call.path.split(".")) if writer.call.path else 0
    for i in range(scope + 1, len(parts)):
        container = ".".join(parts[:i])
        if parts[i].isdigit() and is_indexed(writer.modules.get(container)):
            return Member(container, int(parts[i]), ".".join(parts[i + 1 :]))
    return None


def calls_of(item: Any) -> list[Call]:
    """The call that an item is, or the calls of a run."""
    return item.calls if isinstance(item, Loop | Growing) else [item]


def results(item: Any) -> list[Node]:
    """What an operator, a call or a run of calls makes."""
    return [item] if isinstance(item, Node) else calls_of(item)[-1].outputs


def _same_operator(first: Node, item: Node) -> bool:
    whole = is_conditional(first) or is_derivative(first) or is_owned(first) or written_path(first) is not None
    return first.target == item.target and not whole


def _places(items: list[Any]) -> dict[Node, tuple[int, int]]:
    """Where in a round each result is made."""
    return {node: (i, k) for i, item in enumerate(items) for k, node in enumerate(results(item))}


def nodes_of(item: Any) -> Iterator[Node]:
    """Every operator within an item."""
    if isinstance(item, Node):
        yield item
    else:
        for call in calls_of(item):
            yield from call.nodes()


def _given(writer: Writer, item: Any) -> tuple[list[Any], Any]:
    """What an operator, a layer or a run of layers takes, flat, and its structure."""
    if isinstance(item, Node):
        return torch_tree.tree_flatten((item.args, item.kwargs))
    if isinstance(item, Loop):
        return list(item.given), (item.slot, item.start)
    if not item.leaf:
        return list(item.inputs), None
    flat, spec = torch_tree.tree_flatten(structure(item))
    return [writer.referred(item)(x) for x in flat], spec
