"""Interleaved timing: what is compared runs in turn, so that a busy machine slows all alike."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLED = 1000

SETTLED = 0.01
"""Seconds after which a contender's worker threads sleep: torch's spin for 8 ms, on a core that the next one needs."""


@dataclass(frozen=True)
class Timing:
    """Seconds of each contender, a row a round.

    Attributes:
        seconds: ``(rounds, contenders)``.
    """

    seconds: np.ndarray

    def median(self, contender: int) -> float:
        """Seconds of one call, at the median."""
        return float(np.median(self.seconds[:, contender]))

    def ratio(self, contender: int, reference: int) -> float:
        """How many times as long ``contender`` takes: the median of the rounds' ratios."""
        return float(np.median(self._ratios(contender, reference)))

    def interval(self, contender: int, reference: int) -> tuple[float, float]:
        """Where the ratio lies with a chance of 95 %: the bootstrap's, over the rounds."""
        ratios = self._ratios(contender, reference)
        chosen = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLED, len(ratios)))
        low, high = np.quantile(np.median(ratios[chosen], axis=1), [0.025, 0.975])
        return float(low), float(high)

    def _ratios(self, contender: int, reference: int) -> np.ndarray:
        return self.seconds[:, contender] / self.seconds[:, reference]


def interleaved(
    contenders: list[Callable[[], Any]], *, seconds: float = 0.5, warmup: int = 3, most: int = 300
) -> Timing:
    """Time ``contenders`` in turn, A B B A, for about ``seconds`` each.

    Within a round each contender waits until the threads of the one before sleep, then runs untimed for as long as it
    will be timed: it finds caches as the one before left them, and its own threads asleep, and would pay for that.

    Args:
        contenders: each runs once and returns when its result is there.
        seconds: to spend on each.
        warmup: untimed calls of each at the start, which also compile; of those that take over a second, only one.
        most: rounds at the most.
    """
    took = []
    for run in contenders:
        for _ in range(warmup):
            started = time.perf_counter()
            run()
            last = time.perf_counter() - started
            if last > 1.0:
                break
        took.append(last)
    # Short calls are repeated within a round, until a millisecond has passed.
    repeats = [max(1, int(1e-3 / max(last, 1e-7))) for last in took]
    longest = max(2 * count * last for count, last in zip(repeats, took, strict=True)) + SETTLED
    rounds = int(np.clip(seconds / longest, 4, most))
    measured = np.empty((rounds, len(contenders)))
    for index in range(rounds):
        order = range(len(contenders)) if index % 2 == 0 else reversed(range(len(contenders)))
        for i in order:
            time.sleep(SETTLED)
            for _ in range(repeats[i]):
                contenders[i]()
            started = time.perf_counter()
            for _ in range(repeats[i]):
                contenders[i]()
            measured[index, i] = (time.perf_counter() - started) / repeats[i]
    return Timing(measured)
