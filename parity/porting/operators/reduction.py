"""Sums, means, extremes and their like along axes."""

from typing import Any

from parity.porting.operators.expression import ATOM, COMPARISON, OR, PRODUCT, SIGN, SUM, Expression, several
from parity.porting.operators.operation import Operation
from parity.porting.operators.registry import register_operator


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
    name, given = op.name.split(".")[1], axes(op)
    both = op.call(f"F.{name}", op.arguments["self"], op.dim, **in_torchs_words(given | {"axis": None}))
    values = Expression(f"{both.text}[0]", ATOM, both.names)
    return several(values, op.method(op.arguments["self"], f"arg{name}", **given), together=both)


@register_operator("aten.var", "aten.std", "aten.var_mean", "aten.std_mean")
def _var(op: Operation) -> Expression:
    name = op.name.split(".")[1]
    correction = op.arguments.get("correction", 1)
    if op.arguments.get("unbiased") is False:
        correction = 0
    correction = 1 if correction is None else correction
    ddof = {"ddof": int(correction) if correction == int(correction) else correction} if correction else {}
    operand = op.arguments["self"]
    if name.startswith("std"):
        other = {"correction": correction} if correction != 1 else {}
        first = op.call("F.std", operand, **in_torchs_words(axes(op)), **other)
    else:
        first = op.method(operand, "var", **axes(op), **ddof)
    if "_" not in name:
        return first
    mean = op.method(operand, "mean", **axes(op))
    return several(first, mean)


@register_operator("aten.logsumexp")
def _logsumexp(op: Operation) -> Expression:
    return op.call("jax.nn.logsumexp", op.arguments["self"], **axes(op))


@register_operator("aten.cumsum", "aten.cumprod")
def _cumulative(op: Operation) -> Expression:
    operand = op.arguments["self"]
    name = op.name.split(".")[1].rstrip("_")
    if op.arguments.get("dtype") is not None:
        return op.method(op.cast(operand, op.dtype), name, op.dim)
    return op.method(op.cast(operand, op.output.dtype), name, op.dim)  # small integers would overflow


@register_operator("aten.cummax", "aten.cummin")
def _cumulative_extreme(op: Operation) -> Expression:
    operand, name = op.arguments["self"], op.name.split(".")[1]
    dim = op.dim % max(operand.ndim, 1)
    best = op.call(f"jax.lax.{name}", operand, axis=dim)
    # The index is that of the last place so far which holds the best value.
    place = op.call("jax.lax.broadcasted_iota", Expression("jnp.int32"), list(operand.shape), dim)
    is_best = op.binary("==", operand, best, COMPARISON)
    if operand.dtype.is_floating_point:
        is_best = op.binary("|", is_best, op.call("jnp.isnan", operand), OR)
    here = op.call("jnp.where", is_best, place, 0)
    index = op.call("jax.lax.cummax", here, axis=dim)
    if operand.dtype.is_floating_point:  # the gradient goes there alone
        best = op.call("jnp.take_along_axis", operand, index, axis=dim)
    return several(best, index)


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
    order = op.arguments.get("ord", op.arguments.get("p", 2))
    operand = op.arguments["self"]
    if not operand.dtype.is_complex:
        operand = op.cast(operand, op.output.dtype)
    if op.host is not None and "eps" in op.host.node.meta:
        return _normalize(op, order, op.host.node.meta["eps"])
    return vector_norm(op, operand, 2 if order is None else order, axes(op))


def _normalize(op: Operation, order: Any, eps: float) -> Expression:
    given = {"p": (order, 2), "dim": (axes(op)["axis"], 1), "eps": (eps, 1e-12)}
    changed = {name: value for name, (value, default) in given.items() if value != default}
    return op.call("F.normalize", op.arguments["self"], **changed)


def vector_norm(op: Operation, operand: Expression, order: Any, given: dict[str, Any]) -> Expression:
    """A norm over the axes of :func:`axes`."""
    return op.call("F.vector_norm", operand, *([] if order == 2 else [order]), **in_torchs_words(given))


