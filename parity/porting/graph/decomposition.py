"""Operators nobody said how to write, taken apart into ones that can be written."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as torch_tree

from parity.porting.graph.nodes import traced_name
from parity.porting.operators.registry import found


def decomposed(module: GraphModule) -> None:
    """Replace every operator that cannot be written by what torch itself defines it as, where that can be."""
    table = {op: rule for op, rule in torch._decomp.decomposition_table.items() if found(op) is None}
    for node in list(module.graph.nodes):
        value = node.meta.get("val")
        if _in_layer(node):
            continue  # of torch.nn, which stays the layer that it is
        if not isinstance(node.target, torch._ops.OpOverload) or found(node.target) is not None or _is_size(value):
            continue
        body = _taken_apart(node, table)
        if body is not None:
            _replaced(module.graph, node, body)


def _in_layer(node: Node) -> bool:
    entered = [str(kind) for _, kind in (node.meta.get("nn_module_stack") or {}).values()]
    return bool(entered) and "torch.nn.modules." in entered[-1]


def _taken_apart(node: Node, table: dict[Any, Callable[..., Any]]) -> Graph | None:
    """The graph of the operator's definition, or None where torch has none that is made of known operators."""
    leaves, spec = torch_tree.tree_flatten((node.args, node.kwargs))
    places = [i for i, x in enumerate(leaves) if isinstance(x, Node)]
    values = [leaves[i].meta.get("val") for i in places]
    if not all(isinstance(x, torch.Tensor) or _is_size(x) for x in values):
        return None

    def function(*given: Any) -> Any:
        filled = list(leaves)
        for i, x in zip(places, given, strict=True):
            filled[i] = x
        args, kwargs = torch_tree.tree_unflatten(filled, spec)
        return node.target(*args, **kwargs)

    mode = torch._guards.detect_fake_mode([*values, node.meta.get("val")])
    if mode is None:
        return None
    try:
        with mode:
            graph = make_fx(function, decomposition_table=table, tracing_mode="real")(*values).graph
    except Exception:  # no definition, or one that looks at values
        return None
    calls = [x for x in graph.nodes if x.op not in ("placeholder", "output")]
    known = (x.target is operator.getitem or _is_size(x.meta.get("val")) or found(x.target) is not None for x in calls)
    return graph if all(known) and all(x.op == "call_function" for x in calls) else None


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float | torch.SymInt | torch.SymFloat | torch.SymBool)


def _replaced(graph: Graph, node: Node, body: Graph) -> None:
    inputs = iter(x for x in torch_tree.tree_leaves((node.args, node.kwargs)) if isinstance(x, Node))
    copies: dict[Node, Node] = {}
    result: Any = None
    with graph.inserting_before(node):
        for inner in body.nodes:
            if inner.op == "placeholder":
                copies[inner] = next(inputs)
            elif inner.op == "output":
                result = torch.fx.map_arg(inner.args[0], lambda x: copies[x])
            else:
                copies[inner] = graph.node_copy(inner, lambda x: copies[x])
                copies[inner].meta = dict(node.meta) | {"val": inner.meta["val"]}
                copies[inner].meta.pop("traced", None)
    if isinstance(result, Node):
        _stands_for(node, result)
    else:
        for user in list(node.users):
            _stands_for(user, result[user.args[1]])
            graph.erase_node(user)
    graph.erase_node(node)


def _stands_for(node: Node, result: Node) -> None:
    result.meta.setdefault("traced", traced_name(node))
    node.replace_all_uses_with(result)
