"""Pooling to a given size."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Num

from jaxnn.functional._argument import ArgumentError, accumulation_dtype
from jaxnn.functional._windowed_max import windowed_max
from jaxnn.functional._windows import check_axes, check_floating, check_not_empty, default_integer, evenly, exact_tuple
from jaxnn.functional.pooling import axis_sum

Size = int | None
"""Windows on an axis; ``None`` for as many as it has elements."""


def adaptive_avg_pool1d(
    input: Num[ArrayLike, "*batch channels length"], output_size: int | Sequence[int]
) -> Num[Array, "..."]:
    r"""Means of ``output_size`` windows that cover the last axis evenly.

    .. math:: y_i = \frac{1}{b_i - a_i} \sum_{a_i \le j < b_i} x_j, \quad
        a_i = \lfloor i L / n \rfloor, \quad b_i = \lceil (i + 1) L / n \rceil

    Args:
        input: ``(channels, length)`` or ``(batch, channels, length)``.
        output_size: the number of windows :math:`n`; may exceed the length.

    Returns:
        ``(*batch, channels, output_size)``.

    Raises:
        ArgumentError: ``output_size`` is negative or not a single integer, or ``input`` has no elements.
        NotImplementedError: ``input`` is not of a floating-point dtype.

    Source: ``torch.nn.functional.adaptive_avg_pool1d``.
    """
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Num[ArrayLike, "..."], output_size: int | Sequence[Size]) -> Num[Array, "..."]:
    """:func:`adaptive_avg_pool1d` over the last two axes; ``None`` in ``output_size`` keeps an axis as it is.

    Source: ``torch.nn.functional.adaptive_avg_pool2d``.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Num[ArrayLike, "..."], output_size: int | Sequence[Size]) -> Num[Array, "..."]:
    """:func:`adaptive_avg_pool1d` over the last three axes; ``None`` in ``output_size`` keeps an axis as it is.

    Source: ``torch.nn.functional.adaptive_avg_pool3d``.
    """
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, input, output_size)


def adaptive_max_pool1d(
    input: Num[ArrayLike, "*batch channels length"], output_size: int | Sequence[int], return_indices: bool = False
) -> Num[Array, "..."] | tuple[Num[Array, "..."], Int[Array, "..."]]:
    r"""Maxima of ``output_size`` windows that cover the last axis evenly.

    .. math:: y_i = \max_{a_i \le j < b_i} x_j, \quad
        a_i = \lfloor i L / n \rfloor, \quad b_i = \lceil (i + 1) L / n \rceil

    NaN in a window makes NaN of its maximum. The gradient goes to the first of equal elements.

    Args:
        input: ``(channels, length)`` or ``(batch, channels, length)``.
        output_size: the number of windows :math:`n`; may exceed the length.
        return_indices: return the position of each maximum too.

    Returns:
        ``(*batch, channels, output_size)``; with ``return_indices`` a pair with the indices into the flattened
        spatial axes.

    Raises:
        ArgumentError: ``output_size`` is negative or not a single integer, or ``input`` has no elements.
        NotImplementedError: ``input`` is not of a floating-point dtype.

    Source: ``torch.nn.functional.adaptive_max_pool1d``.
    """
    pooled = adaptive_max_pool1d_with_indices(input, output_size)
    return pooled if return_indices else pooled[0]


def adaptive_max_pool2d(
    input: Num[ArrayLike, "..."], output_size: int | Sequence[Size], return_indices: bool = False
) -> Num[Array, "..."] | tuple[Num[Array, "..."], Int[Array, "..."]]:
    """:func:`adaptive_max_pool1d` over the last two axes; ``None`` in ``output_size`` keeps an axis as it is.

    Source: ``torch.nn.functional.adaptive_max_pool2d``.
    """
    pooled = adaptive_max_pool2d_with_indices(input, output_size)
    return pooled if return_indices else pooled[0]


def adaptive_max_pool3d(
    input: Num[ArrayLike, "..."], output_size: int | Sequence[Size], return_indices: bool = False
) -> Num[Array, "..."] | tuple[Num[Array, "..."], Int[Array, "..."]]:
    """:func:`adaptive_max_pool1d` over the last three axes; ``None`` in ``output_size`` keeps an axis as it is.

    Source: ``torch.nn.functional.adaptive_max_pool3d``.
    """
    pooled = adaptive_max_pool3d_with_indices(input, output_size)
    return pooled if return_indices else pooled[0]


def adaptive_max_pool1d_with_indices(
    input: Num[ArrayLike, "*batch channels length"], output_size: int | Sequence[int], return_indices: bool = False
) -> tuple[Num[Array, "..."], Int[Array, "..."]]:
    """:func:`adaptive_max_pool1d` and the indices of the maxima, whatever ``return_indices`` says.

    Source: ``torch.nn.functional.adaptive_max_pool1d_with_indices``.
    """
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size)


