"""The order in which a CPU updates parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

AT_ONCE = 2**22
"""Bytes of gradients that are worked on at once: with parameters and states they stay in a CPU's cache."""


class Pace:
    """Holds the update of one parameter back until those well before it are done, on a CPU.

    An update is several kernels, which read the gradient and each other's results. XLA runs what can run in the order
    in which it became ready: the first kernel of every parameter, then the second of every parameter, each from
    memory. What is written here is a dependency that it must keep, and no value changes. 200 parameters of 500 KB, of
    torch's time: SGD 1.49 without, 1.17 with; Adam 1.58, 1.28.

    Args:
        step: a number that is never negative, which XLA cannot know.
    """

    def __init__(self, step: Array) -> None:
        # Outside of jit every operator is run as it comes; and where shards are typed, none may be picked from.
        self.idle = not isinstance(step, jax.core.Tracer) or not jax.sharding.get_abstract_mesh().empty
        if not self.idle:
            self.never = lax.platform_dependent(step, cpu=lambda n: n < 0, default=lambda n: jnp.zeros((), bool))
        self.done: list[tuple[int, Array]] = []
        self.first = self.bytes = 0

    def held(self, gradient: Any) -> Any:
        """``gradient``, not to be had before the updates ``AT_ONCE`` bytes back are done; a sparse one as it is."""
        if self.idle or not isinstance(gradient, jax.Array):
            return gradient
        self.bytes += gradient.nbytes
        while self.first < len(self.done) and self.done[self.first][0] + AT_ONCE < self.bytes:
            self.first += 1
        if not self.first:
            return gradient
        written = self.done[self.first - 1][1]
        return jnp.where(self.never, written.ravel()[0].real.astype(gradient.dtype), gradient)

    def passed(self, written: Array) -> None:
        """Note what an update writes."""
        if written.size:
            self.done.append((self.bytes, written))
