"""``F.normalize``, which a graph holds as a norm, a bound, an expansion and a division."""

from typing import Any

import torch
from torch.fx import Graph, Node

from parity.porting.graph.nodes import packet

aten = torch.ops.aten


def normalized(graph: Graph) -> None:
    """Let a division of an array by its own norm be that norm, with the least divisor as ``eps`` in its ``meta``."""
    for node in list(graph.nodes):
        parts = _parts(node)
        if parts is None:
            continue
        _, bounded, norm = parts
        if norm.args[0] is not node.args[0] or len(norm.args) != 4 or not all(norm.args[2:]) or norm.kwargs:
            continue  # over other axes, or all of them
        if isinstance(bounded.args[1], Node):
            continue  # ``eps`` is a number
        node.target, node.args = aten.linalg_vector_norm.default, norm.args
        node.meta["eps"] = bounded.args[1]
        for part in parts:
            graph.erase_node(part)


def _parts(node: Node) -> tuple[Node, Node, Node] | None:
    """The divisor of ``node``, from the last operator to the first, where nothing else reads it."""
    if node.op != "call_function" or node.target is not aten.div.Tensor:
        return None
    chain: list[Node] = [node]
    for kinds in ({"expand", "expand_as"}, {"clamp_min"}, {"linalg_vector_norm"}):
        source: Any = chain[-1].args[1 if chain[-1] is node else 0]
        if not isinstance(source, Node) or packet(source) not in kinds or len(source.users) != 1:
            return None
        chain.append(source)
    return chain[1], chain[2], chain[3]
