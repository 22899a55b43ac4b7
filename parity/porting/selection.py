"""Values picked by a boolean mask, and put back by it.

``y[mask] = f(x[mask])`` has a shape in its middle that depends on the data. Where ``f`` treats every picked entry
alike, it is ``where(mask, f(x), y)``, whose shapes are known.
"""

from typing import Any, cast

import torch
from torch.fx import Graph, Node
from torch.utils import _pytree as torch_tree

from parity.porting.functionalization import is_symbolic, packet

aten = torch.ops.aten

# Of one entry each, whatever its place.
_ELEMENTWISE = {
    "abs", "add", "alias", "atan", "bitwise_and", "bitwise_not", "bitwise_or", "ceil", "celu",
    "clamp", "clamp_max", "clamp_min", "clip", "clone", "contiguous", "cos", "cosh", "detach", "div", "dropout", "elu",
    "eq", "erf", "exp", "expm1", "float_power", "floor", "ge", "gelu", "gt", "hardsigmoid", "hardswish", "hardtanh",
    "le", "leaky_relu", "lerp", "log", "log10", "log1p", "log2", "logical_and", "logical_not", "logical_or", "lt",
    "maximum", "minimum", "mish", "mul", "ne", "neg", "pow", "reciprocal", "relu", "relu6", "round", "rsqrt", "rsub",
    "selu", "sigmoid", "sign", "silu", "sin", "sinh", "softplus", "sqrt", "square", "sub", "tan", "tanh", "to", "trunc",
    "where", "masked_fill",
}  # fmt: skip

# Infinite, or of infinite slope, at some entry; the first argument that makes it so.
_SINGULAR_FROM = {
    "cosh": 0, "div": 1, "exp": 0, "expm1": 0, "float_power": 0, "log": 0, "log10": 0, "log1p": 0, "log2": 0, "pow": 0,
    "reciprocal": 0, "rsqrt": 0, "sinh": 0, "sqrt": 0, "tan": 0,
}  # fmt: skip


def kept_whole(graph: Graph) -> None:
    """Compute for every entry what is picked by a mask, changed entry by entry, and put back by the same mask."""
    for node in list(graph.nodes):
        mask = _mask(node)
        for member in _followed(graph, mask) if mask is not None else ():
            _rewritten(graph, member, mask)


def _mask(node: Node) -> Node | None:
    """The mask, where ``node`` is ``x[mask]``."""
    if packet(node) != "index" or len(node.args[1]) != 1:
        return None
    mask: Any = cast(Any, node.args[1])[0]
    return mask if mask.meta["val"].dtype == torch.bool else None


def _puts(node: Node) -> bool:
    return packet(node).removesuffix("_") == "index_put"


def _followed(graph: Graph, mask: Node) -> list[Node]:
    """All that is made of values picked by ``mask``, in order; nothing if a step is not of single entries."""
    members: dict[Node, None] = {}
    for node in graph.nodes:
        given = [x for x in node.all_input_nodes if x in members and not _puts(x)]
        if _equal(_mask(node), mask):
            members[node] = None
        elif given and not is_symbolic(node) and "_assert" not in str(node.target):
            if not _is_alike(node, given, mask):
                return []
            members[node] = None
    return list(members)


def _is_alike(node: Node, given: list[Node], mask: Node) -> bool:
    """Whether ``node`` does the same to every picked entry, in whatever shape they stand."""
    kind = packet(node).removesuffix("_")
    behind = given[0].meta["val"].ndim - 1
    others = [x for x in node.all_input_nodes if x not in given and not is_symbolic(x)]
    if kind == "index_put":
        return (
            given == [node.args[2]] and len(node.args[1]) == 1 and _equal(node.args[1][0], mask) and not node.args[3:]
        )
    if kind == "linear":
        return given == [node.args[0]] and behind > 0
    if kind == "layer_norm":
        return given == [node.args[0]] and len(node.args[1]) <= behind
    alike = {x.meta["val"].ndim - 1 for x in given} == {behind}
    return kind in _ELEMENTWISE and alike and all(x.meta["val"].ndim <= behind for x in others)


def _equal(a: Any, b: Any) -> bool:
    """Whether both are the same value, if computed twice: ``~mask`` and ``~mask``."""
    if not (isinstance(a, Node) and isinstance(b, Node)) or a is b:
        return a is b or (not isinstance(a, Node) and not isinstance(b, Node) and a is not None and a == b)
    pure = packet(a) in ("bitwise_not", "logical_not", "eq", "gt", "lt", "ge", "le", "ne")
    return pure and a.target == b.target and len(a.args) == len(b.args) and all(map(_equal, a.args, b.args))


def _rewritten(graph: Graph, node: Node, mask: Node) -> None:
    """``node`` for every entry; where the mask is false it computes with ones, so that no gradient is infinite."""
    args: list[Any] = list(node.args)
    if _puts(node):
        chosen = _chosen(graph, node, aten.where.self, mask, args[2], args[0])
        node.target, node.args = aten.copy_.default, (args[0], chosen)
        return
    if _mask(node) is not None:
        shown = _expanded(graph, node, mask, args[0])
        node.target, node.args = aten.where.ScalarOther, (shown, args[0], 1)
    first = _SINGULAR_FROM.get(packet(node).removesuffix("_"))
    if first is not None:
        safe = [
            _chosen(graph, node, aten.where.ScalarOther, mask, x, 1)
            if isinstance(x, Node) and not is_symbolic(x)
            else x
            for x in args[first:]
        ]
        node.args = (*args[:first], *safe)
    node.meta["val"] = _value(node)


def _chosen(graph: Graph, before: Node, where: Any, mask: Node, value: Node, other: Any) -> Node:
    return _inserted(graph, before, where, (_expanded(graph, before, mask, value), value, other))


def _expanded(graph: Graph, before: Node, mask: Node, like: Node) -> Node:
    """``mask`` with as many axes as ``like``."""
    for _ in range(like.meta["val"].ndim - mask.meta["val"].ndim):
        mask = _inserted(graph, before, aten.unsqueeze.default, (mask, -1))
    return mask


def _inserted(graph: Graph, before: Node, target: Any, args: tuple[Any, ...]) -> Node:
    with graph.inserting_before(before):
        node = graph.call_function(target, args)
    node.meta = dict(before.meta)
    node.meta.pop("traced", None)
    node.meta["val"] = _value(node)
    return node


def _value(node: Node) -> Any:
    """What stands for the result while nothing is computed."""
    given: Any = torch.fx.map_arg((node.args, node.kwargs), lambda x: x.meta["val"])
    mode = torch._guards.detect_fake_mode(torch_tree.tree_leaves(given))
    assert mode is not None
    with mode:
        return cast(Any, node.target)(*given[0], **given[1])
