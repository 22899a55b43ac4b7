"""The maximum of each window, and where it lies.

A maximum over a box is one of maxima along its axes, taken last axis first so that among equals the first in scan
order is still the one found. Gradients go by each window's choice along an axis, in dense form: a scatter is slow on a
CPU.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Int, Num

from jaxnn._lowering.borders import written_once
from jaxnn.functional._windows import Window, default_integer, windows

Steps = tuple[tuple[int, Window], ...]
"""The axes to pool, the last first, each with its windows."""

FEW = 8
"""Elements of a window up to which they are compared one by one."""

UNROLLED = 4
"""Steps written out; more become a loop, for a program that compiles fast and keeps each result in memory."""


def max_pool1d(
    input: Num[ArrayLike, "*batch channels length"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Num[Array, "..."] | tuple[Num[Array, "..."], Int[Array, "..."]]:
    r"""Maximum of each window along the last axis.

    .. math:: y_i = \max_{0 \le m < k} x_{s i - p + d m}

    Padding is :math:`-\infty`. NaN in a window makes NaN of its maximum. The gradient goes to the first of equal
    elements.

    Args:
        input: ``(channels, length)`` or ``(batch, channels, length)``; integers or real numbers.
        kernel_size: elements in a window.
        stride: elements from one window to the next; ``kernel_size`` by default.
        padding: elements added at both ends; at most half of ``kernel_size``.
        dilation: elements from one of a window to its next.
        ceil_mode: keep a last window that reaches beyond the end, if it starts before it.
        return_indices: return the position of each maximum too.

    Returns:
        ``(*batch, channels, windows)``; with ``return_indices`` a pair with the indices into the flattened spatial
        axes.

    Raises:
        ArgumentError: a size is out of its range, or no window fits.

    Source: ``torch.nn.functional.max_pool1d``.
    """
    pool = max_pool1d_with_indices if return_indices else partial(max_pool, "max_pool1d", 1)
    return pool(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    input: Num[ArrayLike, "*batch channels height width"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Num[Array, "..."] | tuple[Num[Array, "..."], Int[Array, "..."]]:
    """Maximum of each window over the last two axes; arguments as in :func:`max_pool1d`, one for both axes or a pair.

    Source: ``torch.nn.functional.max_pool2d``.
    """
    pool = max_pool2d_with_indices if return_indices else partial(max_pool, "max_pool2d", 2)
    return pool(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(
    input: Num[ArrayLike, "*batch channels depth height width"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Num[Array, "..."] | tuple[Num[Array, "..."], Int[Array, "..."]]:
    """Maximum of each window over the last three axes; arguments as in :func:`max_pool1d`, one for all or three.

    Source: ``torch.nn.functional.max_pool3d``.
    """
    pool = max_pool3d_with_indices if return_indices else partial(max_pool, "max_pool3d", 3)
    return pool(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool1d_with_indices(
    input: Num[ArrayLike, "*batch channels length"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Num[Array, "..."], Int[Array, "..."]]:
    """:func:`max_pool1d` and the indices of the maxima, whatever ``return_indices`` says.

    Source: ``torch.nn.functional.max_pool1d_with_indices``.
    """
    return _max_pool_with_indices("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d_with_indices(
    input: Num[ArrayLike, "*batch channels height width"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Num[Array, "..."], Int[Array, "..."]]:
    """:func:`max_pool2d` and the indices of the maxima, whatever ``return_indices`` says.

    Source: ``torch.nn.functional.max_pool2d_with_indices``.
    """
    return _max_pool_with_indices("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d_with_indices(
    input: Num[ArrayLike, "*batch channels depth height width"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Num[Array, "..."], Int[Array, "..."]]:
    """:func:`max_pool3d` and the indices of the maxima, whatever ``return_indices`` says.

    Source: ``torch.nn.functional.max_pool3d_with_indices``.
    """
    return _max_pool_with_indices("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool(name: str, n: int, input: ArrayLike, *geometry: Any) -> Array:
    """:func:`max_pool1d` over the last ``n`` axes, for the function called ``name``."""
    return _maxima(*_steps(name, n, input, *geometry))


def _max_pool_with_indices(name: str, n: int, input: ArrayLike, *geometry: Any) -> tuple[Array, Array]:
    values, flat = _maxima_and_indices(*_steps(name, n, input, *geometry))
    return values, flat.astype(default_integer())


def _steps(name: str, n: int, input: ArrayLike, *geometry: Any) -> tuple[Array, Steps]:
    x = jnp.asarray(input)
    if x.dtype == bool or jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise NotImplementedError(f"{name}: input must be integers or real numbers, got {x.dtype}")
    kernel_size, stride, padding, dilation, ceil_mode = geometry
    found = windows(name, x.shape, n, kernel_size, stride, padding, dilation, ceil_mode)
    return x, tuple(zip(range(x.ndim - n, x.ndim), found, strict=True))[::-1]


@partial(jax.jit, static_argnums=1)
def _maxima(x: Array, steps: Steps) -> Array:
    return reduce(lambda pooled, step: _axis_max(pooled, *step), steps, x)


@partial(jax.jit, static_argnums=1)
def _maxima_and_indices(x: Array, steps: Steps) -> tuple[Array, Array]:
    flat: Any = None
    inner = 1
    for axis, window in steps:
        chosen = _chosen(x, axis, window)
        starts = np.arange(window.output, dtype=np.int32) * window.stride - window.padding
        positions = (chosen.astype(jnp.int32) * window.dilation + _along(starts, x.ndim - axis)) * inner
        flat = positions if flat is None else positions + _select(flat, chosen, axis, window)
        x = _axis_max(x, axis, window)
        inner *= window.size
    return x, flat


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _axis_max(x: Array, axis: int, window: Window) -> Array:
    """The maximum of each window along ``axis``."""

    def reduced(x: Array) -> Array:
        def per_axis(value: Any, others: Any = 1) -> tuple:
            return tuple(value if i == axis else others for i in range(x.ndim))

        after = max(0, _reached(window) - window.size - window.padding)
        return lax.reduce_window(
            x,
            _lowest(x.dtype),
            lax.max,
            window_dimensions=per_axis(window.kernel),
            window_strides=per_axis(window.stride),
            padding=per_axis((window.padding, after), (0, 0)),
            window_dilation=per_axis(window.dilation),
        )

    def compared(x: Array) -> Array:
        tap = _taps(x, axis, window, _lowest(x.dtype))
        return reduce(lax.max, map(tap, range(window.kernel)))

    # XLA's own is slow on a CPU where windows do not overlap: 3 ms against 0.4 for 6.4 million numbers in pairs.
    if window.extent <= window.stride and window.kernel <= FEW:
        return lax.platform_dependent(x, cpu=compared, default=reduced)
    return reduced(x)


@_axis_max.defjvp
def _axis_max_jvp(axis: int, window: Window, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    chosen = written_once(lambda x: _chosen(x, axis, window), lax.stop_gradient(x))
    return _axis_max(x, axis, window), _select(dx, chosen, axis, window)


def _chosen(x: Array, axis: int, window: Window) -> Array:
    """Which of its window's elements the maximum is: the first of equals, the last of NaNs."""
    tap = _taps(x, axis, window, _lowest(x.dtype))
    dtype = jnp.int8 if window.kernel <= 128 else jnp.int32  # small: it is kept for the way back

    def step(i: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        best, chosen = carry
        value = tap(i)
        better = (value > best) | (value != value)
        return jnp.where(better, value, best), jnp.where(better, jnp.asarray(i, dtype), chosen)

    # A window of nothing but -inf chooses its first element that is not padding.
    starts = np.arange(window.output) * window.stride - window.padding
    inside = (-(np.minimum(starts, 0) // window.dilation)).astype(dtype)
    best = tap(0)
    chosen = jnp.broadcast_to(_along(inside, x.ndim - axis), best.shape)
    return _repeat(step, 1, window.kernel, (best, chosen))[1]


def _select(x: Array, chosen: Array, axis: int, window: Window) -> Array:
    """From each window along ``axis`` the chosen element; linear in ``x``, without a gather or, back, a scatter."""
    if window.extent <= window.stride and window.kernel >= UNROLLED:  # side by side: one comparison of all
        beside = _padded(x, axis, window, np.zeros((), x.dtype), window.output * window.stride)
        beside = beside.reshape(*x.shape[:axis], window.output, window.stride, *x.shape[axis + 1 :])
        place = _along(np.arange(window.stride, dtype=np.int32), x.ndim - axis)
        hit = jnp.expand_dims(chosen.astype(jnp.int32) * window.dilation, axis + 1) == place
        return jnp.sum(jnp.where(hit, beside, jnp.zeros_like(beside)), axis + 1, dtype=x.dtype)
    tap = _taps(x, axis, window, np.zeros((), x.dtype))

    def step(i: Any, total: Array) -> Array:
        value = tap(i)
        return total + jnp.where(chosen == jnp.asarray(i, chosen.dtype), value, jnp.zeros_like(value))

    return _repeat(step, 0, window.kernel, jnp.zeros(chosen.shape, x.dtype))


def _taps(x: Array, axis: int, window: Window, fill: np.ndarray) -> Callable[[Any], Array]:
    """What gives the ``i``-th element of every window along ``axis``."""
    padded = _padded(x, axis, window, fill, _reached(window))
    span = (window.output - 1) * window.stride + 1

    def tap(i: Any) -> Array:
        if isinstance(i, int):
            start = i * window.dilation
            return lax.slice_in_dim(padded, start, start + span, window.stride, axis)
        met = lax.dynamic_slice_in_dim(padded, i * window.dilation, span, axis)
        return lax.slice_in_dim(met, 0, span, window.stride, axis)

    return tap


def _reached(window: Window) -> int:
    """How many elements windows reach, from the first that is padding on."""
    return (window.output - 1) * window.stride + window.extent


def _padded(x: Array, axis: int, window: Window, fill: np.ndarray, length: int) -> Array:
    """``x`` with ``fill`` ahead of ``axis`` as the windows want it, and behind or cropped to ``length``."""
    after = length - window.size - window.padding
    return lax.pad(x, fill, [(window.padding, after, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)])


def _repeat(step: Callable[[Any, Any], Any], first: int, last: int, carry: Any) -> Any:
    if last - first < UNROLLED:
        return reduce(lambda c, i: step(i, c), range(first, last), carry)
    return lax.fori_loop(first, last, step, carry)


def _along(values: np.ndarray, ndim: int) -> np.ndarray:
    """``values`` along the first of ``ndim`` axes, to be broadcast against the rest."""
    return values.reshape(-1, *(1,) * (ndim - 1))


def _lowest(dtype: Any) -> np.ndarray:
    floating = jnp.issubdtype(dtype, jnp.floating)
    return np.array(-np.inf if floating else jnp.iinfo(dtype).min, dtype)
