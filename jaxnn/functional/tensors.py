"""Functions of PyTorch's tensors where JAX's namesakes have another gradient.

They are not in ``torch.nn.functional``; a port of a model that calls them needs them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact, Integer, Num, Real, Shaped

from jaxnn.functional._argument import ArgumentError, check_same_dtype, concrete, promoted
from jaxnn.functional._input import default_float, magnitude, widened
from jaxnn.functional._tangents import with_tangent


def abs(input: Num[ArrayLike, "*shape"]) -> Real[Array, "*shape"]:
    """Absolute value; its gradient at zero is zero, where ``jax.numpy.abs`` has one.

    Source: ``torch.abs``.
    """
    x = jnp.asarray(input)
    return magnitude(x) if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.abs(x)


def clamp(
    input: Real[ArrayLike, "..."],
    min: Real[ArrayLike, "..."] | None = None,
    max: Real[ArrayLike, "..."] | None = None,
) -> Real[Array, "..."]:
    """Values between two bounds; at a bound the gradient is whole, where ``jax.numpy.clip`` has half of it, and bounds
    that are equal have none.

    Args:
        input: any shape.
        min: lower bound, which broadcasts against ``input``; None for none.
        max: upper bound, likewise; it wins where it lies below ``min``.

    Source: ``torch.clamp``.
    """
    clamped = carrier = jnp.asarray(input)
    if min is not None:
        clamped = jnp.maximum(clamped, min)
        low = min if max is None else jnp.where(jnp.less(min, max), min, jax.lax.stop_gradient(min))
        carrier = jnp.where(carrier < min, low, carrier)
    if max is not None:
        clamped = jnp.minimum(clamped, max)
        carrier = jnp.where((carrier > max) if min is None else (carrier > max) | jnp.less(max, min), max, carrier)
    return with_tangent(clamped, carrier) if jnp.issubdtype(clamped.dtype, jnp.floating) else clamped


def sign(input: Real[ArrayLike, "*shape"]) -> Real[Array, "*shape"]:
    """1, 0 or -1; zero of NaN, where ``jax.numpy.sign`` is NaN.

    Source: ``torch.sign``.
    """
    x = jnp.sign(input)
    return jnp.where(jnp.isnan(x), 0, x)


def max(
    input: Real[ArrayLike, "..."], dim: int, keepdim: bool = False
) -> tuple[Real[Array, "..."], Integer[Array, "..."]]:
    """Greatest values along an axis, and where they are; the whole gradient goes there, where that of
    ``jax.numpy.max`` is shared among equal ones.

    Args:
        input: any shape.
        dim: the axis.
        keepdim: keep it, of size one.

    Returns:
        Values and indices, the first of equal ones.

    Source: ``torch.max`` along a dimension; over all values torch shares the gradient too.
    """
    return _extreme(jnp.max, jnp.argmax, input, dim, keepdim)


def min(
    input: Real[ArrayLike, "..."], dim: int, keepdim: bool = False
) -> tuple[Real[Array, "..."], Integer[Array, "..."]]:
    """Least values along an axis, and where they are; the gradient as with :func:`max`.

    Args:
        input: any shape.
        dim: the axis.
        keepdim: keep it, of size one.

    Returns:
        Values and indices, the first of equal ones.

    Source: ``torch.min`` along a dimension.
    """
    return _extreme(jnp.min, jnp.argmin, input, dim, keepdim)


def _extreme(
    value: Callable[..., Array], place: Callable[..., Array], input: Real[ArrayLike, "..."], dim: int, keepdim: bool
) -> tuple[Real[Array, "..."], Integer[Array, "..."]]:
    x = jnp.asarray(input)
    values, indices = value(x, dim, keepdims=True), place(x, dim, keepdims=True)
    if x.ndim and jnp.issubdtype(x.dtype, jnp.floating):
        # Reduced and not gathered, which is faster where nobody asks for the gradient.
        values = with_tangent(values, jnp.take_along_axis(x, indices, dim))
    return (values, indices) if keepdim or not x.ndim else (values.squeeze(dim), indices.squeeze(dim))


def atan2(input: Real[ArrayLike, "..."], other: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Angle of the point ``(other, input)`` in radians; its gradient at the origin is zero, where that of
    ``jax.numpy.arctan2`` is NaN.

    Source: ``torch.atan2``.
    """
    y, x = jnp.broadcast_arrays(input, other)
    origin = (x == 0) & (y == 0)
    return with_tangent(jnp.arctan2(y, x), jnp.where(origin, 0, jnp.arctan2(y, jnp.where(origin, 1, x))))


