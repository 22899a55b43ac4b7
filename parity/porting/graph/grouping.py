"""Rows in groups whose sizes the data decide, as a mixture of experts sorts them, each group times its own matrix.

``cat([linear(part, weight[i]) for i, part in enumerate(x.split(sizes.tolist()))])`` has parts of unknown sizes, but as
many rows as ``x``: it is the grouped product, which takes the sizes as an array.
"""

from typing import Any, cast

import torch
from torch.fx import Graph, Node

from parity.porting.graph.nodes import packet
from parity.porting.graph.selection import inserted

aten = torch.ops.aten


def grouped(graph: Graph) -> None:
    """Write such products as one."""
    for node in list(graph.nodes):
        parts = list(cast(Any, node.args[0])) if packet(node) == "cat" and node.args[1:] in ((), (0,)) else []
        split = parts[0].args[0].args[0] if parts and all(map(_is_part_product, parts)) else None
        weight = parts[0].args[1].args[0] if split is not None else None
        if weight is None or not all(_is_of(part, split, weight, i) for i, part in enumerate(parts)):
            continue
        sizes = _listed(split.args[1])
        if sizes is not None and len(parts) == weight.meta["val"].shape[0] == sizes.meta["val"].shape[0]:
            _replaced(graph, node, split.args[0], weight, sizes)


def _is_part_product(node: Node) -> bool:
    """Whether ``node`` is a part of a split times a part of a weight."""
    if packet(node) != "linear" or node.args[2:] not in ((), (None,)):
        return False
    part, weight = cast(Any, node.args[:2])
    is_part = packet(part) == "<built-in function getitem>" and packet(part.args[0]) == "split_with_sizes"
    return is_part and part.args[0].args[2:] in ((), (0,)) and packet(weight) == "select"


def _is_of(node: Any, split: Node, weight: Node, i: int) -> bool:
    """Whether ``node`` is the part ``i`` of ``split`` times that of ``weight``."""
    return bool(node.args[0].args == (split, i) and node.args[1].args == (weight, 0, i))


def _listed(sizes: Any) -> Node | None:
    """The array of which ``sizes`` are all entries, in order."""
    entries = [size.args[0] if isinstance(size, Node) and packet(size) == "item" else None for size in sizes]
    source = entries[0].args[0] if entries and isinstance(entries[0], Node) else None
    if not isinstance(source, Node) or packet(source) != "unbind" or source.args[1:] not in ((), (0,)):
        return None
    alike = all(isinstance(entry, Node) and entry.args == (source, i) for i, entry in enumerate(entries))
    return cast(Node, source.args[0]) if alike else None


def _replaced(graph: Graph, node: Node, x: Node, weight: Node, sizes: Node) -> None:
    ends = inserted(graph, node, aten.cumsum.default, (sizes, 0), {"dtype": torch.int32})
    matrices = inserted(graph, node, aten.transpose.int, (weight, -2, -1))
    one = inserted(graph, node, aten.select.int, (matrices, 0, 0))
    product = inserted(graph, node, aten.matmul.default, (x, one))  # of the same shape
    product.target, product.args, product.kwargs = aten._grouped_mm.default, (x, matrices), {"offs": ends}
    product.meta["traced"] = node.meta.get("traced", node.name)
    graph.erase_node(one)
    node.replace_all_uses_with(product)
    graph.erase_node(node)
