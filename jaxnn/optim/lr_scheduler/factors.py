"""Schedules that multiply the learning rate by a factor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.functional._argument import ArgumentError
from jaxnn.optim.lr_scheduler._base import Factor, Number, own_function, power


def _check_lambda(name: str, lr_lambda: Any) -> None:
    if not callable(lr_lambda):
        raise TypeError(f"{name}: lr_lambda must be a function, got {type(lr_lambda).__name__}; each group has its own")


@dataclass(frozen=True)
class LambdaLR(Factor):
    r"""The factor a function gives: :math:`\gamma f(t)`.

    Args:
        lr: initial learning rate :math:`\gamma`.
        lr_lambda: :math:`f`, of an integer that is an array while tracing.
        last_epoch: the step before the first.

    Source: ``torch.optim.lr_scheduler.LambdaLR``.
    """

    lr: Number
    lr_lambda: Callable[[Any], Any]
    last_epoch: int = -1

    def __post_init__(self) -> None:
        _check_lambda("LambdaLR", self.lr_lambda)

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        return own_function(self.lr_lambda, int(step) if xp is np else step)


@dataclass(frozen=True)
class MultiplicativeLR(Factor):
    r"""The product of what a function gave so far: :math:`\gamma \prod_{i=1}^t f(i)`, computed in ``t`` steps.

    Args:
        lr: initial learning rate :math:`\gamma`.
        lr_lambda: :math:`f`, of an integer that is an array while tracing.
        last_epoch: the step before the first.

    Source: ``torch.optim.lr_scheduler.MultiplicativeLR``.
    """

    lr: Number
    lr_lambda: Callable[[Any], Any]
    last_epoch: int = -1

    def __post_init__(self) -> None:
        _check_lambda("MultiplicativeLR", self.lr_lambda)

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        if xp is np:
            return np.prod([float(self.lr_lambda(i)) for i in range(1, int(step) + 1)])

        def multiply(i: Any, product: Any) -> Any:
            return product * jnp.asarray(own_function(self.lr_lambda, i)).astype(product.dtype)

        return lax.fori_loop(1, step + 1, multiply, jnp.ones_like(x))


@dataclass(frozen=True)
class StepLR(Factor):
    r"""A drop every so many steps: :math:`\gamma g^{\lfloor t / s \rfloor}`.

    Args:
        lr: initial learning rate :math:`\gamma`.
        step_size: :math:`s`, in steps.
        gamma: :math:`g`.
        last_epoch: the step before the first.

    Source: ``torch.optim.lr_scheduler.StepLR``.
    """

    lr: Number
    step_size: int
    gamma: Number = 0.1
    last_epoch: int = -1

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        return power(self.gamma, (step // self.step_size).astype(x.dtype), xp)


@dataclass(frozen=True)
class MultiStepLR(Factor):
    """A drop by ``gamma`` at each milestone; one named twice counts twice.

    Args:
        lr: initial learning rate.
        milestones: steps, in any order.
        gamma: factor of each drop.
        last_epoch: the step before the first.

    Source: ``torch.optim.lr_scheduler.MultiStepLR``.
    """

    lr: Number
    milestones: Sequence[int]
    gamma: Number = 0.1
    last_epoch: int = -1

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        return power(self.gamma, count_reached(self.milestones, step, xp).astype(x.dtype), xp)


def count_reached(milestones: Sequence[int], step: Any, xp: Any) -> Any:
    """How many milestones are not after ``step``."""
    return xp.sum(xp.asarray(sorted(milestones), step.dtype) <= step)


@dataclass(frozen=True)
class ConstantLR(Factor):
    """A smaller learning rate for the first steps.

    Args:
        lr: learning rate after them.
        factor: between 0 and 1.
        total_iters: how many steps.
        last_epoch: the step before the first.

    Raises:
        ValueError: ``factor`` is out of its range.

    Source: ``torch.optim.lr_scheduler.ConstantLR``.
    """

    lr: Number
    factor: Number = 1.0 / 3
    total_iters: int = 5
    last_epoch: int = -1

    def __post_init__(self) -> None:
        if not 0 <= self.factor <= 1:
            raise ArgumentError(f"ConstantLR: factor must be between 0 and 1, got {self.factor}")

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        # torch undoes the factor upon arrival at total_iters, and never arrives at zero.
        return xp.where((step < self.total_iters) | (self.total_iters == 0), self.factor, 1.0)


@dataclass(frozen=True)
class LinearLR(Factor):
    """A factor that moves in a straight line.

    Args:
        lr: learning rate at factor 1.
        start_factor: first factor, above 0, at most 1.
        end_factor: last factor, between 0 and 1.
        total_iters: steps from the one to the other.
        last_epoch: the step before the first.

    Raises:
        ValueError: a factor is out of its range.

    Source: ``torch.optim.lr_scheduler.LinearLR``.
    """

    lr: Number
    start_factor: Number = 1.0 / 3
    end_factor: Number = 1.0
    total_iters: int = 5
    last_epoch: int = -1

    def __post_init__(self) -> None:
        if not 0 < self.start_factor <= 1:
            raise ArgumentError(f"LinearLR: start_factor must be above 0 and at most 1, got {self.start_factor}")
        if not 0 <= self.end_factor <= 1:
            raise ArgumentError(f"LinearLR: end_factor must be between 0 and 1, got {self.end_factor}")

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        gone = xp.minimum(x, self.total_iters) / max(self.total_iters, 1)
        return self.start_factor + (self.end_factor - self.start_factor) * gone


@dataclass(frozen=True)
class ExponentialLR(Factor):
    r"""A drop every step: :math:`\gamma g^t`.

    Args:
        lr: initial learning rate :math:`\gamma`.
        gamma: :math:`g`.
        last_epoch: the step before the first.

    Source: ``torch.optim.lr_scheduler.ExponentialLR``.
    """

    lr: Number
    gamma: Number
    last_epoch: int = -1

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        return power(self.gamma, x, xp)


@dataclass(frozen=True)
class PolynomialLR(Factor):
    r"""A fall to zero: :math:`\gamma (1 - \min(t, T) / T)^p`.

    Args:
        lr: initial learning rate :math:`\gamma`.
        total_iters: :math:`T`.
        power: :math:`p`.
        last_epoch: the step before the first.

    Source: ``torch.optim.lr_scheduler.PolynomialLR``.
    """

    lr: Number
    total_iters: int = 5
    power: Number = 1.0
    last_epoch: int = -1

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        return ((self.total_iters - xp.minimum(x, self.total_iters)) / self.total_iters) ** self.power