def in_torchs_words(given: dict[str, Any]) -> dict[str, Any]:
    """What :func:`axes` gives, for a function of jaxnn's."""
    names = {"axis": "dim", "keepdims": "keepdim"}
    return {names[key]: value for key, value in given.items()}


@register_operator("aten.linalg_norm", "aten.linalg_matrix_norm")
def _linalg_norm(op: Operation) -> Expression:
    order, given = op.arguments.get("ord"), axes(op)
    if order == "fro" or ("matrix" not in op.name and (order is None or isinstance(given.get("axis"), int))):
        return vector_norm(op, op.arguments["self"], 2 if order in (None, "fro") else order, given)
    return op.call("jnp.linalg.norm", op.arguments["self"], ord=order, **given)


@register_operator("aten.topk")
def _topk(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if op.largest:
        last = op.dim in (-1, operand.ndim - 1)
        return op.call("jax.lax.top_k", operand, op.k, **({} if last else {"axis": op.dim}))
    order = op.call("jnp.argsort", operand, axis=op.dim)
    cut = op.call("jax.lax.slice_in_dim", order, 0, op.k, axis=op.dim)
    return several(op.call("jnp.take_along_axis", operand, cut, axis=op.dim), cut)


@register_operator("aten.sort")
def _sort(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if not op.descending:
        return several(*(op.call(f"jnp.{name}", operand, axis=op.dim) for name in ("sort", "argsort")))
    # jnp.sort would hand the gradients of equal values back in the opposite order.
    indices = op.call("jnp.argsort", operand, axis=op.dim, descending=True)
    return several(op.call("jnp.take_along_axis", operand, indices, axis=op.dim), indices)


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
    if "median" in op.name and operand.dtype.is_floating_point:  # where there is a NaN, it is that
        nan = op.call("jnp.isnan", operand)
        found = op.method(nan, "any", axis, keepdims=True)
        index = op.call("jnp.where", found, op.method(nan, "argmax", axis, keepdims=True), index)
    value = op.call("jnp.take_along_axis", operand, index, axis=axis)
    if op.keepdim:
        return several(value, index)
    return several(op.method(value, "squeeze", axis), op.method(index, "squeeze", axis))


@register_operator("aten.nanmedian.dim")
def _nanmedian(op: Operation) -> Expression:
    operand = op.arguments["self"]
    missing = op.call("jnp.isnan", operand)
    found = Expression(f"~{missing.within(SIGN)}", SIGN, missing.names)
    numbers = op.method(found, "sum", op.dim, keepdims=True)
    rank = op.binary("//", op.call("jnp.maximum", op.binary("-", numbers, 1, SUM), 0), 2, PRODUCT)
    order = op.call("jnp.argsort", operand, axis=op.dim)  # NaN is last
    index = op.call("jnp.take_along_axis", order, rank, axis=op.dim)
    value = op.call("jnp.take_along_axis", operand, index, axis=op.dim)
    return several(*(value, index) if op.keepdim else (op.method(x, "squeeze", op.dim) for x in (value, index)))


@register_operator("aten.median.default", "aten.nanmedian.default")
def _median(op: Operation) -> Expression:
    return op.call(f"F.{op.name.split('.')[1]}", op.arguments["self"])


@register_operator("aten.mode")
def _mode(op: Operation) -> Expression:
    return op.call("F.mode", op.arguments["self"], op.dim, keepdim=op.keepdim or None)


@register_operator("aten.diff")
def _diff(op: Operation) -> Expression:
    n = None if op.n == 1 else op.n
    return op.call("jnp.diff", op.arguments["self"], n=n, axis=op.dim, prepend=op.prepend, append=op.append)


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
    # In torch a number's bin is computed, not found among edges that are rounded.
    above = op.binary("+" if op.min < 0 else "-", op.arguments["self"], abs(op.min), SUM)
    above = op.binary("*", above, op.bins, PRODUCT)
    both = op.call("jnp.histogram", op.binary("/", above, op.max - op.min, PRODUCT), op.bins, [0, op.bins])
    return op.cast(Expression(f"{both.text}[0]", ATOM, both.names), op.output.dtype)
