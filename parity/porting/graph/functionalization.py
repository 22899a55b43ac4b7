"""Graphs without writes into memory that another value shows."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node

from parity.porting.graph.nodes import in_place, packet, traced_name, writes_input

aten = torch.ops.aten

_VIEWS = {
    "view", "reshape", "select", "slice", "transpose", "permute", "t", "unsqueeze", "squeeze", "expand", "detach",
    "alias", "flatten", "unflatten", "narrow", "diagonal", "view_as", "movedim", "swapaxes", "swapdims", "contiguous",
    "to", "mT", "reshape_as", "expand_as", "real", "imag", "view_as_real", "view_as_complex", "numpy_T",
}  # fmt: skip
_SPLITS = {"split", "split_with_sizes", "chunk", "unbind", "tensor_split"}


def base(node: Node) -> Any:
    """What ``node`` is a view of, if it is one."""
    if node.op != "call_function":
        return None
    if node.target is operator.getitem and isinstance(node.args[0], Node) and packet(node.args[0]) in _SPLITS:
        return node.args[0].args[0]
    source = node.args[0] if node.args and isinstance(node.args[0], Node) else None
    if source is None or packet(node) not in _VIEWS:
        return None
    if packet(node) in ("to", "contiguous", "reshape", "flatten") and _copies(node, source):
        return None
    return source


def _copies(node: Node, source: Node) -> bool:
    if packet(node) == "to":
        return source.meta["val"].dtype != node.meta["val"].dtype
    return not source.meta["val"].is_contiguous() and packet(node) != "to"


def copied_out(graph: Graph) -> None:
    """Rewrite ``op(x, out=y)`` as ``y.copy_(op(x))``.

    Raises:
        NotImplementedError: an operator writes into an argument that is neither its first nor an ``out``.
    """
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        written = [a for a in node.target._schema.arguments[1:] if a.alias_info is not None and a.alias_info.is_write]
        outs = [a.name for a in written if a.is_out]
        if len(outs) < len(written):
            raise NotImplementedError(f"{node.target} writes into its arguments")
        if outs:
            _copied(graph, node, outs)


def _copied(graph: Graph, node: Node, outs: list[str]) -> None:
    values = node.meta["val"] if len(outs) > 1 else [node.meta["val"]]
    kept = {name: x for name, x in node.kwargs.items() if name not in outs}
    with graph.inserting_before(node):
        result = graph.call_function(_pure(node.target, outs), node.args, kept)
        result.meta = dict(node.meta) | {"val": node.meta["val"]}
        for i, (name, value) in enumerate(zip(outs, values, strict=True)):
            part = result if len(outs) == 1 else graph.call_function(operator.getitem, (result, i))
            copy = graph.call_function(aten.copy_.default, (node.kwargs[name], part))
            part.meta, copy.meta = dict(node.meta) | {"val": value}, dict(node.meta) | {"val": value}
            if len(outs) == 1:
                node.replace_all_uses_with(copy)
                continue
            for user in [user for user in node.users if user.args[1] == i]:
                user.replace_all_uses_with(copy)
                graph.erase_node(user)
    graph.erase_node(node)


def unbroadcast(graph: Graph) -> dict[str, Node]:
    """Take out what ``broadcast_tensors`` leaves as it was; gives the names it was traced under, and what it is."""
    same: dict[str, Node] = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and packet(node) == "broadcast_tensors":
            for user in list(node.users):
                source = node.args[0][user.args[1]]
                if user.meta["val"].shape == source.meta["val"].shape:
                    same[traced_name(user)] = source
                    user.replace_all_uses_with(source)
                    graph.erase_node(user)
            if not node.users:
                graph.erase_node(node)
    return same


def _pure(target: Any, outs: list[str]) -> Any:
    """The overload of ``target`` that returns what it would write into ``outs``."""
    wanted = [a.name for a in target._schema.arguments if a.name not in outs]
    for name in target.overloadpacket.overloads():
        overload = getattr(target.overloadpacket, name)
        if [a.name for a in overload._schema.arguments] == wanted and not overload._schema.is_mutable:
            return overload
    raise NotImplementedError(f"{target} has no form that returns its result")


Write = dict[Node, Node]
"""The operator that wrote by what it wrote into, and what that is a view of, in turn, by its value then."""


class _Values:
    """What stands for a value once it, or what it is a view of, is written into.

    Attributes:
        latest: by the value as it was before all writes.
        origins: the reverse, of everything that ever stood for a value.
    """

    def __init__(self) -> None:
        self.latest: dict[Node, Node] = {}
        self.origins: dict[Node, Node] = {}

    def origin(self, node: Node) -> Node:
        """The value that ``node`` stands for."""
        return self.origins.get(node, node)

    def now(self, node: Node) -> Node:
        """What stands for the value of ``node``."""
        origin = self.origin(node)
        return self.latest.get(origin, origin)

    def set(self, node: Node, new: Node) -> None:
        """From here on ``new`` stands for the value of ``node``."""
        origin = self.origin(node)
        self.latest[origin], self.origins[new] = new, origin


def functionalized(graph: Graph) -> list[Write]:
    """Rewrite writes through views: what shares the memory is computed anew from the value written."""
    nodes = list(graph.nodes)
    order = {node: i for i, node in enumerate(nodes)}
    values = _Values()
    writes = [_written_back(graph, node, order, values) for node in nodes if in_place(node)]
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not is_lasting(node) and not node.users:
            graph.erase_node(node)
    return writes


def is_lasting(node: Node) -> bool:
    """Whether ``node`` leaves something in a buffer or an argument, even if nobody reads its result."""
    if packet(node) in ("batch_norm", "instance_norm"):  # running statistics, once it trains
        return isinstance(node.args[3], Node)
    return writes_input(node)


def _written_back(graph: Graph, new: Node, order: dict[Node, int], values: _Values) -> Write:
    """From here on what ``new`` writes into is ``new``; so are the values it is a view of, and their views."""
    moment = order[new]
    position = new
    target = new.args[0]
    assert isinstance(target, Node)
    view = values.origin(target)
    current: Any = new.args[1] if packet(new) == "fill_" and packet(view) in ("select", "slice", "narrow") else new
    write: Write = {target: new}
    values.set(view, new)
    while (source := base(view)) is not None:
        before = values.now(source)
        with graph.inserting_after(position):
            current = _scattered(graph, view, before, current)
        current.meta = dict(new.meta) | {"val": before.meta["val"]}
        order[current] = moment
        position = write[before] = current
        view = values.origin(source)
        values.set(view, current)
    if current is not new and view.op == "placeholder":
        before = next(reversed(write))
        with graph.inserting_after(position):
            current = graph.call_function(aten.copy_.default, (before, current))
        current.meta = dict(new.meta) | {"val": view.meta["val"]}
        order[current] = moment
        position = write[before] = current
        values.set(view, current)
    _taken_again(graph, write, position, order, values)
    return write


def _taken_again(graph: Graph, write: Write, position: Node, order: dict[Node, int], values: _Values) -> None:
    """Other views of the memory that was written into, read later, are taken again behind ``position``."""
    moment = order[position]
    replaced = dict(write)
    pending = list(replaced)
    while pending:
        source = pending.pop()
        for user in _views(source, values):
            view = values.origin(user)
            if user in replaced or order.get(user, -1) >= moment or not _is_read_after(user, moment, order, values):
                continue
            if any(_are_apart(view, values.origin(other)) for other in write):
                continue
            with graph.inserting_after(position):
                again = _copied_view(graph, view, values)
            order[again] = moment
            position = again
            replaced[user] = again
            values.set(view, again)
            pending.append(user)
    fresh = set(replaced.values())
    for old, now in replaced.items():
        for user in list(old.users):
            if user not in fresh and order.get(user, -1) > moment:
                user.replace_input_with(old, now)


def _views(source: Node, values: _Values) -> Iterator[Node]:
    """What shows the value of ``source``, as it stands."""
    for user in source.users:
        yield from (part for part in (user.users if packet(user) in _SPLITS else [user]) if base(part) is source)
    for view, now in list(values.latest.items()):  # that was itself written into
        if (shown := base(view)) is not None and values.origin(shown) is values.origin(source):
            yield now


def _are_apart(a: Node, b: Node) -> bool:
    """Whether two views are different parts of one split."""
    parts = a.target is operator.getitem and b.target is operator.getitem
    return parts and a.args[0] is b.args[0] and a.args[1] != b.args[1]


def _copied_view(graph: Graph, view: Node, values: _Values) -> Node:
    """``view`` taken of what stands for its source now."""
    if view.target is not operator.getitem:
        return graph.node_copy(view, values.now)
    source = base(view)
    node = graph.call_function(*_part(view, values.now(source)))
    node.meta = dict(view.meta)
    return node


def _part(view: Node, source: Node) -> tuple[Any, tuple[Any, ...]]:
    """The operator, and its arguments, that take the part ``view`` of a split from ``source``."""
    split, index = view.args
    assert isinstance(split, Node)
    assert isinstance(index, int)
    if packet(split) == "unbind":
        return aten.select.int, (source, split.args[1] if len(split.args) > 1 else 0, index)
    dim: Any = split.args[2] if len(split.args) > 2 else split.kwargs.get("dim", 0)
    parts = split.meta["val"]
    start = sum(part.shape[dim] for part in parts[:index])
    return aten.slice.Tensor, (source, dim, start, start + parts[index].shape[dim])


def _is_read_after(node: Node, moment: int, order: dict[Node, int], values: _Values) -> bool:
    """Whether ``node`` or a view of it is read after ``moment``."""
    seen: set[Node] = set()
    pending = [node]
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            if any(order.get(user, -1) > moment for user in node.users):
                return True
            pending += _views(node, values)
    return False


def _scattered(graph: Graph, view: Node, source: Node, new: Any) -> Node:
    """``source`` with ``new`` where ``view`` shows it."""
    kind, args = packet(view), view.args
    shape = list(source.meta["val"].shape)
    if kind == "select":
        return graph.call_function(aten.select_scatter.default, (source, new, *args[1:]))
    if kind == "slice":
        return graph.call_function(aten.slice_scatter.default, (source, new, *args[1:]))
    if kind == "narrow":
        _, dim, start, length = args
        return graph.call_function(aten.slice_scatter.default, (source, new, dim, start, start + length))
    if kind in ("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as", "reshape_as"):
        return graph.call_function(aten.view.default, (new, shape))
    if kind in ("transpose", "swapaxes", "swapdims"):
        return graph.call_function(aten.transpose.int, (new, *args[1:]))
    if kind in ("t", "mT", "numpy_T"):
        return graph.call_function(aten.transpose.int, (new, -1, -2))
    if kind == "permute":
        inverse = [0] * len(args[1])
        for i, d in enumerate(args[1]):
            inverse[d] = i
        return graph.call_function(aten.permute.default, (new, inverse))
    if kind in ("detach", "alias", "contiguous", "to"):
        return graph.call_function(aten.alias.default, (new,))
    if kind == "expand":
        raise NotImplementedError("a write into an expanded tensor")
    if view.target is operator.getitem:
        taken, (_, *place) = _part(view, source)
        put = aten.select_scatter.default if taken is aten.select.int else aten.slice_scatter.default
        return graph.call_function(put, (source, new, *place))
    raise NotImplementedError(f"a write into a view made by {kind}")
