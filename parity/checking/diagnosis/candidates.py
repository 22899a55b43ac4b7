"""Mistakes worth a try for a layer, each tried."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from parity.checking.alignment import distance
from parity.checking.diagnosis import attributes, constants, precision, wiring
from parity.checking.diagnosis.alike import alike
from parity.checking.diagnosis.attention import masked_late
from parity.checking.diagnosis.calls import Call, Experiment
from parity.checking.diagnosis.choosing import chosen
from parity.checking.diagnosis.elementwise import exchanged, reduced_along
from parity.checking.diagnosis.mutations import mutations
from parity.checking.diagnosis.numbers import Number, named_numbers, numbers_of_arithmetic, searched
from parity.checking.diagnosis.products import turned
from parity.checking.diagnosis.rearrangement import counted
from parity.checking.diagnosis.rotary import regrouped, unturned
from parity.checking.diagnosis.sums import scaled

NOISE = 3e-6
"""A difference this small, relative to the output, may be rounding."""

UNFIT = (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError)
"""What a mistake thought of for other arguments raises; anything else is a mistake of this package."""

SECONDS = 20.0
"""The longest search for one layer's mistake, in processor time: a busy machine finds what an idle one does."""

CERTAIN = 0.01
"""What many numbers were sought for is to leave no more than this part of the difference."""

LONG = 100
"""In layers of more calls no line is searched for each number of the arithmetic."""

Outputs = dict[str, np.ndarray]


@dataclass
class Explanation:
    """A mistake, and how well it explains.

    Attributes:
        suspect: the kind of mistake.
        sentence: the mistake in words.
        left: distance of the port's output from torch's with this mistake.
    """

    suspect: str
    sentence: str
    left: float


def candidates(experiment: Experiment, twin: Any, ours: Outputs, before: float, *, many: bool) -> Iterator[Explanation]:
    """Mistakes tried, with what each leaves of the difference; those that leave all of it are left out."""
    ends = time.thread_time() + SECONDS

    def measured(run: Callable[[], Outputs]) -> float:
        return left_by(ours, run)

    calls = experiment.calls()
    for call in reversed(calls) if len(calls) > 40 else calls:
        for suspect, sentence, mutate in possible(mutations(call)):
            left = measured(lambda m=mutate, c=call: experiment.outputs({c.index: m}))
            if left < before:
                yield Explanation(suspect, f"{experiment.place(call)}{sentence}", left)
            if time.thread_time() > ends:
                return
        if many:  # along a line any single number is met
            yield from _numbers(named_numbers, [call], experiment, measured, before, ends)
    of_many = (masked_late, regrouped, unturned, exchanged, chosen, alike, reduced_along, counted, turned, scaled)
    for suspect, sentence, mutated in chain.from_iterable(possible(mistakes(calls)) for mistakes in of_many):
        left = measured(lambda m=mutated: experiment.outputs(m))
        if left < before:
            yield Explanation(suspect, sentence, left)
        if time.thread_time() > ends:
            return
    for suspect, sentence, run in chain(
        possible(wiring.mutations(experiment)),
        precision.mutations(experiment),
        _modes(experiment),
        possible(attributes.mutations(experiment, twin)),
    ):
        left = measured(run)
        if time.thread_time() > ends:
            return
        if left < before:
            yield Explanation(suspect, sentence, left)
    if not many or len(calls) > LONG:
        return
    yield from _numbers(numbers_of_arithmetic, calls, experiment, measured, before, ends)
    for suspect, sentence, mutated in possible(constants.fitted(experiment, ours)):
        left = measured(lambda m=mutated: experiment.outputs(m))
        if left <= CERTAIN * before:
            yield Explanation(suspect, sentence, left)
        if time.thread_time() > ends:
            return


def left_by(ours: Outputs, run: Callable[[], Outputs]) -> float:
    """How far the port's outputs are from what ``run`` gives; infinitely far where that raises."""
    try:
        return apart(ours, run())
    except NameError:
        raise  # ours, not torch's
    except Exception:
        return np.inf  # a mistake that torch, or the model's code behind it, refuses to make


def of_many_numbers(ours: Outputs, theirs: Outputs, before: float) -> bool:
    """Whether an output of more than one number is wrong."""
    least = min(before, NOISE)
    return any(x.size > 1 and distance(ours[name], x) >= least for name, x in theirs.items() if name in ours)


def possible(mistakes: Iterator[Any]) -> Iterator[Any]:
    """As many of them as can be put together: a call unlike what was thought of ends the list, not the check."""
    try:
        yield from mistakes
    except UNFIT:
        return


def _modes(experiment: Experiment) -> Iterator[tuple[str, str, Callable[[], Outputs]]]:
    now = experiment.layer.training
    words = ("training", "evaluation") if now else ("evaluation", "training")
    said = f"torch's layer is in {words[0]} mode, the port's works as in {words[1]} mode"
    yield "train for eval mode", said, lambda: experiment.outputs(change=lambda layer: layer.train(not now))
    for flag, suspect in (("norm_first", "order of normalization"), ("batch_first", "swapped axes")):
        if isinstance(getattr(experiment.layer, flag, None), bool):
            value = getattr(experiment.layer, flag)
            said = f"{flag} is as if {not value}, torch's is {value}"
            yield (
                suspect,
                said,
                lambda f=flag, v=value: experiment.outputs(change=lambda layer: setattr(layer, f, not v)),
            )


def _numbers(
    of: Callable[[Call], Iterator[Number]],
    calls: list[Call],
    experiment: Experiment,
    measured: Callable[[Callable[[], Outputs]], float],
    before: float,
    ends: float,
) -> Iterator[Explanation]:
    """Numbers in these calls that may be any."""
    for call in calls:
        for number in of(call):
            if time.thread_time() > ends:
                return
            said, left = searched(
                number, lambda mutate, c=call: measured(lambda: experiment.outputs({c.index: mutate})), before
            )
            if left < before:
                yield Explanation(number.suspect, f"{experiment.place(call)}{said}", left)


def apart(ours: Outputs, theirs: Outputs) -> float:
    """The largest distance of any output from its twin."""
    return max((distance(ours[name], theirs[name]) for name in theirs if name in ours), default=np.inf)
