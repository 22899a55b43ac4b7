"""Borders to the fusion of operators on a CPU."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def written_once(function: Callable[[Array], Array], x: Array) -> Array:
    """``function(x)``, on a CPU with ``x`` and the result in memory."""
    if not x.size:
        return function(x)
    return lax.platform_dependent(x, cpu=lambda x: bordered(function, x, jax.eval_shape(function, x)), default=function)


def bordered(function: Callable[[Array], Array], x: Array, result: jax.ShapeDtypeStruct) -> Array:
    """``function(x)``, which is like ``result``, with ``x`` and the result in memory.

    XLA would fuse what is cheap for each element into whatever reads it, and compute all of it again for each reader
    and for each time that it reads. A choice is a border to that, if XLA cannot know that it always falls on the same
    side.
    """
    number = lax.bitcast_convert_type(x.ravel()[0], jnp.dtype(f"int{8 * x.dtype.itemsize}"))
    even = number * (number + 1) % 2 == 0  # always
    return lax.cond(even, function, lambda x: jnp.full(result.shape, x.ravel()[0], result.dtype), x)
