"""The mistake in an optimizer that explains why two training runs part.

Torch's run is repeated with the optimizer changed in one way at a time; a change explains the port where it gives the
port's parameters.
"""

import time
from collections.abc import Callable, Iterator
from itertools import chain, takewhile

import numpy as np

from parity.checking.diagnosis.stepping import (
    Line,
    Notes,
    Suggestion,
    around,
    as_it_is,
    bare,
    clipped,
    lines,
    scaled,
    suggestions,
)
from parity.checking.diagnosis.threads import as_many_as_help
from parity.checking.runs import Parting, Step, Stepping

Rerun = Callable[[Stepping, int], list[Step]]
"""Torch's run from its beginning, so many steps of it, with another way to step."""

EXPLAINED = 0.02
"""A mistake explains a run if with it no more than this part of the difference is left."""

MOST = 0.7
"""So large a part of the tensors that differ is to be explained."""

VISIBLE = 3e-6
"""Tensors that differ by less, relative to their size, say little of why."""

SECONDS = 20.0
"""The longest search, in processor time."""


class _Trial:
    """Torch's run with something changed, and how far from the port that leads."""

    def __init__(self, parting: Parting, rerun: Rerun) -> None:
        self.rerun = rerun
        self.theirs, self.ours = parting.theirs[1:], parting.ours[1:]
        self.steps = parting.step + len(self.theirs)
        self.ends = time.thread_time() + SECONDS
        rounding = {name: VISIBLE * float(np.linalg.norm(x)) for name, x in self.theirs[0].state.items()}
        apart = {name: _off(self.ours, self.theirs, name) for name in rounding if name in self.ours[0].state}
        self.apart = {name: off for name, off in apart.items() if off > rounding[name]}
        self.rounding = rounding

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.thread_time() > self.ends

    def run(self, stepping: Stepping) -> list[Step] | None:
        """The steps from where the runs part; None where torch's optimizer refuses, or the time is up."""
        if self.late:
            return None
        try:
            return self.rerun(stepping, self.steps)[-len(self.theirs) :]
        except NameError:
            raise  # ours, not torch's
        except Exception:
            return None

    def left(self, tried: list[Step] | None) -> float:
        """The part of the difference that is left."""
        if tried is None:
            return np.inf
        parts = [
            max(_off(self.ours, tried, name) - self.rounding[name] / 2, 0.0) / off for name, off in self.apart.items()
        ]
        # Some are noise whatever the mistake: the gradient of a bias ahead of a normalization is rounding alone.
        return float(np.quantile(parts, MOST))

    def away(self, tried: list[Step]) -> np.ndarray:
        """The way from a run to the port's, each tensor's in parts of the difference there was."""
        pieces = [
            (_exact(ours.state[name]) - _exact(step.state[name])).ravel() / off
            for name, off in self.apart.items()
            for ours, step in zip(self.ours, tried, strict=True)
        ]
        return np.concatenate(pieces)


def explain(parting: Parting, rerun: Rerun) -> tuple[str | None, str]:
    """The suspect and the sentence; None and an empty sentence where no change of the optimizer explains the port."""
    trial = _Trial(parting, rerun)
    if not trial.apart:
        return None, ""
    notes = Notes()
    rerun(notes, trial.steps)
    best: tuple[float, str, str] = (EXPLAINED, "", "")
    with as_many_as_help(lambda: trial.run(as_it_is)):
        thought_of = chain(_sizes(parting, rerun, notes), suggestions(notes), _near(notes, trial), _far(notes, trial))
        for suspect, sentence, stepping in takewhile(lambda _: not trial.late, thought_of):
            found = trial.left(trial.run(stepping))
            if found < 0.5 * best[0]:
                best = found, suspect, sentence
            if best[0] < 1e-4:
                break
    _, suspect, sentence = best
    return (suspect, f"{sentence}; with it torch's run is the port's") if suspect else (None, "")


def _near(notes: Notes, trial: _Trial) -> Iterator[Suggestion]:
    """Unusual values not far from torch's own."""
    for line in lines(notes):
        yield from _along(line, trial, float(np.log10(line.value)))


def _far(notes: Notes, trial: _Trial) -> Iterator[Suggestion]:
    """Unusual values of any size."""
    for line in lines(notes):
        exponents = np.log10(line.value) + np.linspace(-3, 3, 13)
        scores = [trial.left(trial.run(line.stepping(10.0**e))) for e in exponents]
        yield from _along(line, trial, float(exponents[int(np.argmin(scores))]))


def _along(line: Line, trial: _Trial, exponent: float) -> Iterator[Suggestion]:
    """The value at which the port is nearest, by Newton's method for least squares from a power of ten."""
    other = exponent + 0.02
    here, there = (trial.run(line.stepping(10.0**e)) for e in (exponent, other))
    for _ in range(8):
        if here is None or there is None or exponent == other:
            return
        slope = (trial.away(here) - trial.away(there)) / (other - exponent)
        way = trial.away(there)
        step = float(np.vdot(slope, way)) / max(float(np.vdot(slope, slope)), 1e-300)
        if np.linalg.norm(way - step * slope) > 0.9 * np.linalg.norm(way) and trial.left(there) > 0.1:
            return  # another mistake: no value on this line leads there
        exponent, here, other = other, there, other + float(np.clip(step, -0.5, 0.5))
        there = trial.run(line.stepping(10.0**other))
        if trial.left(there) < 1e-5:
            break
    found = 10.0**other
    yield line.suspect, line.sentence.format(found), line.stepping(found)


def _off(a: list[Step], b: list[Step], name: str) -> float:
    """The distance of one tensor's path in one run from that in another."""
    off = [np.linalg.norm(_exact(x.state[name]) - _exact(y.state[name])) for x, y in zip(a, b, strict=True)]
    return float(np.linalg.norm(off))


def _exact(x: np.ndarray) -> np.ndarray:
    """In float64, real and imaginary parts side by side."""
    parts = np.stack([x.real, x.imag]) if np.iscomplexobj(x) else x
    return parts.astype(np.float64)


def _sizes(parting: Parting, rerun: Rerun, notes: Notes) -> Iterator[Suggestion]:
    """What the size of the port's first wrong update says: a learning rate, or a norm that gradients are cut to."""
    ratio = _ratio(parting, parting.theirs[1])
    if ratio is None:
        return
    times = f"the port's update is torch's times {ratio:.4g}"
    plain = _ratio(parting, rerun(bare, parting.step + 1)[-1])
    if plain is not None and 0 < plain < 1:
        bound = plain * notes.norms[parting.step]
        theirs = f"torch's otherwise ({times})" if around(notes.optimizer) else "torch's are not"
        yield "clipping", f"gradients are as if cut to a norm of {bound:.4g}, {theirs}", clipped(bound)
    yield "learning rate", f"{times} (a learning rate or its like)", scaled(ratio)


def _ratio(parting: Parting, step: Step) -> float | None:
    """How many times as far as in this step of torch the port moves; None where it goes elsewhere."""
    names = [name for name in parting.failed if name in step.state]
    if not names:
        return None

    def moved(step: Step, before: Step) -> np.ndarray:
        return np.concatenate([(_exact(step.state[n]) - _exact(before.state[n])).ravel() for n in names])

    theirs, ours = moved(step, parting.theirs[0]), moved(parting.ours[1], parting.ours[0])
    ratio = float(np.vdot(theirs, ours) / max(float(np.vdot(theirs, theirs)), 1e-300))
    alike = np.linalg.norm(ours - ratio * theirs) < 0.01 * np.linalg.norm(ours)
    return ratio if alike and abs(ratio - 1) > 1e-3 else None
