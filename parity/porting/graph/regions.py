"""Graphs without nested regions: what ``no_grad`` and ``autocast`` do stands where it is done."""

import operator
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from parity.porting.graph.nodes import in_place, is_floating, traced_name, written

aten = torch.ops.aten

_LOWER = {
    "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "scaled_dot_product_attention", "einsum",
}  # fmt: skip
_UPPER = {
    "layer_norm",
    "group_norm",
    "softmax",
    "log_softmax",
    "mse_loss",
    "cross_entropy_loss",
    "cumsum",
    "pow",
    "norm",
}


def inlined(module: GraphModule) -> None:
    """Put the body of every ``no_grad`` and ``autocast`` region in its place.

    A node put elsewhere keeps the name it was traced under as ``traced`` in its ``meta``; one that stands for another
    behind the region has that one's as ``behind``. What is computed without gradients has as ``no_grad`` the modules
    that the region is in.
    """
    for node in list(module.graph.nodes):
        name = str(node.target)
        if node.op != "call_function" or name not in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            continue
        position = 1 if name == "wrap_with_set_grad_enabled" else 4
        body = getattr(module, node.args[position].target)
        inlined(body)
        lower = None
        if name == "wrap_with_autocast" and node.args[2]:
            lower = node.args[1] or torch.bfloat16
        if name == "wrap_with_set_grad_enabled":
            for part in body.graph.nodes:
                part.meta.setdefault("no_grad", None if node.args[0] else node.meta.get("nn_module_stack") or {})
        results = _spliced(module.graph, node, body.graph, node.args[position + 1 :], lower)
        with module.graph.inserting_before(node):
            results = [_detached(module.graph, x) if isinstance(x, Node) else x for x in results]
        for user in list(node.users):
            if user.target is operator.getitem:
                user.replace_all_uses_with(results[user.args[1]])
                module.graph.erase_node(user)
        if node.users:
            node.replace_all_uses_with(results[0])
        module.graph.erase_node(node)


def _detached(graph: Graph, node: Node) -> Node:
    """``node`` without a gradient if it was computed so, as an operator of the call that has the region.

    What made it may be another call. What was there before the region, and is written into within, is left to
    :func:`parity.porting.graph.unseen.unseen`.
    """
    is_made = not is_seen(node) and not (in_place(node) and is_seen(written(node)))
    if not is_made or not is_floating(node):
        return node
    detached = graph.call_function(aten.detach.default, (node,))
    detached.meta = outside(node) | {"behind": traced_name(node)}
    return detached


def is_seen(node: Node) -> bool:
    """Whether ``node`` is computed with gradients."""
    return node.meta.get("no_grad") is None


def outside(node: Node) -> dict[str, Any]:
    """The ``meta`` of what is made of ``node``, of a region without gradients, outside of it."""
    meta = dict(node.meta)
    if not is_seen(node):
        meta |= {"nn_module_stack": node.meta["no_grad"], "no_grad": None}
    meta.pop("traced", None)
    return meta


def _spliced(graph: Graph, before: Node, body: Graph, arguments: Any, lower: torch.dtype | None) -> list[Any]:
    replaced: dict[Node, Any] = {}
    incoming = iter(arguments)
    results: list[Any] = []
    with graph.inserting_before(before):
        for node in body.nodes:
            if node.op == "placeholder":
                replaced[node] = next(incoming)
            elif node.op == "output":
                returned = node.args[0]
                listed = returned if isinstance(returned, tuple | list) else [returned]
                results = [replaced[x] if isinstance(x, Node) else x for x in listed]
            else:
                copied = graph.node_copy(node, lambda x: replaced[x])
                copied.meta["traced"] = traced_name(node)
                if lower is not None and node.op == "call_function":
                    _autocast(graph, copied, lower)
                replaced[node] = copied
    return results


def _autocast(graph: Graph, node: Node, lower: torch.dtype) -> None:
    """What autocast does to one operator: its floating-point arguments in ``lower``, or in float32."""
    name = str(node.target).split(".")[1] if "." in str(node.target) else ""
    wanted = lower if name in _LOWER else torch.float32 if name in _UPPER else None
    if wanted is None:
        return

    def cast(x: Node) -> Node:
        value = x.meta.get("val")
        if (
            not isinstance(value, torch.Tensor)
            or not value.dtype.is_floating_point
            or value.dtype in (wanted, torch.float64)
        ):
            return x
        with graph.inserting_before(node):
            converted = graph.call_function(aten.to.dtype, (x, wanted))
        converted.meta = dict(node.meta) | {"val": value.to(wanted), "traced": converted.name}
        node.meta["autocast"] = True
        return converted

    node.args = torch.fx.map_arg(node.args, cast)
