"""Arithmetic, comparison and functions of one element."""

from typing import Any

import jax.numpy as jnp
import torch
from torch.fx import Node

from parity.porting.operators.expression import (
    AND,
    ATOM,
    COMPARISON,
    OR,
    POWER,
    PRODUCT,
    SHIFT,
    SIGN,
    SUM,
    XOR,
    Expression,
)
from parity.porting.operators.operation import Operation, Tensor, dtype_name, kind_of
from parity.porting.operators.registry import Builder, register_operator


def _infix(symbol: str, strength: int) -> Builder:
    def write(op: Operation) -> Expression:
        right = op.other
        alpha = op.arguments.get("alpha", 1)
        if alpha != 1:
            right = op.binary("*", right, alpha, PRODUCT)
        if symbol in ("+", "-") and _is_nothing(op.arguments["self"], right, op.output):
            return op.arguments["self"]
        if symbol == "*" and _is_one(op, right):
            return op.arguments["self"]
        if symbol == "&" and _is_all(op) and right.shape == tuple(op.output.shape):
            return right
        return op.promoted(op.binary(symbol, op.arguments["self"], right, strength), op.arguments["self"], op.other)

    return write


for _name, _symbol, _strength in (
    ("add", "+", SUM),
    ("sub", "-", SUM),
    ("mul", "*", PRODUCT),
    ("bitwise_and", "&", AND),
    ("bitwise_or", "|", OR),
    ("bitwise_xor", "^", XOR),
    ("__and__", "&", AND),
    ("__or__", "|", OR),
    ("__xor__", "^", XOR),
    ("bitwise_left_shift", "<<", SHIFT),
    ("bitwise_right_shift", ">>", SHIFT),
    ("__lshift__", "<<", SHIFT),
    ("__rshift__", ">>", SHIFT),
):
    register_operator(f"aten.{_name}")(_infix(_symbol, _strength))


def _is_nothing(left: Any, right: Any, output: torch.Tensor) -> bool:
    """Whether ``right`` is a zero added to whole numbers; a float may have a negative zero, which would be lost."""
    whole = not output.is_floating_point() and not output.is_complex()
    return type(right) is int and right == 0 and isinstance(left, Tensor) and left.dtype == output.dtype and whole


def _is_one(op: Operation, right: Any) -> bool:
    """Whether ``right`` is a one that changes nothing, as the scale of a model that has none."""
    left = op.arguments["self"]
    one = type(right) in (int, float) and right == 1 and isinstance(left, Tensor) and left.dtype == op.output.dtype
    return one and op.host is not None and op.host.is_alone()  # another may have another scale


def _is_all(op: Operation) -> bool:
    """Whether the first operand is the ``True`` that masks are added to, as an array."""
    first = op.host.node.args[0] if op.host is not None and op.host.node.args else None
    made = isinstance(first, Node) and first.target in (torch.ops.aten.ones.default, torch.ops.aten.new_ones.default)
    return made and op.output.dtype == torch.bool and isinstance(op.other, Tensor) and op.other.dtype == torch.bool


def _comparison(symbol: str) -> Builder:
    def write(op: Operation) -> Expression:
        # Comparisons do not chain here: both operands bind more tightly.
        left, right = op.expression(op.arguments["self"]), op.expression(op.other)
        text = f"{left.within(COMPARISON + 1)} {symbol} {right.within(COMPARISON + 1)}"
        return Expression(text, COMPARISON, left.names | right.names)

    return write


for _name, _symbol in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
    register_operator(f"aten.{_name}", f"aten.{_name}_")(_comparison(_symbol))
for _name, _symbol in (
    ("greater", ">"),
    ("greater_equal", ">="),
    ("less", "<"),
    ("less_equal", "<="),
    ("not_equal", "!="),
):
    register_operator(f"aten.{_name}")(_comparison(_symbol))