def fmax(input: Real[ArrayLike, "..."], other: Real[ArrayLike, "..."]) -> Real[Array, "..."]:
    """The larger, NaN only where both are; of equal numbers ``input`` has the gradient, where that of
    ``jax.numpy.fmax`` goes to ``other``.

    Source: ``torch.fmax``.
    """
    x, y = jnp.asarray(input), jnp.asarray(other)
    return jnp.where((x >= y) | jnp.isnan(y), x, y)


def fmin(input: Real[ArrayLike, "..."], other: Real[ArrayLike, "..."]) -> Real[Array, "..."]:
    """The smaller, NaN only where both are; of equal numbers ``input`` has the gradient.

    Source: ``torch.fmin``.
    """
    x, y = jnp.asarray(input), jnp.asarray(other)
    return jnp.where((x <= y) | jnp.isnan(y), x, y)


def copysign(input: Real[ArrayLike, "..."], other: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """``input`` with the sign of ``other``; its gradient at zero is zero, where ``jax.numpy.copysign`` has one.

    Source: ``torch.copysign``.
    """
    x = jnp.asarray(input)
    return jnp.copysign(jnp.where(x == 0, jnp.zeros_like(x), x), other)


def xlogy(input: Real[ArrayLike, "..."], other: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """``input * log(other)``, zero where ``input`` is; the gradient of ``input`` is zero there too if ``other`` has no
    logarithm, where that of ``jax.scipy.special.xlogy`` is infinite or NaN.

    Source: ``torch.xlogy``.
    """
    x, y = jnp.asarray(input), jnp.asarray(other)
    return jax.scipy.special.xlogy(jnp.where((x == 0) & (y <= 0), jnp.zeros_like(x), x), y)


def pow(input: Num[ArrayLike, "..."], exponent: Num[ArrayLike, "..."]) -> Num[Array, "..."]:
    """``input ** exponent``; the gradient of zero to the zeroth power is zero, where that of ``jax.numpy.pow`` is NaN.

    Source: ``torch.pow``.
    """
    x, y = promoted(input, exponent)
    return _power(x, y) if jnp.issubdtype(x.dtype, jnp.inexact) else x**y


@jax.custom_jvp
def _power(x: Inexact[Array, "..."], y: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    return x**y


def _power_jvp(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    # Of powers again: so the second derivative of zero to the first power is zero as well.
    (x, y), (dx, dy) = primals, tangents
    value = _power(x, y)
    change = jnp.zeros_like(value)
    if not isinstance(dx, SymbolicZero):
        change += jnp.where(y == 0, 0, y * _power(x, jnp.where(y == 0, 1, y) - 1)) * dx
    if not isinstance(dy, SymbolicZero):  # a constant exponent asks for no logarithm of what may be negative
        change += value * jnp.log(jnp.where((x == 0) & (y.real >= 0), 1, x)) * dy
    return value, change


_power.defjvp(_power_jvp, symbolic_zeros=True)


def angle(input: Num[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Angle of complex numbers in radians; its gradient at zero is zero, where that of ``jax.numpy.angle`` is NaN.

    Source: ``torch.angle``.
    """
    x = jnp.asarray(input)
    if jnp.iscomplexobj(x):
        return atan2(x.imag, x.real)
    x = jax.lax.stop_gradient(default_float(x))
    return jnp.where(x < 0, math.pi, jnp.where(jnp.isnan(x), x, 0))


def masked_scatter(
    input: Shaped[Array, "..."], mask: Bool[Array, "..."], source: Shaped[Array, "..."]
) -> Shaped[Array, "..."]:
    """``input`` where the mask is false; where it is true the entries of ``source``, one after the other.

    Args:
        input: broadcasts against ``mask``.
        mask: where to put entries.
        source: any shape, of the dtype of ``input``, at least as many entries as there are to put.

    Raises:
        ArgumentError: the dtypes differ, or ``source`` has too few entries (under ``jit`` NaN stands for those that it
            lacks, zero among integers).

    Source: ``torch.masked_scatter``.
    """
    check_same_dtype("masked_scatter", input=input, source=source)
    known = concrete(mask)
    x, chosen = jnp.broadcast_arrays(input, mask)
    if known is not None and (count := np.broadcast_to(known, x.shape).sum()) > source.size:
        raise ArgumentError(f"masked_scatter: source must have {count} entries or more, got {source.size}")
    lacking = jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else 0
    entries = jnp.append(source, jnp.asarray(lacking, x.dtype))  # JAX picks nothing of no entries
    place = jnp.cumsum(chosen.ravel()).reshape(chosen.shape) - 1
    return jnp.where(chosen, entries.at[place].get(mode="fill", fill_value=lacking), x)


def std(
    input: Inexact[ArrayLike, "..."],
    dim: int | Sequence[int] | None = None,
    correction: float = 1,
    keepdim: bool = False,
) -> Real[Array, "..."]:
    """Standard deviation; its gradient where all values are equal is zero, where that of ``jax.numpy.std`` is NaN.

    Args:
        input: any shape.
        dim: over which axes; None for all.
        correction: taken from the count of values that the squares are divided by.
        keepdim: keep those axes, of size one.

    Source: ``torch.std``.
    """
    axes = dim if dim is None or isinstance(dim, int) else tuple(dim)
    return safe_sqrt(jnp.var(jnp.asarray(input), axes, ddof=correction, keepdims=keepdim))  # type: ignore[arg-type]


def vector_norm(
    input: Inexact[ArrayLike, "..."],
    ord: float = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
) -> Real[Array, "..."]:
    """Norm over axes; its gradient at zero is zero, where that of ``jax.numpy.linalg.norm`` is NaN.

    Args:
        input: any shape, complex too.
        ord: the norm; infinities and zero (the count of what is not zero) among them. Equal largest entries share the
            gradient.
        dim: over which axes; None for all.
        keepdim: keep those axes, of size one.

    Returns:
        Real, of the precision of ``input``.

    Source: ``torch.linalg.vector_norm``.
    """
    x = jnp.asarray(input)
    size = widened(magnitude(x))
    axes = dim if dim is None or isinstance(dim, int) else tuple(dim)
    # Of a single number every norm is its size; every root and power is taken of a number put in the place of zero,
    # which keeps the gradient there zero.
    if ord == 0:
        norm = jnp.sum((size != 0).astype(size.dtype), axes, keepdims=keepdim)
    elif ord == 1 or math.prod(np.take(x.shape, range(x.ndim) if axes is None else axes, 0).flat) == 1:
        norm = jnp.sum(size, axes, keepdims=keepdim)
    elif ord == 2:
        squares = x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else size * size
        norm = safe_sqrt(jnp.sum(squares, axes, keepdims=keepdim))
    elif ord == math.inf:
        norm = jnp.max(size, axes, keepdims=keepdim, initial=0)
    elif ord == -math.inf:
        norm = jnp.min(size, axes, keepdims=keepdim)
    else:
        zero = size == 0
        powers = jnp.where(zero, 0 if ord > 0 else math.inf, jnp.where(zero, 1, size) ** ord)
        total = jnp.sum(powers, axes, keepdims=keepdim)
        zero = total == 0
        norm = jnp.where(zero, 0, jnp.where(zero, 1, total) ** (1 / ord))
    return norm.astype(jnp.finfo(x.dtype).dtype)


def safe_sqrt(x: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """The square root, of gradient zero at zero."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))
