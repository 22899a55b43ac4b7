"""Maxima of windows of no fixed stride: those of adaptive and fractional pooling."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

View = Callable[[Array, int], Array]
"""Cuts an axis of an array into windows: ``(..., size, ...)`` becomes ``(..., windows, kernel, ...)``."""


def windowed_max(x: Array, views: Sequence[View]) -> tuple[Array, Array]:
    """The maximum of each window over the last axes, one view for each, and its index into them flattened.

    Of equal elements the first in scan order is found, of NaNs the last. An element may stand in a window twice.
    """
    n = len(views)
    spatial = x.shape[-n:]
    values = lax.stop_gradient(x)
    size = math.prod(spatial)
    flat = jnp.arange(size, dtype=jnp.int32).reshape(*(1,) * (x.ndim - n), *spatial)
    for axis, view in zip(range(x.ndim - n, x.ndim), views, strict=True):
        elements, indices = view(values, axis), view(flat, axis)
        values = jnp.max(elements, axis + 1)
        first = jnp.min(jnp.where(elements == jnp.expand_dims(values, axis + 1), indices, size - 1), axis + 1)
        last_nan = jnp.max(jnp.where(elements != elements, indices, -1), axis + 1)
        flat = jnp.where(last_nan < 0, first, last_nan)
    return _routed(x, values, flat, n), flat


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _routed(x: Array, values: Array, flat: Array, n: int) -> Array:
    """``values``, with the derivative of the elements of ``x`` at ``flat`` of its last ``n`` axes."""
    return values


@_routed.defjvp
def _routed_jvp(n: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (x, values, flat), (dx, _, _) = primals, tangents
    planes = math.prod(x.shape[:-n])
    places = flat.reshape(planes, math.prod(values.shape[-n:]))
    taken = jnp.take_along_axis(dx.reshape(planes, math.prod(x.shape[-n:])), places, axis=1, mode="promise_in_bounds")
    return _routed(x, values, flat, n), taken.reshape(values.shape)
