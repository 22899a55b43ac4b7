"""The first or last entry that a mask picks of every row.

``x[mask].view(batch, -1, width)[:, -1]`` wants as many entries of every row; which of the picked ones it takes is known
without their number: the last is where the running count of the mask ends.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from parity.porting.graph.nodes import is_floating, is_symbolic, packet
from parity.porting.graph.rows import is_check, only_checked
from parity.porting.graph.selection import inserted, mask_of

aten = torch.ops.aten


def row_ends(graph: Graph) -> None:
    """Take the first or last picked entry of a row out of the row."""
    for node in list(graph.nodes):
        mask = mask_of(node)
        if mask is None or mask.meta["val"].ndim != 2 or not is_floating(node):
            continue
        ends = [end for user in node.users if not _is_check(user) for end in _ends(user, node, mask)]
        if None not in ends:
            for end in cast(list[Node], ends):
                _taken(graph, end, node, mask)


def _is_check(node: Node) -> bool:
    return is_check(node) or (is_symbolic(node) and only_checked(node))


def _ends(view: Node, picked: Node, mask: Node) -> Iterator[Node | None]:
    """What takes the first or last of every row of ``view``; None for any other reader."""
    wanted = cast(Any, view.args[1]) if packet(view) in ("view", "reshape") else []
    value, rest = view.meta.get("val"), picked.meta["val"].shape[1:]
    rows = len(wanted) > 1 and isinstance(wanted[1], int) and wanted[1] == -1 and value.shape[2:] == rest
    if not rows or not statically_known_true(value.shape[0] == mask.meta["val"].shape[0]):
        yield None
        return
    pending = list(view.users)
    while pending:
        user = pending.pop()
        if packet(user) == "alias" or (packet(user) == "slice" and user.meta["val"].shape == value.shape):
            pending += user.users
        else:
            yield user if packet(user) == "select" and user.args[1:] in ((1, 0), (1, -1)) else None


def _taken(graph: Graph, end: Node, picked: Node, mask: Node) -> None:
    """Replace ``end`` by the entry itself, NaN where rows pick none, or other numbers, of which torch has no rows."""
    x = picked.args[0]
    count = inserted(graph, end, aten.cumsum.default, (mask, 1))
    total = inserted(graph, end, aten.slice.Tensor, (count, 1, -1, 2**63 - 1))
    here = inserted(graph, end, aten.eq.Tensor, (count, total)) if end.args[2] == -1 else None
    here = here or inserted(graph, end, aten.eq.Scalar, (count, 1))
    here = inserted(graph, end, aten.logical_and.default, (mask, here))
    alike = inserted(graph, end, aten.eq.Tensor, (total, inserted(graph, end, aten.select.int, (total, 0, 0))))
    alike = inserted(graph, end, aten.logical_and.default, (alike, inserted(graph, end, aten.gt.Scalar, (total, 0))))
    alike = inserted(graph, end, aten.all.default, (alike,))
    for _ in range(end.meta["val"].ndim - 1):
        here = inserted(graph, end, aten.unsqueeze.default, (here, -1))
    kept = inserted(graph, end, aten.where.ScalarOther, (here, x, 0.0))
    entry = inserted(graph, end, aten.sum.dim_IntList, (kept, [1]))
    result = inserted(graph, end, aten.where.ScalarOther, (alike, entry, float("nan")))
    result.meta["traced"] = end.meta.get("traced", end.name)
    end.replace_all_uses_with(result)
    graph.erase_node(end)
