"""Borders to the fusion of operators on a CPU."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def written_once(function: Callable[[Array], Array], x: Array) -> Array:
    """``function(x)``, on a CPU with ``x`` and the result in memory.

    XLA would fuse what is cheap for each element into whatever reads it, and compute all of it again for each reader
    and for each time that it reads. A loop is a border to that, if XLA cannot know that it turns once; turning twice
    would change nothing.
    """

    if not x.size:
        return function(x)

    def bordered(x: Array) -> Array:
        turns = jnp.where(x.ravel()[0] == jnp.inf, 2, 1)
        shape = jax.eval_shape(function, x)
        return lax.fori_loop(0, turns, lambda _, output: function(x), jnp.zeros(shape.shape, shape.dtype))

    return lax.platform_dependent(x, cpu=bordered, default=function)
