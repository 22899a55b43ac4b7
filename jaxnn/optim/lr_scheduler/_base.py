"""What the schedules share: one formula for Python's integers, in float64, and for traced counts."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Number = float | int
Count = int | np.integer | Int[Array, ""] | Int[np.ndarray, ""]


class Schedule:
    """A learning rate as a function of how many updates were made, an optax schedule.

    torch's constructor with the learning rate in place of the optimizer, and one schedule a parameter group. torch
    moves a schedule on when ``step`` is called, often once an epoch; here the count is that of updates, so that a
    schedule of epochs is ``lambda count: schedule(count // updates_per_epoch)``.

    A Python integer gives a Python float, to all its digits; an array gives an array.
    """

    last_epoch: int

    def __call__(self, count: Count) -> float | Float[Array, ""]:
        """The value for the update that comes after ``count`` others."""
        if isinstance(count, int | np.integer):
            step = np.int64(count + self.last_epoch + 1)
            return float(self._value(step, np.float64(step), np))
        moved = jnp.asarray(count) + (self.last_epoch + 1)
        return self._value(moved, moved.astype(jnp.result_type(float)), jnp)

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        """The value at ``step``, ``x`` being the same as a float, with the functions of ``xp``, numpy or jax.numpy."""
        raise NotImplementedError


class Factor(Schedule):
    """A schedule that multiplies the learning rate it is given."""

    lr: Number

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        return self.lr * self._factor(step, x, xp)

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        raise NotImplementedError


def power(base: Number, exponent: Any, xp: Any) -> Any:
    """``base ** exponent``; by the logarithm, for in float32 a base just below one loses the digits that count."""
    return xp.exp(exponent * math.log(base)) if base > 0 else base**exponent


def own_function(function: Callable[[Any], Any], argument: Any) -> Any:
    """What the user's function gives, which may multiply floats with an integer count."""
    with jax.numpy_dtype_promotion("standard"):
        return function(argument)