def adaptive_max_pool2d_with_indices(
    input: Num[ArrayLike, "..."], output_size: int | Sequence[Size], return_indices: bool = False
) -> tuple[Num[Array, "..."], Int[Array, "..."]]:
    """:func:`adaptive_max_pool2d` and the indices of the maxima, whatever ``return_indices`` says.

    Source: ``torch.nn.functional.adaptive_max_pool2d_with_indices``.
    """
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size)


def adaptive_max_pool3d_with_indices(
    input: Num[ArrayLike, "..."], output_size: int | Sequence[Size], return_indices: bool = False
) -> tuple[Num[Array, "..."], Int[Array, "..."]]:
    """:func:`adaptive_max_pool3d` and the indices of the maxima, whatever ``return_indices`` says.

    Source: ``torch.nn.functional.adaptive_max_pool3d_with_indices``.
    """
    return _adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size)


def _adaptive_avg_pool(name: str, n: int, input: ArrayLike, output_size: int | Sequence[Size]) -> Array:
    x = jnp.asarray(input)
    sizes = _sizes(name, x.shape, n, output_size)
    # torch takes an input without channels here, and then of any dtype, except over three axes.
    if x.size or n == 3:
        check_floating(name, x)
    check_not_empty(name, x.shape, range(1 if n == 3 else x.ndim - n, x.ndim))
    if 0 in sizes or not x.size:
        return jnp.zeros((*x.shape[:-n], *sizes), x.dtype)
    return _means(x, sizes)


@partial(jax.jit, static_argnums=1)
def _means(x: Array, sizes: tuple[int, ...]) -> Array:
    n = len(sizes)
    sums = x.astype(accumulation_dtype(x.dtype))
    divisor = jnp.ones((1,) * n, jnp.int32)
    for i, output in enumerate(sizes):
        axis = x.ndim - n + i
        size = x.shape[axis]
        if size % output == 0:
            sums = axis_sum(sums, axis, evenly(size, output))
            divisor = divisor * (size // output)
            continue
        starts, ends = _bounds(size, np.arange(output), output)
        held = starts[:, None] + np.arange(max(ends - starts)) < ends[:, None]
        held = held.reshape(*held.shape, *(1,) * (n - 1 - i))
        sums = jnp.sum(jnp.where(held, _view(sums, axis, output), jnp.zeros((), sums.dtype)), axis + 1)
        if size * output < 2**31:
            # Counted where XLA sees it, as in the means of windows of one stride.
            starts, ends = _bounds(size, jnp.arange(output, dtype=jnp.int32), output)
        divisor = divisor * jnp.asarray(ends - starts, jnp.int32).reshape(-1, *(1,) * (n - 1 - i))
    return (sums / divisor.astype(sums.dtype)).astype(x.dtype)


def _adaptive_max_pool(name: str, n: int, input: ArrayLike, output_size: int | Sequence[Size]) -> tuple[Array, Array]:
    x = jnp.asarray(input)
    sizes = _sizes(name, x.shape, n, output_size)
    check_floating(name, x)
    check_not_empty(name, x.shape, range(1, x.ndim))
    if 0 in sizes:
        shape = (*x.shape[:-n], *sizes)
        return jnp.zeros(shape, x.dtype), jnp.zeros(shape, default_integer())
    values, flat = _maxima(x, sizes)
    return values, flat.astype(default_integer())


@partial(jax.jit, static_argnums=1)
def _maxima(x: Array, sizes: tuple[int, ...]) -> tuple[Array, Array]:
    return windowed_max(x, [partial(_view, output=output) for output in sizes])


def _sizes(name: str, shape: tuple[int, ...], n: int, output_size: int | Sequence[Size]) -> tuple[int, ...]:
    check_axes(name, shape, n)
    given: Any = output_size
    if n > 1 and isinstance(given, Sequence) and len(given) == n:
        given = [size if output is None else output for output, size in zip(given, shape[-n:], strict=True)]
    sizes = exact_tuple(given, n, f"{name}: output_size")
    if min(sizes) < 0:
        raise ArgumentError(f"{name}: output_size must not be negative, got {output_size}")
    return sizes


def _bounds(size: int, i: Any, output: int) -> tuple[Any, Any]:
    """The first element of window ``i``, and the one after its last."""
    return i * size // output, -(-(i + 1) * size // output)


def _view(x: Array, axis: int, output: int) -> Array:
    """The windows along ``axis``; where they differ in length the shorter repeat their last element."""
    size = x.shape[axis]
    if size % output == 0:
        return x.reshape(*x.shape[:axis], output, size // output, *x.shape[axis + 1 :])
    starts, ends = _bounds(size, np.arange(output), output)
    positions = np.minimum(starts[:, None] + np.arange(max(ends - starts)), ends[:, None] - 1)
    return jnp.take(x, jnp.asarray(positions, jnp.int32), axis, mode="clip")
