"""Activations made of straight pieces.

At a kink the derivative is torch's, which is why these are selections and clamps and not minima and maxima, whose
derivative JAX halves where the two are equal.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Key, Real

from jaxnn.functional import _random
from jaxnn.functional._argument import ArgumentError, accumulation_dtype, check_same_dtype
from jaxnn.functional._input import floating, widened


def threshold(
    input: Real[ArrayLike, "*shape"], threshold: int | float, value: int | float, inplace: bool = False
) -> Real[Array, "*shape"]:
    r"""Keep what lies above ``threshold``, replace the rest by ``value``.

    .. math:: y = x \text{ if } x > \text{threshold}, \text{ else value}

    Args:
        input: any shape; integers too.
        threshold: what an element must exceed to be kept; cut to an integer beside integers.
        value: what takes the place of the others; cut likewise.
        inplace: accepted for torch's sake; without effect.

    Raises:
        NotImplementedError: ``input`` is boolean or complex.
        ArgumentError: ``threshold`` or ``value`` is beyond the numbers of the dtype of ``input``.

    Source: ``torch.nn.functional.threshold``.
    """
    input = _ordered("threshold", input)
    # In half precision torch compares in float32, where a limit need not be a half.
    limit = _as_dtype("threshold", threshold, accumulation_dtype(input.dtype))
    return jnp.where(input.astype(limit.dtype) <= limit, _as_dtype("threshold", value, input.dtype), input)


def relu(input: Real[ArrayLike, "*shape"], inplace: bool = False) -> Real[Array, "*shape"]:
    r"""Zero in place of what is negative.

    .. math:: y = \max(x, 0)

    Args:
        input: any shape; integers too. The derivative at 0 is 0.
        inplace: accepted for torch's sake; without effect.

    Raises:
        ArgumentError: ``input`` is boolean.
        NotImplementedError: ``input`` is complex.

    Source: ``torch.nn.functional.relu``.
    """
    input = _ordered("relu", _not_boolean("relu", input))
    return jnp.where(input <= 0, jnp.zeros((), input.dtype), input)


def relu6(input: Real[ArrayLike, "*shape"], inplace: bool = False) -> Real[Array, "*shape"]:
    r"""Confine to [0, 6].

    .. math:: y = \min(\max(x, 0), 6)

    Args:
        input: any shape; integers too. The derivative at 0 and at 6 is 0.
        inplace: accepted for torch's sake; without effect.

    Raises:
        ArgumentError: ``input`` is boolean.
        NotImplementedError: ``input`` is complex.

    Source: ``torch.nn.functional.relu6``; Krizhevsky (2010).
    """
    return _clamped(_ordered("relu6", _not_boolean("relu6", input)), 0, 6)


def hardtanh(
    input: Real[ArrayLike, "*shape"], min_val: int | float = -1.0, max_val: int | float = 1.0, inplace: bool = False
) -> Real[Array, "*shape"]:
    r"""Confine to ``[min_val, max_val]``.

    .. math:: y = \min(\max(x, \text{min\_val}), \text{max\_val})

    Args:
        input: any shape; integers too. The derivative at either limit is 0.
        min_val: the lower limit; cut to an integer beside integers.
        max_val: the upper limit, no less than ``min_val``; cut likewise.
        inplace: accepted for torch's sake; without effect.

    Raises:
        ArgumentError: ``min_val`` exceeds ``max_val``, ``input`` is boolean or is unsigned beside a negative limit, or
            a limit is beyond the numbers of its dtype.
        NotImplementedError: ``input`` is complex.

    Source: ``torch.nn.functional.hardtanh``.
    """
    if min_val > max_val:
        raise ArgumentError(f"hardtanh: min_val must not exceed max_val, got min_val={min_val}, max_val={max_val}")
    input = _ordered("hardtanh", _not_boolean("hardtanh", input))
    if jnp.issubdtype(input.dtype, jnp.unsignedinteger) and (min_val < 0 or max_val < 0):
        raise ArgumentError(
            f"hardtanh: limits must not be negative beside an input of {input.dtype}, "
            f"got min_val={min_val}, max_val={max_val}"
        )
    return _clamped(input, *(_as_dtype("hardtanh", limit, input.dtype) for limit in (min_val, max_val)))


def hardsigmoid(input: Float[ArrayLike, "*shape"], inplace: bool = False) -> Float[Array, "*shape"]:
    r"""Straight line from 0 at -3 to 1 at 3.

    .. math:: y = \tfrac16 \min(\max(x + 3, 0), 6)

    Args:
        input: any shape. The derivative at -3 and at 3 is 0.
        inplace: accepted for torch's sake; without effect.

    Raises:
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.hardsigmoid``.
    """
    input = floating("hardsigmoid", input)
    return _hardsigmoid(widened(input)).astype(input.dtype)


def hardswish(input: Float[ArrayLike, "*shape"], inplace: bool = False) -> Float[Array, "*shape"]:
    r"""The input times its :func:`hardsigmoid`.

    .. math:: y = \tfrac{x}{6} \min(\max(x + 3, 0), 6)

    Args:
        input: any shape. The derivative is 0 at -3 and 1 at 3.
        inplace: accepted for torch's sake; without effect.

    Raises:
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.hardswish``; Howard et al. (2019).
    """
    input = floating("hardswish", input)
    x = widened(input)
    return (x * (_clamped(x + 3, 0, 6) / 6)).astype(input.dtype)


def hardshrink(input: Float[ArrayLike, "*shape"], lambd: float = 0.5) -> Float[Array, "*shape"]:
    r"""Zero in place of what is small.

    .. math:: y = 0 \text{ if } |x| \le \lambda, \text{ else } x

    Args:
        input: any shape.
        lambd: how large is still small.

    Raises:
        NotImplementedError: ``input`` is not floating point.
        ArgumentError: ``lambd`` is beyond the largest number of the dtype of ``input``.

    Source: ``torch.nn.functional.hardshrink``.
    """
    input = floating("hardshrink", input)
    limit = _as_dtype("hardshrink", lambd, input.dtype)
    return jnp.where(jnp.abs(input) <= limit, jnp.zeros((), input.dtype), input)


def softshrink(input: Float[ArrayLike, "*shape"], lambd: float = 0.5) -> Float[Array, "*shape"]:
    r"""Move towards zero by ``lambd``, and no further than zero.

    .. math:: y = \operatorname{sign}(x) \max(|x| - \lambda, 0)

    Args:
        input: any shape. The derivative at :math:`\pm\lambda` is 0.
        lambd: how far, in the units of ``input``; not negative.

    Raises:
        NotImplementedError: ``input`` is not floating point.
        ArgumentError: ``lambd`` is negative, or beyond the largest number of the dtype of ``input``.

    Source: ``torch.nn.functional.softshrink``.
    """
    input = floating("softshrink", input)
    largest = float(jnp.finfo(input.dtype).max)
    if not 0 <= lambd <= largest:
        raise ArgumentError(f"softshrink: lambd must lie in [0, {largest:.5g}] beside {input.dtype}, got {lambd}")
    x = widened(input)
    # The product, unlike a constant 0, lets NaN through.
    return jnp.where(x > lambd, x - lambd, jnp.where(x < -lambd, x + lambd, x * 0)).astype(input.dtype)


def leaky_relu(
    input: Float[ArrayLike, "*shape"], negative_slope: float = 0.01, inplace: bool = False
) -> Float[Array, "*shape"]:
    r"""A smaller slope for what is negative.

    .. math:: y = x \text{ if } x > 0, \text{ else negative\_slope} \cdot x

    Args:
        input: any shape. The derivative at 0 is ``negative_slope``.
        negative_slope: the slope up to 0.
        inplace: accepted for torch's sake; without effect.

    Raises:
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.leaky_relu``; Maas et al. (2013).
    """
    input = floating("leaky_relu", input)
    x = widened(input)
    return jnp.where(x > 0, x, x * negative_slope).astype(input.dtype)


def prelu(input: Float[ArrayLike, "*shape"], weight: Float[ArrayLike, "*channels"]) -> Float[Array, "*shape"]:
    r"""A learnt slope for what is negative, one for all or one a channel.

    .. math:: y = x \text{ if } x > 0, \text{ else } w_c x

    Args:
        input: ``(N, C, *)``, or of at most one axis and then of one channel.
        weight: the slopes, ``(C,)``, ``(1,)`` or ``()``.

    Raises:
        NotImplementedError: ``input`` is not floating point.
        ArgumentError: ``weight`` has more than one axis or does not fit the channels, or the dtypes differ.

    Source: ``torch.nn.functional.prelu``; He et al. (2015).
    """
    input, weight = jnp.asarray(input), jnp.asarray(weight)
    check_same_dtype("prelu", input=input, weight=weight)
    input = floating("prelu", input)
    if weight.ndim > 1:
        raise ArgumentError(f"prelu: weight must have at most one axis, got shape {weight.shape}")
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.size != 1 and (input.ndim == 0 or weight.size != channels):
        raise ArgumentError(
            f"prelu: weight must hold 1 slope or one for each of the {channels} channels of input {input.shape}, "
            f"got shape {weight.shape}"
        )
    slope = weight.reshape(-1, *(1,) * (input.ndim - 2)) if input.ndim > 1 else weight.reshape(())
    x = widened(input)
    positive = x > 0
    # The inner selection keeps an infinite input out of the gradient of the weight.
    return jnp.where(positive, x, widened(slope) * jnp.where(positive, 0, x)).astype(input.dtype)


def rrelu(
    input: Float[ArrayLike, "*shape"],
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
    *,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "*shape"]:
    r"""A random slope for what is negative, in training; the middle one otherwise.

    .. math:: y = x \text{ if } x > 0, \text{ else } a x, \quad
        a \sim \mathrm{Uniform}(\text{lower}, \text{upper}) \text{ or } a = \tfrac12 (\text{lower} + \text{upper})

    Args:
        input: any shape; each element draws its own slope.
        lower: the least slope.
        upper: the greatest slope, no less than ``lower``.
        training: draw the slopes.
        inplace: accepted for torch's sake; without effect.
        key: a ``jax.random.key``; needed in training.

    Raises:
        NotImplementedError: ``input`` is not floating point.
        ArgumentError: a bound is not finite, ``lower`` exceeds ``upper``, or a key is needed and missing.

    Source: ``torch.nn.functional.rrelu``; Xu et al. (2015).
    """
    for bound, number in (("lower", lower), ("upper", upper)):
        if not math.isfinite(number):
            raise ArgumentError(f"rrelu: {bound} must be finite, got {number}")
    if lower > upper:
        raise ArgumentError(f"rrelu: lower must not exceed upper, got lower={lower}, upper={upper}")
    input = floating("rrelu", input)
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    x = widened(input)
    slope = _random.uniform(_random.required(key, "rrelu"), x.shape, x.dtype, lower, upper)
    return jnp.where(x > 0, x, x * slope).astype(input.dtype)


@jax.custom_jvp
def _hardsigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return _clamped(x + 3, 0, 6) / 6


@_hardsigmoid.defjvp
def _hardsigmoid_jvp(primals: tuple, tangents: tuple) -> tuple:
    # Torch's slope is a sixth rounded to float32, in float64 too.
    (x,), (tangent,) = primals, tangents
    slope = jnp.where((x > -3) & (x < 3), jnp.asarray(np.float32(1 / 6), x.dtype), 0)
    return _hardsigmoid(x), tangent * slope


def _ordered(name: str, input: ArrayLike) -> Real[Array, "..."]:
    array = jnp.asarray(input)
    if array.dtype == jnp.bool_ or jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise NotImplementedError(f"{name}: input must be floating point or integer, got {array.dtype}")
    return array


def _not_boolean(name: str, input: ArrayLike) -> Array:
    array = jnp.asarray(input)
    if array.dtype == jnp.bool_:
        raise ArgumentError(f"{name}: input must not be boolean, got {array.dtype}")
    return array


def _as_dtype(name: str, number: int | float, dtype: jnp.dtype) -> Real[Array, ""]:
    if jnp.issubdtype(dtype, jnp.integer):
        # As C++ converts: a fraction towards zero, and a negative integer wraps round where there is no sign.
        limits = jnp.iinfo(dtype)
        least = int(limits.min) or (-int(limits.max) if isinstance(number, int) else 0)
        fits = least <= number <= int(limits.max)
    else:
        fits = not math.isfinite(number) or abs(number) <= float(jnp.finfo(dtype).max)
    if not fits:
        raise ArgumentError(f"{name}: {number} is beyond the numbers of {dtype}")
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.asarray(np.asarray(int(number)).astype(dtype))
    return jnp.asarray(number, dtype)


def _clamped(x: Real[Array, "*shape"], low: ArrayLike, high: ArrayLike) -> Real[Array, "*shape"]:
    return lax.clamp(jnp.asarray(low, x.dtype), x, jnp.asarray(high, x.dtype))


threshold_ = threshold
relu_ = relu
hardtanh_ = hardtanh
leaky_relu_ = leaky_relu
rrelu_ = rrelu
