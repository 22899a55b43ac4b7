"""Operators that do the same to every entry, and to every row, of what stands in rows."""

from typing import Any

import torch
from torch.fx import Node

from parity.porting.graph.nodes import is_symbolic, packet

# Of one entry each, whatever its place.
_ELEMENTWISE = {
    "abs", "add", "alias", "atan", "bitwise_and", "bitwise_not", "bitwise_or", "ceil", "celu", "full_like", "isfinite",
    "isnan", "log_sigmoid", "logaddexp", "ones_like", "zeros_like",
    "clamp", "clamp_max", "clamp_min", "clip", "clone", "contiguous", "cos", "cosh", "detach", "div", "dropout", "elu",
    "eq", "erf", "exp", "expm1", "float_power", "floor", "ge", "gelu", "gt", "hardsigmoid", "hardswish", "hardtanh",
    "le", "leaky_relu", "lerp", "log", "log10", "log1p", "log2", "logical_and", "logical_not", "logical_or", "lt",
    "maximum", "minimum", "mish", "mul", "ne", "neg", "pow", "reciprocal", "relu", "relu6", "round", "rsqrt", "rsub",
    "selu", "sigmoid", "sign", "silu", "sin", "sinh", "softplus", "sqrt", "square", "sub", "tan", "tanh", "to", "trunc",
    "where", "masked_fill",
}  # fmt: skip

# Along axes that an argument names.
_ALONG = {
    "amax": "dim", "amin": "dim", "argmax": "dim", "argmin": "dim", "cat": "dim", "chunk": "dim", "glu": "dim",
    "linalg_vector_norm": "dim", "log_softmax": "dim", "logsumexp": "dim", "max": "dim", "mean": "dim", "min": "dim",
    "select": "dim", "slice": "dim", "softmax": "dim", "split": "dim", "squeeze": "dim", "sum": "dim", "topk": "dim",
    "unsqueeze": "dim",
}  # fmt: skip


def kind_of(node: Node) -> str:
    """The operator's name, in place or not."""
    return packet(node).removesuffix("_")


def argument(node: Node, name: str) -> Any:
    """An argument by its name in the operator's schema, its default if not given; None if there is no such."""
    target: Any = node.target
    for i, entry in enumerate(target._schema.arguments):
        if entry.name == name:
            return node.args[i] if i < len(node.args) else node.kwargs.get(name, entry.default_value)
    return None


def is_check(node: Node) -> bool:
    """Whether ``node`` computes nothing and may raise."""
    return any(name in str(node.target) for name in ("_assert", "sym_constrain"))


def only_checked(node: Node) -> bool:
    """Whether a size, or what is computed of it, is in no array."""
    return is_check(node) or (is_symbolic(node) and all(map(only_checked, node.users)))


def is_elementwise(node: Node, given: list[Node]) -> bool:
    """Whether ``node`` does the same to every entry of ``given``, whose first axis it leaves alone."""
    values = [x.meta["val"] for x in given]
    if not all(isinstance(x, torch.Tensor) for x in values):
        return False
    others = [x for x in node.all_input_nodes if x not in given and not is_symbolic(x)]
    alike = len({x.ndim for x in values}) == 1
    return kind_of(node) in _ELEMENTWISE and alike and all(x.meta["val"].ndim < values[0].ndim for x in others)


def by_rows(node: Node, given: list[Node]) -> bool:
    """Whether ``node`` does to every row of ``given`` the same, not elementwise: rows are the first axis."""
    kind = kind_of(node)
    value = given[0].meta["val"]
    if not isinstance(value, torch.Tensor):
        return kind == "<built-in function getitem>"
    behind = value.ndim - 1
    first = node.args[0]
    if kind == "linear":
        return given == [first] and behind > 0
    if kind in ("matmul", "mm"):
        return given == [first] and behind > 0 and node.args[1].meta["val"].ndim <= 2
    if kind == "layer_norm":
        return given == [first] and len(argument(node, "normalized_shape")) <= behind
    if kind == "embedding":
        return given == [node.args[1]]
    if kind not in _ALONG or (list(first) if kind == "cat" else [first]) != given:
        return False
    return axes_from_the_end(node, value) is not None


def axes_from_the_end(node: Node, value: Any) -> list[int] | None:
    """The axes of ``node``, all of them negative; None where the first of ``value`` is among them."""
    if not isinstance(value, torch.Tensor) or not isinstance(node.target, torch._ops.OpOverload):
        return None
    ndim = value.ndim
    dim = argument(node, _ALONG.get(kind_of(node), ""))
    dims = [dim] if isinstance(dim, int) else dim
    if not dims or not all(isinstance(d, int) for d in dims):
        return None
    ndim += kind_of(node) == "unsqueeze"
    counted = [d if d < 0 else d - ndim for d in dims]
    return None if -ndim in counted else counted


def counted_from_the_end(node: Node, value: Any) -> None:
    """Let ``node`` name its axes from the end, which more axes in front leave as it is."""
    name = _ALONG.get(kind_of(node))
    counted = axes_from_the_end(node, value) if name else None
    if counted is None:
        return
    target: Any = node.target
    position = [entry.name for entry in target._schema.arguments].index(name)
    dim: Any = counted[0] if isinstance(argument(node, name or ""), int) else counted
    if position < len(node.args):
        node.update_arg(position, dim)
    else:
        node.update_kwarg(name or "", dim)
