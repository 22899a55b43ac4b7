"""The schedule that watches a metric."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jaxnn.functional._argument import ArgumentError
from jaxnn.optim.lr_scheduler._base import Number


class PlateauState(NamedTuple):
    """What the schedule remembers.

    Attributes:
        lr: learning rate now.
        best: the best metric seen.
        num_bad_epochs: metrics since then, but for cooldown.
        cooldown_counter: metrics of cooldown left.
    """

    lr: Float[Array, ""]
    best: Float[Array, ""]
    num_bad_epochs: Int[Array, ""]
    cooldown_counter: Int[Array, ""]


@dataclass(frozen=True)
class ReduceLROnPlateau:
    """A drop whenever a metric has not improved for a while: a stateful optax schedule.

    The metric comes with the update, ``optimizer.update(grads, state, params, value=metric)``; the new learning rate
    holds from the next update on. An update without ``value`` leaves the schedule as it is, so a metric of epochs goes
    with the last update of each.

    Differs from ``optax.contrib.reduce_on_plateau``: it is the learning rate itself, not a scale behind the optimizer,
    and has torch's defaults.

    Args:
        lr: initial learning rate.
        mode: whether the metric is to be ``"min"`` or ``"max"``.
        factor: of each drop, below one.
        patience: metrics without improvement that are borne.
        threshold: improvement that counts.
        threshold_mode: whether it is ``"rel"`` to the best or ``"abs"``.
        cooldown: metrics after a drop that are not counted.
        min_lr: the least learning rate.
        eps: drops smaller than this are not made.

    Raises:
        ValueError: ``factor`` is not below one, or a mode is unknown.

    Source: ``torch.optim.lr_scheduler.ReduceLROnPlateau``.
    """

    lr: Number
    mode: Literal["min", "max"] = "min"
    factor: Number = 0.1
    patience: int = 10
    threshold: Number = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    min_lr: Number = 0
    eps: Number = 1e-8

    def __post_init__(self) -> None:
        if self.factor >= 1:
            raise ArgumentError(f"ReduceLROnPlateau: factor must be below 1, got {self.factor}")
        if self.mode not in ("min", "max"):
            raise ArgumentError(f"ReduceLROnPlateau: mode must be 'min' or 'max', got {self.mode!r}")
        if self.threshold_mode not in ("rel", "abs"):
            raise ArgumentError(f"ReduceLROnPlateau: threshold_mode must be rel or abs, got {self.threshold_mode!r}")

    def init(self) -> PlateauState:
        """The state before the first metric."""
        worst, none = math.inf if self.mode == "min" else -math.inf, jnp.zeros((), jnp.int32)
        return PlateauState(jnp.asarray(float(self.lr)), jnp.asarray(worst), none, none)

    def __call__(self, state: PlateauState, **extra_args: Any) -> Float[Array, ""]:
        """The learning rate at ``state``."""
        return state.lr

    def update(self, state: PlateauState, *, value: ArrayLike | None = None, **extra_args: Any) -> PlateauState:
        """The state after a metric, or the same where there is none."""
        if value is None:
            return state
        metric = jnp.asarray(value).astype(state.best.dtype)
        sign = -1 if self.mode == "min" else 1
        margin = self.threshold * (state.best if self.threshold_mode == "rel" else 1)
        # Infinity, the best before the first metric, is beaten by anything but NaN.
        goal = jnp.where(jnp.isinf(state.best), state.best, state.best + sign * margin)
        better = metric < goal if self.mode == "min" else metric > goal
        cooling = state.cooldown_counter > 0
        bad = jnp.where(better | cooling, 0, state.num_bad_epochs + 1)
        drop = bad > self.patience
        lower = jnp.maximum(state.lr * self.factor, self.min_lr)
        return PlateauState(
            lr=jnp.where(drop & (state.lr - lower > self.eps), lower, state.lr),
            best=jnp.where(better, metric, state.best),
            num_bad_epochs=jnp.where(drop, 0, bad),
            cooldown_counter=jnp.where(drop, self.cooldown, state.cooldown_counter - cooling.astype(jnp.int32)),
        )
