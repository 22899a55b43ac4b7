"""Arrays made from nothing."""

from typing import Any

import torch

from parity.porting.operators.expression import ATOM, PRODUCT, SUM, Expression
from parity.porting.operators.operation import Operation, Tensor, dtype_name, kind_of
from parity.porting.operators.registry import register_operator


def _dtype(op: Operation, default: Any = float) -> Expression | None:
    """The dtype of the result; None where it is JAX's own for Python's ``default``."""
    name, natural = dtype_name(op.output.dtype), _NATURAL.get(default)
    return None if natural is not None and name == dtype_name(natural) else Expression(name)


_NATURAL = {bool: torch.bool, int: torch.int64, float: torch.float64, complex: torch.complex128}


@register_operator(
    "aten.zeros",
    "aten.ones",
    "aten.empty",
    "aten.new_zeros",
    "aten.new_ones",
    "aten.new_empty",
    "aten.empty.memory_format",
    "aten.new_empty_strided",
    "aten.empty_strided",
)
def _filled(op: Operation) -> Expression:
    name = "ones" if "ones" in op.name else "zeros"
    return op.call(f"jnp.{name}", _shape(op), dtype=_dtype(op))


def _shape(op: Operation) -> object:
    shape = list(op.output.shape)
    return shape[0] if len(shape) == 1 else shape


@register_operator("aten.full", "aten.new_full")
def _full(op: Operation) -> Expression:
    return op.call("jnp.full", _shape(op), op.fill_value, dtype=_dtype(op, kind_of(op.fill_value)))


@register_operator("aten.zeros_like", "aten.ones_like", "aten.empty_like")
def _like(op: Operation) -> Expression:
    operand = op.arguments["self"]
    name = "ones_like" if "ones" in op.name else "zeros_like"
    dtype = None if op.output.dtype == operand.dtype else Expression(dtype_name(op.output.dtype))
    return op.call(f"jnp.{name}", operand, dtype=dtype)


@register_operator("aten.full_like")
def _full_like(op: Operation) -> Expression:
    operand = op.arguments["self"]
    dtype = None if op.output.dtype == operand.dtype else Expression(dtype_name(op.output.dtype))
    return op.call("jnp.full_like", operand, op.fill_value, dtype=dtype)


@register_operator("aten.arange")
def _arange(op: Operation) -> Expression:
    start, step = op.arguments.get("start", 0), op.arguments.get("step", 1)
    whole = all(isinstance(x, int | torch.SymInt) for x in (start, op.end, step))
    bounds = [op.end] if start == 0 and step == 1 else [start, op.end] if step == 1 else [start, op.end, step]
    return op.call("jnp.arange", *bounds, dtype=_dtype(op, int if whole else float))


@register_operator("aten.linspace")
def _linspace(op: Operation) -> Expression:
    return op.call("jnp.linspace", op.start, op.end, op.steps, dtype=_dtype(op))


@register_operator("aten.logspace")
def _logspace(op: Operation) -> Expression:
    return op.call("jnp.logspace", op.start, op.end, op.steps, base=op.base, dtype=_dtype(op))


@register_operator("aten.eye")
def _eye(op: Operation) -> Expression:
    return op.call(
        "jnp.eye", *list(op.output.shape)[: 1 if op.output.shape[0] == op.output.shape[1] else 2], dtype=_dtype(op)
    )


@register_operator("aten.scalar_tensor")
def _scalar_tensor(op: Operation) -> Expression:
    return op.call("jnp.array", op.s, dtype=Expression(dtype_name(op.output.dtype)))


@register_operator("aten.tril_indices", "aten.triu_indices")
def _indices(op: Operation) -> Expression:
    made = op.call(f"jnp.{op.name.split('.')[1]}", op.row, op.offset, op.col)
    return op.call("jnp.stack", made)


@register_operator("aten.rand", "aten.rand_like")
def _rand(op: Operation) -> Expression:
    return _drawn(op, "uniform")


@register_operator("aten.randn", "aten.randn_like", "aten.new_randn")
def _randn(op: Operation) -> Expression:
    return _drawn(op, "normal")


@register_operator("aten.normal", "aten.normal_functional")
def _normal(op: Operation) -> Expression:
    drawn = _drawn(op, "normal")
    if "Tensor" in op.name:
        return op.binary("+", op.mean, op.binary("*", op.std, drawn, PRODUCT), SUM)
    if op.std != 1:
        drawn = op.binary("*", op.std, drawn, PRODUCT)
    return drawn if op.mean == 0 else op.binary("+", op.mean, drawn, SUM)


@register_operator("aten.uniform")
def _uniform(op: Operation) -> Expression:
    low, drawn = op.arguments.get("from", 0.0), _drawn(op, "uniform")
    if op.to - low != 1:
        drawn = op.binary("*", op.to - low, drawn, PRODUCT)
    return drawn if low == 0 else op.binary("+", low, drawn, SUM)


@register_operator("aten.exponential")
def _exponential(op: Operation) -> Expression:
    drawn = _drawn(op, "exponential")
    return drawn if op.lambd == 1 else op.binary("/", drawn, op.lambd, PRODUCT)


def _drawn(op: Operation, distribution: str) -> Expression:
    key = op.host.random_key()
    operand = op.arguments.get("self")
    shape: object = list(op.output.shape)
    if isinstance(operand, Tensor):
        shape = Expression(f"{operand.within(ATOM)}.shape", ATOM, operand.names)
    return op.call(f"jax.random.{distribution}", key, shape, dtype=_dtype(op))


@register_operator("aten.bernoulli")
def _bernoulli(op: Operation) -> Expression:
    operand = op.arguments["self"]
    p = op.arguments.get("p")
    shape = Expression(f"{operand.within(ATOM)}.shape", ATOM, operand.names)
    drawn = op.call("jax.random.bernoulli", op.host.random_key(), operand if p is None else p, shape)
    return op.method(drawn, "astype", Expression(dtype_name(op.output.dtype)))


@register_operator("aten.randint", "aten.randint_like")
def _randint(op: Operation) -> Expression:
    low = op.arguments.get("low", 0)
    return op.call(
        "jax.random.randint", op.host.random_key(), list(op.output.shape), low, op.high, dtype=_dtype(op, int)
    )


@register_operator("aten.randperm")
def _randperm(op: Operation) -> Expression:
    return op.call("jax.random.permutation", op.host.random_key(), op.n)


@register_operator("aten.multinomial")
def _multinomial(op: Operation) -> Expression:
    again = op.replacement or None
    return op.call("F.multinomial", op.arguments["self"], op.num_samples, replacement=again, key=op.host.random_key())
