"""Schedules that follow a cosine, or go up and down."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxnn.functional._argument import ArgumentError
from jaxnn.optim.lr_scheduler._base import Factor, Number, Schedule, own_function, power
from jaxnn.optim.lr_scheduler.factors import count_reached


@dataclass(frozen=True)
class CosineAnnealingLR(Factor):
    r"""Half a cosine from ``lr`` to ``eta_min``, and back again: period :math:`2 T_{\max}`.

    .. math:: \eta_{\min} + (\gamma - \eta_{\min}) \frac{1 + \cos(\pi t / T_{\max})}{2}

    Args:
        lr: initial learning rate :math:`\gamma`.
        T_max: steps down.
        eta_min: the least learning rate.
        last_epoch: the step before the first.

    Source: ``torch.optim.lr_scheduler.CosineAnnealingLR``; Loshchilov and Hutter (2017).
    """

    lr: Number
    T_max: int
    eta_min: Number = 0.0
    last_epoch: int = -1

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        return self.eta_min + (self.lr - self.eta_min) * self._factor(step, x, xp)

    def _factor(self, step: Any, x: Any, xp: Any) -> Any:
        within = (step % (2 * self.T_max)).astype(x.dtype)
        return (1 + xp.cos(math.pi * within / self.T_max)) / 2


@dataclass(frozen=True)
class CosineAnnealingWarmRestarts(Schedule):
    """Half a cosine from ``lr`` to ``eta_min``, again and again, each ``T_mult`` times as long.

    Args:
        lr: learning rate at each start.
        T_0: steps of the first descent.
        T_mult: how many times longer the next is.
        eta_min: the least learning rate.
        last_epoch: the step before the first.

    Raises:
        ValueError: ``T_0`` or ``T_mult`` is not a positive integer, or ``eta_min`` is no number.

    Source: ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``; Loshchilov and Hutter (2017).
    """

    lr: Number
    T_0: int
    T_mult: int = 1
    eta_min: Number = 0.0
    last_epoch: int = -1

    def __post_init__(self) -> None:
        for name in ("T_0", "T_mult"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ArgumentError(
                    f"CosineAnnealingWarmRestarts: {name} must be a positive integer, got {getattr(self, name)}"
                )
        if not isinstance(self.eta_min, float | int):
            raise ArgumentError(f"CosineAnnealingWarmRestarts: eta_min must be a number, got {self.eta_min!r}")

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        if self.T_mult == 1:
            begin, length = step // self.T_0 * self.T_0, self.T_0
        else:
            # Every restart that an int32 can count to.
            lengths, begins = [self.T_0], [0]
            while begins[-1] + lengths[-1] < 2**31:
                begins.append(begins[-1] + lengths[-1])
                lengths.append(lengths[-1] * self.T_mult)
            place = count_reached(begins, step, xp) - 1
            begin, length = xp.asarray(begins, step.dtype)[place], xp.asarray(lengths, x.dtype)[place]
        gone = (step - begin).astype(x.dtype) / length
        return self.eta_min + (self.lr - self.eta_min) * (1 + xp.cos(math.pi * gone)) / 2


@dataclass(frozen=True)
class CyclicLR(Schedule):
    """Up in a straight line and down again, the peaks constant, halving or decaying.

    The momentum goes the other way: ``SGD(lr=cyclic, momentum=cyclic.momentum)``,
    ``Adam(lr=cyclic, betas=(cyclic.momentum, 0.999))``.

    Args:
        base_lr: learning rate at the bottom.
        max_lr: at the first peak.
        step_size_up: steps up.
        step_size_down: steps down, as many unless given.
        mode: ``"triangular"``, ``"triangular2"`` (each peak half as high) or ``"exp_range"`` (``gamma ** step``).
        gamma: of ``"exp_range"``.
        scale_fn: another function for the peaks; ``mode`` is then ignored. Its argument is an array while tracing.
        scale_mode: whether ``scale_fn`` is given the ``"cycle"``, from 1, or the count of ``"iterations"``.
        cycle_momentum: whether there is a ``momentum``.
        base_momentum: the least momentum, at the peak.
        max_momentum: the greatest.
        last_epoch: the step before the first.

    Raises:
        ValueError: ``mode`` is unknown and there is no ``scale_fn``.

    Source: ``torch.optim.lr_scheduler.CyclicLR``; Smith (2017).
    """

    base_lr: Number
    max_lr: Number
    step_size_up: int = 2000
    step_size_down: int | None = None
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: Number = 1.0
    scale_fn: Callable[[Any], Any] | None = None
    scale_mode: Literal["cycle", "iterations"] = "cycle"
    cycle_momentum: bool = True
    base_momentum: Number = 0.8
    max_momentum: Number = 0.9
    last_epoch: int = -1

    def __post_init__(self) -> None:
        if self.mode not in ("triangular", "triangular2", "exp_range") and self.scale_fn is None:
            raise ArgumentError(
                f"CyclicLR: without scale_fn mode must be triangular, triangular2 or exp_range, got {self.mode!r}"
            )

    @property
    def momentum(self) -> Schedule:
        """The momentum that goes with it."""
        if not self.cycle_momentum:
            raise ArgumentError("CyclicLR: momentum needs cycle_momentum=True")
        return _Momentum(self)

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        return self.base_lr + (self.max_lr - self.base_lr) * self._height(step, x, xp)

    def _momentum(self, step: Any, x: Any, xp: Any) -> Any:
        return self.max_momentum - (self.max_momentum - self.base_momentum) * self._height(step, x, xp)

    def _height(self, step: Any, x: Any, xp: Any) -> Any:
        up = self.step_size_up
        total = up + (up if self.step_size_down is None else self.step_size_down)
        # Whole steps where they are whole: a float32 count divided by the period loses the place within it.
        whole = float(total).is_integer()
        cycle, gone = (step // int(total), step % int(total)) if whole else (x // total, x % total)
        cycle, gone = (1 + cycle).astype(x.dtype), gone.astype(x.dtype)
        # Without steps up, or down, the slope that is not taken must not divide by zero.
        ramp = xp.where(gone <= up, gone / (up or 1), (total - gone) / ((total - up) or 1))
        if self.scale_fn is not None:
            scale = own_function(self.scale_fn, cycle if self.scale_mode == "cycle" else x)
        elif self.mode == "triangular":
            scale = 1.0
        else:
            scale = power(0.5, cycle - 1, xp) if self.mode == "triangular2" else power(self.gamma, x, xp)
        return ramp * scale


@dataclass(frozen=True)
class OneCycleLR(Schedule):
    """One rise to ``max_lr`` and one fall far below where it began.

    The momentum goes the other way: ``SGD(lr=cycle, momentum=cycle.momentum)``,
    ``Adam(lr=cycle, betas=(cycle.momentum, 0.999))``. A step after the last is refused, and NaN while tracing.

    Args:
        max_lr: learning rate at the peak.
        total_steps: of the cycle; or ``epochs`` and ``steps_per_epoch``.
        epochs: how many.
        steps_per_epoch: how many.
        pct_start: share of the cycle that rises.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum: whether there is a ``momentum``.
        base_momentum: the least momentum, at the peak.
        max_momentum: the greatest.
        div_factor: ``max_lr`` over the first learning rate.
        final_div_factor: the first learning rate over the last.
        three_phase: fall back to where it began as fast as it rose, then to the last.
        last_epoch: the step before the first.

    Raises:
        ValueError: a number is not what it must be, or the step is after the last.

    Source: ``torch.optim.lr_scheduler.OneCycleLR``; Smith and Topin (2019).
    """

    max_lr: Number
    total_steps: int | None = None
    epochs: int | None = None
    steps_per_epoch: int | None = None
    pct_start: Number = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = True
    base_momentum: Number = 0.85
    max_momentum: Number = 0.95
    div_factor: Number = 25.0
    final_div_factor: Number = 1e4
    three_phase: bool = False
    last_epoch: int = -1

    def __post_init__(self) -> None:
        if self.total_steps is None and (self.epochs is None or self.steps_per_epoch is None):
            raise ArgumentError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
        names = ("total_steps",) if self.total_steps is not None else ("epochs", "steps_per_epoch")
        for name in names:
            if not isinstance(getattr(self, name), int) or getattr(self, name) <= 0:
                raise ArgumentError(f"OneCycleLR: {name} must be a positive integer, got {getattr(self, name)}")
        if not isinstance(self.pct_start, float) or not 0 <= self.pct_start <= 1:
            raise ArgumentError(f"OneCycleLR: pct_start must be a float between 0 and 1, got {self.pct_start}")
        if self.anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', got {self.anneal_strategy!r}")

    @property
    def momentum(self) -> Schedule:
        """The momentum that goes with it."""
        if not self.cycle_momentum:
            raise ArgumentError("OneCycleLR: momentum needs cycle_momentum=True")
        return _Momentum(self)

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        first = self.max_lr / self.div_factor
        last = first / self.final_div_factor
        return self._along((first, self.max_lr, first, last) if self.three_phase else (first, self.max_lr, last), x, xp)

    def _momentum(self, step: Any, x: Any, xp: Any) -> Any:
        high, low = self.max_momentum, self.base_momentum
        return self._along((high, low, high, high) if self.three_phase else (high, low, high), x, xp)

    def _along(self, values: tuple[Number, ...], x: Any, xp: Any) -> Any:
        steps = self.total_steps or (self.epochs or 0) * (self.steps_per_epoch or 0)
        turn = float(self.pct_start * steps)
        ends = [turn - 1, *([2 * turn - 2] if self.three_phase else []), steps - 1]
        if xp is np and x > steps:
            raise ArgumentError(f"OneCycleLR: step {int(x)} is after the last of {steps}")
        result = xp.where(x > steps, math.nan, 0.0)
        begins = [0.0, *ends[:-1]]
        legs = list(zip(begins, ends, values[:-1], values[1:], strict=True))
        leg_value = result
        for i, (begin, end, start, stop) in reversed(list(enumerate(legs))):
            gone = (x - begin) / ((end - begin) or 1)
            share = (1 + xp.cos(math.pi * gone)) / 2 if self.anneal_strategy == "cos" else 1 - gone
            value = stop + (start - stop) * share
            leg_value = value if i == len(legs) - 1 else xp.where(x <= end, value, leg_value)
        return leg_value + result


@dataclass(frozen=True)
class _Momentum(Schedule):
    """The momentum beside a cycle's learning rate."""

    cycle: CyclicLR | OneCycleLR

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        return self.cycle.last_epoch

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        return self.cycle._momentum(step, x, xp)
