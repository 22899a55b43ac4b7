"""Schedules made of schedules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxnn.functional._argument import ArgumentError
from jaxnn.optim.lr_scheduler._base import Factor, Schedule
from jaxnn.optim.lr_scheduler.cycles import CosineAnnealingLR
from jaxnn.optim.lr_scheduler.factors import LambdaLR, MultiplicativeLR, count_reached


def _check_parts(name: str, schedulers: Any) -> None:
    if len(schedulers) < 1:
        raise ArgumentError(f"{name}: schedulers must hold at least one schedule, got none")
    for i, schedule in enumerate(schedulers):
        if hasattr(schedule, "init") and hasattr(schedule, "update"):
            raise ArgumentError(f"{name}: schedulers[{i}] is a {type(schedule).__name__}, which needs a metric")
        if not isinstance(schedule, Schedule):
            raise TypeError(f"{name}: schedulers[{i}] must be one of these schedules, got {type(schedule).__name__}")


@dataclass(frozen=True)
class SequentialLR(Schedule):
    """One schedule after another, each counting from its milestone.

    Args:
        schedulers: the schedules, in order.
        milestones: the step at which each but the first begins.
        last_epoch: the step before the first.

    Raises:
        ValueError: there are no schedules, or not one milestone fewer; one needs a metric, or is a
            :class:`MultiplicativeLR` that would go on from another's last value.

    Source: ``torch.optim.lr_scheduler.SequentialLR``.
    """

    schedulers: Sequence[Schedule]
    milestones: Sequence[int]
    last_epoch: int = -1

    def __post_init__(self) -> None:
        _check_parts("SequentialLR", self.schedulers)
        if len(self.milestones) != len(self.schedulers) - 1:
            raise ArgumentError(
                f"SequentialLR: milestones must be one fewer than schedulers, got {len(self.milestones)} and "
                f"{len(self.schedulers)}"
            )
        if any(isinstance(schedule, MultiplicativeLR) for schedule in self.schedulers[1:]):
            raise ArgumentError("SequentialLR: a MultiplicativeLR has no value of its own and may only come first")

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        place = count_reached(self.milestones, step, xp) if self.milestones else 0
        value = None
        for i, (begin, schedule) in enumerate(zip([0, *self.milestones], self.schedulers, strict=True)):
            # Held within its own stretch, where a schedule with an end is defined.
            end = self.milestones[i] if i < len(self.milestones) else None
            local = xp.clip(step - begin, 0, None if end is None else max(end - begin, 0))
            own = schedule._value(local, local.astype(x.dtype), xp)
            value = own if value is None else xp.where(place >= i, own, value)
        return value


@dataclass(frozen=True)
class ChainedScheduler(Schedule):
    """Several schedules at once, the factor of each applied to the learning rate the one before it left.

    A schedule that sets the learning rate outright (:class:`LambdaLR`, :class:`CyclicLR`, :class:`OneCycleLR`,
    :class:`CosineAnnealingWarmRestarts`) wipes out those before it at every step, so that of those after it only the
    change since the last step is seen. That is torch's behaviour.

    Args:
        schedulers: the schedules, in order; the first one's learning rate is where they begin.

    Raises:
        ValueError: there are no schedules, one needs a metric, or several stand with a :class:`CosineAnnealingLR` that
            has an ``eta_min``, whose steps then depend on all steps before.

    Source: ``torch.optim.lr_scheduler.ChainedScheduler``.
    """

    schedulers: Sequence[Schedule]

    def __post_init__(self) -> None:
        _check_parts("ChainedScheduler", self.schedulers)
        if len(self.schedulers) > 1:
            for schedule in self.schedulers:
                if isinstance(schedule, CosineAnnealingLR) and schedule.eta_min != 0:
                    raise ArgumentError(
                        f"ChainedScheduler: CosineAnnealingLR must have eta_min 0 in a chain, got {schedule.eta_min}"
                    )
                if isinstance(schedule, ChainedScheduler | SequentialLR):
                    raise ArgumentError(f"ChainedScheduler: schedulers must not hold a {type(schedule).__name__}")

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """That of the first schedule."""
        return self.schedulers[0].last_epoch

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        first, *rest = self.schedulers
        value = first._value(step, x, xp)
        wiped = not _multiplies(first)
        for schedule in rest:
            if not _multiplies(schedule):
                value, wiped = schedule._value(step, x, xp), True
                continue
            assert isinstance(schedule, Factor)
            factor = schedule._factor(step, x, xp)
            if wiped:
                before = schedule._factor(xp.maximum(step - 1, 0), xp.maximum(x - 1, 0), xp)
                # A factor that has reached zero stays there, and so does what it multiplies.
                ratio = xp.where(before == 0, 1.0, factor / xp.where(before == 0, 1.0, before))
                factor = xp.where(step == 0, factor, ratio)
            value = value * factor
        return value


def _multiplies(schedule: Schedule) -> bool:
    return isinstance(schedule, Factor) and not isinstance(schedule, LambdaLR)
