"""Sums, means, extremes and their like along axes."""

from typing import Any

from parity.porting.expression import ATOM, COMPARISON, Expression
from parity.porting.operation import Operation
from parity.porting.operators.registry import register_operator


def pair(first: Expression, second: Expression) -> Expression:
    """Two results."""
    return Expression(f"({first.text}, {second.text})", ATOM, first.names | second.names)


def axes(op: Operation) -> dict[str, Any]:
    """``axis`` and ``keepdims`` as keyword arguments, where given."""
    given: dict[str, Any] = {}
    dim = op.arguments.get("dim")
    if dim is not None and dim != []:
        dim = list(dim) if isinstance(dim, list | tuple) else dim
        given["axis"] = dim[0] if isinstance(dim, list) and len(dim) == 1 else dim
    if op.arguments.get("keepdim"):
        given["keepdims"] = True
    return given


@register_operator("aten.sum", "aten.mean", "aten.prod", "aten.nansum", "aten.nanmean")
def _sum(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if op.arguments.get("dtype") is not None:
        operand = op.cast(operand, op.dtype)
    name = op.name.split(".")[1]
    if name.startswith("nan"):
        return op.call(f"jnp.{name}", operand, **axes(op))
    return op.method(operand, name, **axes(op))


@register_operator("aten.amax", "aten.amin", "aten.any", "aten.all", "aten.max.default", "aten.min.default")
def _extreme(op: Operation) -> Expression:
    name = op.name.split(".")[1].removeprefix("a") if "am" in op.name else op.name.split(".")[1]
    return op.method(op.arguments["self"], name, **axes(op))


@register_operator("aten.argmax", "aten.argmin")
def _arg(op: Operation) -> Expression:
    return op.method(op.arguments["self"], op.name.split(".")[1], **axes(op))


@register_operator("aten.max.dim", "aten.min.dim")
def _with_indices(op: Operation) -> Expression:
    name = op.name.split(".")[1]
    operand, given = op.arguments["self"], axes(op)
    values, indices = op.method(operand, name, **given), op.method(operand, f"arg{name}", **given)
    return Expression(f"({values.text}, {indices.text})", 20, values.names)


@register_operator("aten.var", "aten.std", "aten.var_mean", "aten.std_mean")
def _var(op: Operation) -> Expression:
    name = op.name.split(".")[1]
    correction = op.arguments.get("correction", 1)
    if op.arguments.get("unbiased") is False:
        correction = 0
    correction = 1 if correction is None else correction
    ddof = {"ddof": int(correction) if correction == int(correction) else correction} if correction else {}
    operand = op.arguments["self"]
    first = op.method(operand, name.split("_")[0], **axes(op), **ddof)
    if "_" not in name:
        return first
    mean = op.method(operand, "mean", **axes(op))
    return Expression(f"({first.text}, {mean.text})", 20, first.names)


@register_operator("aten.logsumexp")
def _logsumexp(op: Operation) -> Expression:
    return op.call("jax.nn.logsumexp", op.arguments["self"], **axes(op))


@register_operator("aten.cumsum", "aten.cumprod")
def _cumulative(op: Operation) -> Expression:
    operand = op.arguments["self"]
    name = op.name.split(".")[1].rstrip("_")
    if op.arguments.get("dtype") is not None:
        return op.method(op.cast(operand, op.dtype), name, op.dim)
    written = op.method(operand, name, op.dim)
    return op.cast(written, op.output.dtype) if operand.dtype != op.output.dtype else written


@register_operator("aten.cummax", "aten.cummin")
def _cumulative_extreme(op: Operation) -> Expression:
    operand, name = op.arguments["self"], op.name.split(".")[1]
    dim = op.dim % max(operand.ndim, 1)
    best = op.call(f"jax.lax.{name}", operand, axis=dim)
    # The index is that of the last place so far which holds the best value.
    place = op.call("jax.lax.broadcasted_iota", Expression("jnp.int32"), list(operand.shape), dim)
    here = op.call("jnp.where", op.binary("==", operand, best, COMPARISON), place, 0)
    return pair(best, op.call("jax.lax.cummax", here, axis=dim))


@register_operator("aten.logcumsumexp")
def _logcumsumexp(op: Operation) -> Expression:
    return op.call("jax.lax.cumlogsumexp", op.arguments["self"], op.dim % op.arguments["self"].ndim)


@register_operator(
    "aten.linalg_vector_norm",
    "aten.norm.ScalarOpt_dim",
    "aten.norm.Scalar",
    "aten.norm.ScalarOpt_dim_dtype",
    "aten.frobenius_norm",
)
def _norm(op: Operation) -> Expression:
    operand = op.arguments["self"]
    order = op.arguments.get("ord", op.arguments.get("p", 2))
    order = 2 if order is None else order
    given = axes(op)
    if "axis" not in given:
        if given:
            raise NotImplementedError("a norm of all axes that keeps them")
        operand = op.method(operand, "reshape", -1)
    elif isinstance(given["axis"], list):
        if order != 2:
            raise NotImplementedError("a vector norm over several axes, of another order than 2")
        return op.call("jnp.linalg.norm", operand, **{"ord": None} | given)
    return op.call("jnp.linalg.norm", operand, **({} if order == 2 else {"ord": order}), **given)


@register_operator("aten.linalg_norm", "aten.linalg_matrix_norm")
def _linalg_norm(op: Operation) -> Expression:
    order = op.arguments.get("ord")
    return op.call("jnp.linalg.norm", op.arguments["self"], ord=order, **axes(op))


@register_operator("aten.topk")
def _topk(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if op.largest:
        last = op.dim in (-1, operand.ndim - 1)
        return op.call("jax.lax.top_k", operand, op.k, **({} if last else {"axis": op.dim}))
    order = op.call("jnp.argsort", operand, axis=op.dim)
    cut = op.call("jax.lax.slice_in_dim", order, 0, op.k, axis=op.dim)
    return pair(op.call("jnp.take_along_axis", operand, cut, axis=op.dim), cut)


@register_operator("aten.sort")
def _sort(op: Operation) -> Expression:
    operand = op.arguments["self"]
    kwargs = {"axis": op.dim} | ({"descending": True} if op.descending else {})
    values, indices = op.call("jnp.sort", operand, **kwargs), op.call("jnp.argsort", operand, **kwargs)
    return Expression(f"({values.text}, {indices.text})", 20, values.names)


@register_operator("aten.argsort")
def _argsort(op: Operation) -> Expression:
    return op.call("jnp.argsort", op.arguments["self"], axis=op.dim, **({"descending": True} if op.descending else {}))


@register_operator("aten.median.dim", "aten.kthvalue")
def _order(op: Operation) -> Expression:
    operand = op.arguments["self"]
    axis = op.dim % operand.ndim
    # Torch's median is the lower of the two in the middle.
    rank = (operand.shape[axis] - 1) // 2 if "median" in op.name else op.k - 1
    order = op.call("jnp.argsort", operand, axis=axis)
    index = op.call("jax.lax.slice_in_dim", order, rank, rank + 1, axis=axis)
    value = op.call("jnp.take_along_axis", operand, index, axis=axis)
    if op.keepdim:
        return pair(value, index)
    return pair(op.method(value, "squeeze", axis), op.method(index, "squeeze", axis))


@register_operator("aten.median.default")
def _median(op: Operation) -> Expression:
    operand = op.method(op.arguments["self"], "reshape", -1)
    count = op.arguments["self"].value.numel()
    return Expression(f"{op.call('jnp.sort', operand).text}[{op.expression((count - 1) // 2).text}]", 20, operand.names)


@register_operator("aten.diff")
def _diff(op: Operation) -> Expression:
    return op.call("jnp.diff", op.arguments["self"], n=op.n, axis=op.dim)


@register_operator("aten.numel")
def _numel(op: Operation) -> Expression:
    return Expression(f"{op.arguments['self'].text}.size", 20, op.arguments["self"].names)


@register_operator("aten.count_nonzero")
def _count(op: Operation) -> Expression:
    return op.call("jnp.count_nonzero", op.arguments["self"], **axes(op))


@register_operator("aten.histc")
def _histc(op: Operation) -> Expression:
    if op.min == op.max:
        raise NotImplementedError("a histogram whose range depends on the data")
    operand = op.arguments["self"]
    limits = [op.min, op.max]
    return op.cast(Expression(f"{op.call('jnp.histogram', operand, op.bins, limits).text}[0]", ATOM), op.output.dtype)
