"""Places of a mask, padded to as many as the mask has entries.

``tokens, = torch.where(mask)`` has as many entries as the mask is true, which depends on the data. Where all that is
made of ``x[tokens]`` is made row by row, and rows end where ``index_add`` or ``index_put`` writes them, there may be
more rows than that: the places of the others lie outside, where JAX reads ones and writes nothing.
"""

from typing import Any, cast

import torch
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from parity.porting.graph.nodes import is_symbolic, packet
from parity.porting.graph.rows import argument, by_rows, is_check, is_elementwise, kind_of, only_checked
from parity.porting.graph.selection import SINGULAR_FROM, chosen, inserted

aten = torch.ops.aten

_RESHAPED = {"flatten", "reshape", "view"}


def padded(graph: Graph) -> None:
    """Mark the places of a mask that may be padded, and what is read there."""
    for node in list(graph.nodes):
        if node.target in (aten.where.default, aten.nonzero_numpy.default, aten.nonzero.default):
            _unwrapped(graph, node)
            rows = _all_by_rows(graph, node)
            for row in rows:
                row.meta["padded"] = row is node or packet(row) == "index"
            _finite(graph, node, rows)


def _unwrapped(graph: Graph, places: Node) -> None:
    """``x[None, places].reshape(-1, n)`` as ``x[places]``."""
    for node in list(graph.nodes):
        if packet(node) != "index" or list(node.args[1])[:1] != [None] or len(node.args[1]) != 2:
            continue
        operand, place = node.args[0], node.args[1][1]
        reshaped = list(node.users)
        if len(reshaped) == 1 and packet(reshaped[0]) == "alias":
            reshaped = list(reshaped[0].users)
        if packet(operand) != "unsqueeze" or operand.args[1] != 0 or len(reshaped) != 1:
            continue
        wanted = [-1, *operand.args[0].meta["val"].shape[1:]]
        if kind_of(reshaped[0]) in _RESHAPED and place.args[0] is places and list(reshaped[0].args[1]) == wanted:
            reshaped[0].target, reshaped[0].args = aten.index.Tensor, (operand.args[0], [place])
            for useless in list(node.users):
                graph.erase_node(useless)
            graph.erase_node(node)


def _all_by_rows(graph: Graph, places: Node) -> list[Node]:
    """All that is made of ``places`` row by row, themselves first; nothing if a step is otherwise."""
    members: dict[Node, None] = {places: None}
    for node in graph.nodes:
        given = [x for x in node.all_input_nodes if x in members]
        if not given or is_check(node):
            continue
        if node.op == "output":
            return []
        if is_symbolic(node):
            if not all(map(only_checked, node.users)):
                return []
        elif kind_of(node) in ("index_add", "index_copy", "index_put"):
            if not _is_written(node, given, places):
                return []
        elif packet(node) == "index":
            places_only = all(x in given for x in node.args[1]) and node.args[0] not in members
            if not places_only or any(x.meta["val"].ndim != 1 for x in given):
                return []
            members[node] = None
        elif kind_of(node) != "embedding" and (
            by_rows(node, given) or is_elementwise(node, given) or _is_vector(node, given) or _is_same(node, given)
        ):
            members[node] = None
        else:
            return []
    return list(members)


def _finite(graph: Graph, places: Node, rows: list[Node]) -> None:
    """In rows of the padding compute with ones what is infinite elsewhere: a parameter's gradient is of all rows."""
    singular = [row for row in rows if kind_of(row) in SINGULAR_FROM]
    if not singular:
        return
    part: Any = next(row for row in rows[1:] if _axis(row, places) is not None)
    axis, mask = _axis(part, places), cast(Any, places.args[0])
    inside = inserted(graph, part.next, aten.lt.Scalar, (part, mask.meta["val"].shape[axis]))
    inside.meta = dict(part.meta) | {"val": inside.meta["val"]}
    inside.meta.pop("traced", None)
    for row in singular:
        first = SINGULAR_FROM[kind_of(row)]
        safe = [chosen(graph, row, inside, x, 1) if x in rows else x for x in row.args[first:]]
        row.args = (*row.args[:first], *safe)


def _is_vector(node: Node, given: list[Node]) -> bool:
    """Whether the one number in each row is taken out of it."""
    value, result = given[0].meta["val"], node.meta["val"]
    return kind_of(node) in _RESHAPED and value.shape[1:].numel() == 1 and result.ndim == 1


def _is_same(node: Node, given: list[Node]) -> bool:
    """Whether the rows are given the shape that they have."""
    value, result = given[0].meta["val"], node.meta["val"]
    reshaped = kind_of(node) in ("reshape", "view") and cast(Any, node.args[1])[:1] == [-1]
    return reshaped and result.shape[1:] == value.shape[1:]


def _is_written(node: Node, given: list[Node], places: Node) -> bool:
    """Whether rows are written to their places, where the padding lies outside, in what is not made of rows."""
    target: Any = node.args[0]
    args: Any = node.args
    if kind_of(node) == "index_put":
        indices, values = list(args[1]), args[2]
    else:
        indices, values = [args[2]], args[3]
        if argument(node, "dim") != 0:
            return False
    if target in given or not all(x in given and x.meta["val"].ndim == 1 for x in indices):
        return False
    mask: Any = places.args[0]
    sizes = [(_axis(x, places), size) for x, size in zip(indices, target.meta["val"].shape, strict=False)]
    outside = (axis is not None and statically_known_true(mask.meta["val"].shape[axis] == size) for axis, size in sizes)
    single = isinstance(values, Node) and values not in given and statically_known_true(values.meta["val"].numel() == 1)
    return any(outside) and (values in given or single)


def _axis(node: Node, places: Node) -> int | None:
    """The axis of the mask along which ``node`` has the places, as they are."""
    while kind_of(node) in ("alias", "contiguous", "to"):
        node = node.args[0]  # type: ignore[assignment]
    args: Any = node.args
    if args[0] is not places:
        return None
    if not isinstance(places.meta["val"], torch.Tensor):
        return int(args[1])  # of a tuple
    if packet(node) == "select":
        return int(args[2])
    return 0 if kind_of(node) in _RESHAPED | {"squeeze"} and places.meta["val"].shape[1] == 1 else None