@register_operator("aten.div", "aten.divide", "aten.true_divide")
def _div(op: Operation) -> Expression:
    left, right = op.arguments["self"], op.other
    mode = op.arguments.get("rounding_mode")
    if mode is None and _is_one(op, right):
        return left
    if mode == "floor":
        return op.promoted(op.binary("//", left, right, PRODUCT), left, right)
    if mode == "trunc" and isinstance(right, int) and left.dtype == op.output.dtype == torch.int64:
        return op.call("jax.lax.div", left, right)  # a fraction would not hold a large one
    quotient = op.binary("/", left, right, PRODUCT)
    if mode == "trunc":
        return op.cast(op.call("jnp.trunc", quotient), op.output.dtype)
    kinds = [x.dtype for x in (left, right) if isinstance(x, Tensor)]
    return quotient if all(k in (torch.float32, torch.int64) for k in kinds) else _exact(op, quotient)


def _exact(op: Operation, expression: Expression) -> Expression:
    """Torch's dtype, where it is not surely JAX's already."""
    dtypes = {
        x.dtype
        for x in op.arguments.values()
        if isinstance(x, Tensor) and (x.dtype.is_floating_point or x.dtype.is_complex)
    }
    return expression if dtypes == {op.output.dtype} else op.cast(expression, op.output.dtype)


@register_operator("aten.floor_divide")
def _floor_divide(op: Operation) -> Expression:
    left, right = op.arguments["self"], op.other
    return op.promoted(op.binary("//", left, right, PRODUCT), left, right)


@register_operator("aten.remainder")
def _remainder(op: Operation) -> Expression:
    left, right = op.arguments["self"], op.other
    return op.promoted(op.binary("%", left, right, PRODUCT), left, right)


@register_operator("aten.fmod")
def _fmod(op: Operation) -> Expression:
    return op.promoted(op.call("jnp.fmod", op.arguments["self"], op.other), op.arguments["self"], op.other)


@register_operator("aten.rsub")
def _rsub(op: Operation) -> Expression:
    left = op.arguments["self"]
    if op.arguments.get("alpha", 1) != 1:
        left = op.binary("*", left, op.alpha, PRODUCT)
    return op.promoted(op.binary("-", op.other, left, SUM), op.arguments["self"], op.other)


@register_operator("aten.pow")
def _pow(op: Operation) -> Expression:
    if isinstance(op.exponent, Tensor):
        return op.promoted(op.call("F.pow", op.arguments["self"], op.exponent), op.arguments["self"], op.exponent)
    base, exponent = op.expression(op.arguments["self"]), op.expression(op.exponent)
    text = f"{base.within(ATOM)} ** {exponent.within(SIGN)}"
    return op.promoted(Expression(text, POWER, base.names | exponent.names), op.arguments["self"], op.exponent)


@register_operator("aten.neg")
def _neg(op: Operation) -> Expression:
    operand = op.expression(op.arguments["self"])
    return Expression(f"-{operand.within(SIGN)}", SIGN, operand.names)


