"""Writes that autograd does not see: without gradients, or through ``detach()``.

They change the numbers and nothing else: what is read afterwards has the gradient of what was there before.
"""

from typing import Any

import torch
from torch.fx import Graph, Node

from parity.porting.graph.functionalization import Write
from parity.porting.graph.nodes import packet, traced_name, writes_input
from parity.porting.graph.regions import is_seen, outside

aten = torch.ops.aten

_CONSTANT = {"detach", "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full"}
"""Operators whose results have no gradient, whatever they are given."""


def unseen(graph: Graph, writes: list[Write], buffers: set[str]) -> None:
    """Give what such writes leave the gradient that it has in torch.

    Args:
        graph: whose writes stand as values.
        writes: in their order.
        buffers: names of the inputs of the graph that have no gradient.
    """
    before: dict[Node, Node] = {}
    for write in writes:
        new = next(iter(write.values()))
        hides = not is_seen(new)
        for old, now in write.items():
            if hides and (is_seen(old) or old in before):
                before[now] = before[old] if old in before else _as_it_was(graph, old, new)
            hides |= packet(old) == "detach"
    made = {now for write in writes for now in write.values()}
    differentiable = _differentiable(graph, buffers)
    for now, old in before.items():
        readers = [user for user in now.users if is_seen(user) and user not in made and not writes_input(user)]
        if readers and not differentiable.isdisjoint((now, old)):
            read = _restored(graph, now, old if old in differentiable else None)
            for user in readers:
                user.replace_input_with(now, read)


def _as_it_was(graph: Graph, old: Node, new: Node) -> Node:
    """``old``, in a variable of its own if it is an input of the graph, which ``new`` changes."""
    if old.op != "placeholder":
        return old
    with graph.inserting_before(new):
        kept = graph.call_function(aten.alias.default, (old,))
    kept.meta = outside(new) | {"val": old.meta["val"]}
    return kept


def _restored(graph: Graph, now: Node, old: Node | None) -> Node:
    """The numbers of ``now``, and the gradient of ``old``."""
    position = now

    def call(target: Any, *args: Node) -> Node:
        nonlocal position
        with graph.inserting_after(position):
            position = graph.call_function(target, args)
        position.meta = outside(now)
        return position

    read = call(aten.detach.default, now)
    if old is not None:
        read = call(aten.add.Tensor, read, call(aten.sub.Tensor, old, call(aten.detach.default, old)))
    read.meta["behind"] = traced_name(now)
    return read


def _differentiable(graph: Graph, buffers: set[str]) -> set[Node]:
    """What a gradient would pass through."""
    found: set[Node] = set()
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and not (value.is_floating_point() or value.is_complex()):
            continue
        given = isinstance(value, torch.Tensor) and node.name not in buffers
        passes = packet(node) not in _CONSTANT and not found.isdisjoint(node.all_input_nodes)
        if given if node.op == "placeholder" else passes:
            found.add(node)
    return found
