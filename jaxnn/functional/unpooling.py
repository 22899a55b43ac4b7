"""The partial inverse of max pooling: each value goes back to where it came from."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from jaxnn.functional._argument import ArgumentError, is_concrete
from jaxnn.functional._windows import check_axes, check_floating, check_not_empty, exact_tuple


def max_unpool1d(
    input: Num[ArrayLike, "..."],
    indices: Num[ArrayLike, "..."],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> Float[Array, "..."]:
    r"""Put each element at its index, and zero elsewhere.

    .. math:: y_{\mathrm{indices}_i} = x_i

    Args:
        input: ``(channels, length)`` or ``(batch, channels, length)``.
        indices: integers of the same shape, as :func:`max_pool1d_with_indices` returns them. Where some agree, which
            of their elements is kept is not defined; the gradient goes to all of them.
        kernel_size: of the pooling to be undone.
        stride: of that pooling; ``kernel_size`` by default.
        padding: of that pooling.
        output_size: the spatial sizes of the result, or its whole shape; less than one stride from
            ``(length - 1) * stride + kernel_size - 2 * padding``, the default.

    Returns:
        ``(*batch, channels, *output_size)``.

    Raises:
        ArgumentError: the shapes of ``input`` and ``indices`` differ, ``output_size`` is out of its range, or an index
            lies outside the output. Where the indices are traced, such a channel is NaN instead.
        NotImplementedError: ``input`` is not of a floating-point dtype.

    Source: ``torch.nn.functional.max_unpool1d``.
    """
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Num[ArrayLike, "..."],
    indices: Num[ArrayLike, "..."],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> Float[Array, "..."]:
    """:func:`max_unpool1d` over the last two axes; indices count them flattened.

    Source: ``torch.nn.functional.max_unpool2d``.
    """
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Num[ArrayLike, "..."],
    indices: Num[ArrayLike, "..."],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> Float[Array, "..."]:
    """:func:`max_unpool1d` over the last three axes; indices count them flattened.

    Source: ``torch.nn.functional.max_unpool3d``.
    """
    return _max_unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


def _max_unpool(
    name: str,
    n: int,
    input: ArrayLike,
    indices: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    output_size: Sequence[int] | None,
) -> Array:
    x, places = jnp.asarray(input), jnp.asarray(indices)
    check_axes(name, x.shape, n)
    spatial = _output_size(name, n, x.shape, kernel_size, stride, padding, output_size)
    check_floating(name, x)
    if not jnp.issubdtype(places.dtype, jnp.integer):
        raise ArgumentError(f"{name}: indices must be integers, got {places.dtype}")
    if places.shape != x.shape:
        raise ArgumentError(f"{name}: indices must have the shape of input, {x.shape}, got {places.shape}")
    check_not_empty(name, x.shape, range(1, x.ndim))
    size = math.prod(spatial)
    if is_concrete(indices) and places.size:
        least, most = np.min(np.asarray(indices)), np.max(np.asarray(indices))
        if least < 0 or most >= size:
            raise ArgumentError(
                f"{name}: indices must lie in [0, {size}) for an output of {spatial}, got values from {least} to {most}"
            )
    rows = math.prod(x.shape[:-n]), math.prod(x.shape[-n:])
    return _placed(x.reshape(rows), places.reshape(rows), size).reshape(*x.shape[:-n], *spatial)


def _output_size(
    name: str,
    n: int,
    shape: tuple[int, ...],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    output_size: Sequence[int] | None,
) -> tuple[int, ...]:
    kernels = exact_tuple(kernel_size, n, f"{name}: kernel_size")
    strides = kernels if stride is None else exact_tuple(stride, n, f"{name}: stride")
    paddings = exact_tuple(padding, n, f"{name}: padding")
    if n == 3 and min(strides) <= 0:
        raise ArgumentError(f"{name}: stride must be positive, got {strides}")
    geometry = zip(shape[-n:], strides, kernels, paddings, strict=True)
    default = tuple((size - 1) * step + kernel - 2 * pad for size, step, kernel, pad in geometry)
    if output_size is None:
        found = default
    else:
        if not isinstance(output_size, Sequence):
            raise TypeError(f"{name}: output_size must be a sequence of integers, got {output_size!r}")
        if len(output_size) not in (n, n + 2):
            raise ArgumentError(f"{name}: output_size must hold {n} or {n + 2} sizes, got {tuple(output_size)}")
        found = exact_tuple(output_size[-n:], n, f"{name}: output_size")
        if any(abs(given - size) >= step for given, size, step in zip(found, default, strides, strict=True)):
            raise ArgumentError(
                f"{name}: output_size must lie less than a stride of {strides} from {default}, got {found}"
            )
    if min(found) < 0:
        raise ArgumentError(f"{name}: the sizes of the output must not be negative, got {found}")
    return found


@partial(jax.jit, static_argnums=2)
def _placed(x: Array, places: Array, size: int) -> Array:
    """Row by row ``x`` at ``places`` of ``size`` and zero elsewhere; NaN all over a row with a place outside."""
    outside = (places < 0) | (places >= size)
    placed = _scattered(x, jnp.where(outside, size, places), size)
    return jnp.where(jnp.any(outside, 1, keepdims=True), jnp.array(jnp.nan, x.dtype), placed)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _scattered(x: Array, places: Array, size: int) -> Array:
    return jax.vmap(lambda row, place: jnp.zeros(size, x.dtype).at[place].set(row, mode="drop"))(x, places)


@_scattered.defjvp
def _scattered_jvp(size: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, places), (dx, _) = primals, tangents
    # A sum where places agree: its transpose hands the gradient to each of them, as torch does.
    spread = jax.vmap(lambda row, place: jnp.zeros(size, dx.dtype).at[place].add(row, mode="drop"))
    return _scattered(x, places, size), spread(dx, places)
