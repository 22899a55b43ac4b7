"""Averages and power means of windows."""

import math
import operator
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Num, Real

from jaxnn.functional._argument import ArgumentError, accumulation_dtype, n_tuple
from jaxnn.functional._input import magnitude
from jaxnn.functional._windows import Window, default_integer, evenly, windows
from jaxnn.functional.max_pooling import max_pool


def avg_pool1d(
    input: Num[ArrayLike, "*batch channels length"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Real[Array, "..."]:
    r"""Mean of each window along the last axis.

    .. math:: y_i = \frac{1}{k} \sum_{0 \le m < k} x_{s i + m - p}

    Args:
        input: ``(channels, length)`` or ``(batch, channels, length)``; real numbers or integers of the default dtype,
            whose means are rounded towards zero.
        kernel_size: elements in a window.
        stride: elements from one window to the next; ``kernel_size`` by default.
        padding: zeros added at both ends; at most half of ``kernel_size``.
        ceil_mode: keep a last window that reaches beyond the padding, if it starts before the end. What lies beyond the
            padding is never counted.
        count_include_pad: count padding in the denominator.

    Returns:
        ``(*batch, channels, windows)``.

    Raises:
        ArgumentError: a size is out of its range, or no window fits.
        NotImplementedError: ``input`` is of another dtype.

    Source: ``torch.nn.functional.avg_pool1d``.
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Num[ArrayLike, "..."],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Real[Array, "..."]:
    """Mean of each window over the last two axes, or its sum over ``divisor_override``; else as :func:`avg_pool1d`.

    Source: ``torch.nn.functional.avg_pool2d``.
    """
    if jnp.ndim(input) < 3:
        # torch looks for the channels first, hence the exception of its own.
        raise IndexError(f"avg_pool2d: input must have 3 or 4 axes, got shape {jnp.shape(input)}")
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Num[ArrayLike, "..."],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Real[Array, "..."]:
    """Mean of each window over the last three axes, or its sum over ``divisor_override``; else as :func:`avg_pool1d`.

    Source: ``torch.nn.functional.avg_pool3d``.
    """
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def lp_pool1d(
    input: Num[ArrayLike, "*batch channels length"],
    norm_type: int | float,
    kernel_size: int,
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Float[Array, "..."]:
    r"""Power sum of each window along the last axis, brought back to the first power.

    .. math:: y_i = \Bigl(\sum_{0 \le m < k} x_{s i + m}^p\Bigr)^{1/p}

    An infinite ``norm_type`` gives the largest magnitude of each window, a negative infinite one the smallest. Where
    the sum is zero the gradient is zero. Windows cut short under ``ceil_mode`` count with the mean of what they hold.

    Args:
        input: ``(channels, length)`` or ``(batch, channels, length)``.
        norm_type: the power :math:`p`, not zero.
        kernel_size: elements in a window.
        stride: elements from one window to the next; ``kernel_size`` by default.
        ceil_mode: keep a last window that reaches beyond the end, if it starts before it.

    Raises:
        ArgumentError: a size is out of its range, or no window fits.
        ZeroDivisionError: ``norm_type`` is zero.

    Source: ``torch.nn.functional.lp_pool1d``.
    """
    if not isinstance(kernel_size, int):
        raise TypeError(f"lp_pool1d: kernel_size must be an integer, got {kernel_size!r}")
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Num[ArrayLike, "*batch channels height width"],
    norm_type: int | float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Float[Array, "..."]:
    """:func:`lp_pool1d` over the last two axes; sizes are one for both or a pair.

    Source: ``torch.nn.functional.lp_pool2d``.
    """
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Num[ArrayLike, "*batch channels depth height width"],
    norm_type: int | float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Float[Array, "..."]:
    """:func:`lp_pool1d` over the last three axes; sizes are one for all or three.

    Source: ``torch.nn.functional.lp_pool3d``.
    """
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)


def _avg_pool(
    name: str,
    n: int,
    input: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    x = jnp.asarray(input)
    found = windows(name, x.shape, n, kernel_size, stride, padding, 1, ceil_mode)
    # Of volumes torch asks that they hold a whole window even where padding or ceil_mode would make up for it.
    if n == 3 and any(window.size < window.kernel for window in found):
        kernels = tuple(window.kernel for window in found)
        raise ArgumentError(f"{name}: input must be at least as large as kernel_size={kernels}, got shape {x.shape}")
    if divisor_override is not None and operator.index(divisor_override) == 0:
        raise ArgumentError(f"{name}: divisor_override must not be zero")
    if not jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != default_integer():
        raise NotImplementedError(f"{name}: input must be real numbers or integers of the default dtype, got {x.dtype}")
    return _means(x, found, count_include_pad, divisor_override)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _means(x: Array, found: tuple[Window, ...], count_include_pad: bool, divisor_override: int | None) -> Array:
    n = len(found)
    sums = x.astype(accumulation_dtype(x.dtype))
    divisor = jnp.ones((1,) * n, jnp.int32) if divisor_override is None else jnp.full((1,) * n, divisor_override)
    for i, window in enumerate(found):
        sums = axis_sum(sums, x.ndim - n + i, window)
        if divisor_override is None:
            divisor = divisor * _counts(window, count_include_pad).reshape(-1, *(1,) * (n - 1 - i))
    # Between integers this rounds towards zero, as torch does.
    return lax.div(sums, jnp.broadcast_to(divisor.astype(sums.dtype), sums.shape)).astype(x.dtype)


def axis_sum(x: Array, axis: int, window: Window) -> Array:
    """The sum of each window along ``axis``."""
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    if window.kernel * window.output == window.size and window == evenly(window.size, window.output):
        # Side by side the windows are an axis of their own, whose sum has a broadcast for its transpose. All axes
        # before it are one, which XLA shares out among threads.
        split = x.reshape(math.prod(before) * window.output, window.kernel, math.prod(after))
        return jnp.sum(split, 1).reshape(*before, window.output, *after)
    beyond = max(0, (window.output - 1) * window.stride + window.kernel - window.size - window.padding)
    return lax.reduce_window(
        x,
        np.zeros((), x.dtype),
        lax.add,
        window_dimensions=tuple(window.kernel if i == axis else 1 for i in range(x.ndim)),
        window_strides=tuple(window.stride if i == axis else 1 for i in range(x.ndim)),
        padding=tuple((window.padding, beyond) if i == axis else (0, 0) for i in range(x.ndim)),
    )


def _counts(window: Window, count_include_pad: bool) -> Array:
    """What each window divides by: its elements inside the input, or inside the input and its padding."""
    # Counted where XLA sees it: with a constant, XLA spends seconds evaluating the gradient of a sum while compiling.
    starts = jnp.arange(window.output, dtype=jnp.int32) * window.stride - window.padding
    ends = jnp.minimum(starts + window.kernel, window.size + window.padding)
    if count_include_pad:
        return ends - starts
    return jnp.minimum(ends, window.size) - jnp.maximum(starts, 0)


def _lp_pool(
    name: str,
    n: int,
    input: ArrayLike,
    norm_type: int | float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    ceil_mode: bool,
) -> Array:
    x = jnp.asarray(input)
    if not jnp.issubdtype(x.dtype, jnp.floating) and isinstance(norm_type, float):
        x = x.astype(jnp.float32)
    if math.isinf(norm_type):
        sign = 1 if norm_type > 0 else -1
        return sign * max_pool(name, n, sign * magnitude(x), kernel_size, stride, 0, 1, ceil_mode)
    root = 1.0 / norm_type
    mean = _avg_pool(name, n, _power(x, norm_type), kernel_size, stride, 0, ceil_mode, True, None)
    sums = mean * math.prod(n_tuple(kernel_size, n, f"{name}: kernel_size"))
    if not jnp.issubdtype(sums.dtype, jnp.floating):
        sums = sums.astype(jnp.float32)
    # The root of zero has an infinite slope, which torch's relu stops.
    zero = sums == 0
    powered = _power(jnp.where(zero, jnp.ones_like(sums), sums), root)
    return jnp.where(zero, jnp.full_like(powered, 0.0 if root > 0 else jnp.inf), powered)


def _power(x: Array, exponent: int | float) -> Array:
    if exponent == 0.5:
        return jnp.sqrt(x)
    if float(exponent).is_integer():
        return lax.integer_pow(x, int(exponent))
    return jnp.power(x, jnp.asarray(exponent, x.dtype))