@register_operator("aten.bitwise_not", "aten.logical_not", "aten.__invert__")
def _invert(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if "logical" in op.name and operand.dtype != torch.bool:
        return op.call("jnp.logical_not", operand)
    return Expression(f"~{operand.within(SIGN)}", SIGN, operand.names)


def _logical(op: Operation) -> Expression:
    left, right = op.arguments["self"], op.other
    if left.dtype == right.dtype == torch.bool:
        symbol, strength = {"and": ("&", AND), "or": ("|", OR), "xor": ("^", XOR)}[
            op.name.split(".")[1][8:].rstrip("_")
        ]
        return op.binary(symbol, left, right, strength)
    return op.call(f"jnp.{op.name.split('.')[1].rstrip('_')}", left, right)


register_operator("aten.logical_and", "aten.logical_or", "aten.logical_xor")(_logical)


def _unary(function: str) -> Builder:
    def write(op: Operation) -> Expression:
        operand = op.arguments["self"]
        # Torch takes integers to float32; so does JAX while 64 bits are off.
        result = op.call(function, operand)
        narrow = operand.dtype in (torch.int8, torch.int16, torch.uint8, torch.bool)
        return op.cast(result, op.output.dtype) if narrow and op.output.dtype != operand.dtype else result

    return write


for _torch, _jax in {
    "abs": "F.abs", "exp": "jnp.exp", "log": "jnp.log", "sqrt": "jnp.sqrt", "sin": "jnp.sin", "cos": "jnp.cos",
    "tan": "jnp.tan", "asin": "jnp.arcsin", "acos": "jnp.arccos", "atan": "jnp.arctan", "sinh": "jnp.sinh",
    "cosh": "jnp.cosh", "asinh": "jnp.arcsinh", "acosh": "jnp.arccosh", "atanh": "jnp.arctanh", "tanh": "jnp.tanh",
    "floor": "jnp.floor", "ceil": "jnp.ceil", "round": "jnp.round", "trunc": "jnp.trunc",
    "log2": "jnp.log2", "log10": "jnp.log10", "log1p": "jnp.log1p", "expm1": "jnp.expm1",
    "exp2": "jnp.exp2", "rsqrt": "jax.lax.rsqrt", "reciprocal": "jnp.reciprocal", "square": "jnp.square",
    "erf": "jax.scipy.special.erf", "erfc": "jax.scipy.special.erfc", "erfinv": "jax.scipy.special.erfinv",
    "special_erf": "jax.scipy.special.erf", "lgamma": "jax.scipy.special.gammaln",
    "digamma": "jax.scipy.special.digamma", "sigmoid": "jax.nn.sigmoid",
    "isnan": "jnp.isnan", "isinf": "jnp.isinf", "isfinite": "jnp.isfinite", "signbit": "jnp.signbit",
    "deg2rad": "jnp.deg2rad", "rad2deg": "jnp.rad2deg", "sinc": "jnp.sinc", "positive": "jnp.positive",
    "special_expit": "jax.nn.sigmoid", "special_log1p": "jnp.log1p", "special_expm1": "jnp.expm1",
    "i0": "jnp.i0", "special_i0e": "jax.scipy.special.i0e", "special_i1": "jax.scipy.special.i1",
    "special_i1e": "jax.scipy.special.i1e", "special_ndtri": "jax.scipy.special.ndtri",
    "special_log_ndtr": "jax.scipy.special.log_ndtr",
}.items():  # fmt: skip
    register_operator(f"aten.{_torch}")(_unary(_jax))


@register_operator("aten.sign", "aten.sgn")
def _sign(op: Operation) -> Expression:
    operand = op.arguments["self"]
    return op.call("F.sign" if operand.dtype.is_floating_point else "jnp.sign", operand)


@register_operator("aten.heaviside")
def _heaviside(op: Operation) -> Expression:
    operand = op.arguments["self"]
    zero, positive = (op.binary(symbol, operand, 0, COMPARISON) for symbol in ("==", ">"))
    return op.call("jnp.where", zero, op.values, op.method(positive, "astype", Expression(dtype_name(op.output.dtype))))


@register_operator("aten.logit", "aten.special_logit")
def _logit(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if op.eps is not None:
        operand = op.call("F.clamp", operand, op.eps, 1 - op.eps)
    return op.call("jax.scipy.special.logit", operand)


@register_operator("aten.frac")
def _frac(op: Operation) -> Expression:
    operand = op.arguments["self"]
    return op.binary("-", operand, op.call("jnp.trunc", operand), SUM)


@register_operator("aten.nan_to_num")
def _nan_to_num(op: Operation) -> Expression:
    nan = 0.0 if op.nan is None else op.nan
    return op.call("jnp.nan_to_num", op.arguments["self"], nan=nan, posinf=op.posinf, neginf=op.neginf)


@register_operator("aten.round.decimals")
def _round_decimals(op: Operation) -> Expression:
    return op.call("jnp.round", op.arguments["self"], op.decimals)


@register_operator("aten.polygamma")
def _polygamma(op: Operation) -> Expression:
    return op.call("jax.scipy.special.polygamma", op.n, op.arguments["self"])


@register_operator("aten.atan2", "aten.arctan2")
def _atan2(op: Operation) -> Expression:
    return op.call("F.atan2", op.arguments["self"], op.other)


@register_operator("aten.maximum", "aten.minimum", "aten.max.other", "aten.min.other", "aten.fmax", "aten.fmin")
def _extreme(op: Operation) -> Expression:
    name = op.name.split(".")[1]
    function = {"max": "jnp.maximum", "min": "jnp.minimum", "fmax": "F.fmax", "fmin": "F.fmin"}.get(name, f"jnp.{name}")
    return op.promoted(op.call(function, op.arguments["self"], op.other), op.arguments["self"], op.other)


@register_operator(
    "aten.logaddexp", "aten.logaddexp2", "aten.hypot", "aten.copysign", "aten.gcd", "aten.lcm", "aten.xlogy",
    "aten.special_xlog1py", "aten.nextafter", "aten.igamma", "aten.igammac", "aten.special_gammainc",
    "aten.special_gammaincc", "aten.special_zeta",
)  # fmt: skip
def _two(op: Operation) -> Expression:
    name = op.name.split(".")[1].rstrip("_").removeprefix("special_")
    name = {"igamma": "gammainc", "igammac": "gammaincc"}.get(name, name)
    special = name in ("xlog1py", "gammainc", "gammaincc", "zeta")
    function = f"jax.scipy.special.{name}" if special else f"{'F' if name in ('copysign', 'xlogy') else 'jnp'}.{name}"
    second = next(value for key, value in op.arguments.items() if key != "self")
    return op.call(function, op.arguments["self"], second)


@register_operator("aten.clamp", "aten.clip", "aten.clamp_min", "aten.clamp_max")
def _clamp(op: Operation) -> Expression:
    low, high = op.arguments.get("min"), op.arguments.get("max")
    operand = op.arguments["self"]
    bounds = [low] if high is None else [low, high]
    result = op.call("F.clamp", operand, *bounds) if low is not None else op.call("F.clamp", operand, max=high)
    return op.promoted(result, *(x for x in (operand, low, high) if x is not None))


@register_operator("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def _where(op: Operation) -> Expression:
    left, right = op.arguments["self"], op.other
    written = op.call("jnp.where", op.condition, left, right)
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return op.promoted(written, left, right)
    return op.cast(written, op.output.dtype)


@register_operator("aten.masked_fill")
def _masked_fill(op: Operation) -> Expression:
    operand = op.arguments["self"]
    written = op.call("jnp.where", op.mask, op.value, operand)
    return op.cast(written, op.output.dtype, _predicted(operand, op.value))


def _predicted(*operands: Any) -> str:
    return str(jnp.result_type(*map(kind_of, operands)))


@register_operator("aten.lerp")
def _lerp(op: Operation) -> Expression:
    start, end = op.arguments["self"], op.end
    step = op.binary("*", op.weight, op.binary("-", end, start, SUM), PRODUCT)
    return op.cast(op.binary("+", start, step, SUM), op.output.dtype, _predicted(start, end))


@register_operator("aten.addcmul", "aten.addcdiv")
def _addc(op: Operation) -> Expression:
    symbol = "*" if "addcmul" in op.name else "/"
    term = op.binary(symbol, op.tensor1, op.tensor2, PRODUCT)
    if op.value != 1:
        term = op.binary("*", op.value, term, PRODUCT)
    return op.binary("+", op.arguments["self"], term, SUM)


@register_operator("aten.to.dtype", "aten._to_copy", "aten.to.dtype_layout", "aten.to.device", "aten.to.other")
def _to(op: Operation) -> Expression:
    return op.cast(op.arguments["self"], op.output.dtype)


@register_operator("aten.type_as", "aten.to.prim_dtype")
def _type_as(op: Operation) -> Expression:
    return op.cast(op.arguments["self"], op.output.dtype)


@register_operator(
    "aten.clone", "aten.contiguous", "aten.alias", "aten.lift_fresh_copy", "aten.lift_fresh", "aten.positive",
    "aten.detach_", "aten.resolve_conj", "aten.resolve_neg", "aten.requires_grad_", "aten.lift",
)  # fmt: skip
def _unchanged(op: Operation) -> Expression:
    return next(iter(op.arguments.values()))


@register_operator("aten.detach")
def _detach(op: Operation) -> Expression:
    operand = op.arguments["self"]
    smooth = operand.dtype.is_floating_point or operand.dtype.is_complex
    return op.call("jax.lax.stop_gradient", operand) if smooth else operand


@register_operator("aten.copy")
def _copy(op: Operation) -> Expression:
    target, source = op.arguments["self"], op.src
    moved = op.cast(source, target.dtype)
    same = tuple(source.shape) == tuple(target.shape)
    return moved if same else op.call("jnp.broadcast_to", moved, list(target.shape))


@register_operator("aten.zero")
def _zero(op: Operation) -> Expression:
    return op.call("jnp.zeros_like", op.arguments["self"])


@register_operator("aten.fill")
def _fill(op: Operation) -> Expression:
    return op.call("jnp.full_like", op.arguments["self"], op.value)
