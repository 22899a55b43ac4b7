"""The mistake in an optimizer that explains why two training runs part.

Torch's run is repeated with the optimizer changed in one way at a time; a change explains the port where it gives the
port's parameters.
"""

import time
from collections.abc import Callable, Iterator
from itertools import chain, takewhile

import numpy as np

from parity.checking.diagnosis.stepping import Notes, Suggestion, around, bare, clipped, lines, scaled, suggestions
from parity.checking.runs import Parting, Step, Stepping

Rerun = Callable[[Stepping, int], list[Step]]
"""Torch's run from its beginning, so many steps of it, with another way to step."""

EXPLAINED = 0.02
"""A mistake explains a run if with it no more than this part of the difference is left."""

MOST = 0.7
"""So large a part of the tensors that differ is to be explained."""

VISIBLE = 3e-6
"""Tensors that differ by less, relative to their size, say little of why."""

SECONDS = 10.0
"""The longest search, in processor time."""


def explain(parting: Parting, rerun: Rerun) -> tuple[str | None, str]:
    """The suspect and the sentence; None and an empty sentence where no change of the optimizer explains the port."""
    theirs, ours = parting.theirs[1:], parting.ours[1:]
    rounding = {name: VISIBLE * float(np.linalg.norm(x)) for name, x in theirs[0].state.items()}
    names = [name for name, size in rounding.items() if name in ours[0].state and _off(ours, theirs, name) > size]
    if not names:
        return None, ""
    steps = parting.step + len(theirs)

    def left(stepping: Stepping) -> float:
        if time.thread_time() > ends:
            return np.inf
        try:
            tried = rerun(stepping, steps)[-len(theirs) :]
        except NameError:
            raise  # ours, not torch's
        except Exception:
            return np.inf  # what torch's optimizer refuses
        parts = [max(_off(ours, tried, name) - rounding[name] / 2, 0.0) / _off(ours, theirs, name) for name in names]
        # Some are noise whatever the mistake: the gradient of a bias ahead of a normalization is rounding alone.
        return float(np.quantile(parts, MOST))

    ends = time.thread_time() + SECONDS
    notes = Notes()
    rerun(notes, steps)
    thought_of = chain(_sizes(parting, rerun, notes), suggestions(notes), _searched(notes, left))
    best: tuple[float, str, str] = (EXPLAINED, "", "")
    for suspect, sentence, stepping in takewhile(lambda _: time.thread_time() < ends, thought_of):
        found = left(stepping)
        if found < 0.5 * best[0]:
            best = found, suspect, sentence
        if best[0] < 1e-4:
            break
    _, suspect, sentence = best
    return (suspect, f"{sentence}; with it torch's run is the port's") if suspect else (None, "")


def _searched(notes: Notes, left: Callable[[Stepping], float]) -> Iterator[Suggestion]:
    """Unusual values, each found by a search along the line of its number."""
    for suspect, sentence, value, stepping in lines(notes):
        exponents = list(np.log10(value) + np.linspace(-3, 3, 13))
        scores = [left(stepping(10.0**e)) for e in exponents]
        best = int(np.argmin(scores))
        if not np.isfinite(scores[best]):
            continue
        low, high = exponents[max(best - 1, 0)], exponents[min(best + 1, len(scores) - 1)]
        for _ in range(28):
            third = (high - low) / 3
            if left(stepping(10 ** (low + third))) < left(stepping(10 ** (high - third))):
                high -= third
            else:
                low += third
        found = float(10 ** ((low + high) / 2))
        yield suspect, sentence.format(found), stepping(found)


def _off(a: list[Step], b: list[Step], name: str) -> float:
    """The distance of one tensor's path in one run from that in another."""
    off = [np.linalg.norm(x.state[name].astype(np.float64) - y.state[name]) for x, y in zip(a, b, strict=True)]
    return float(np.linalg.norm(off))


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
        return np.concatenate([(step.state[n].astype(np.float64) - before.state[n]).ravel() for n in names])

    theirs, ours = moved(step, parting.theirs[0]), moved(parting.ours[1], parting.ours[0])
    ratio = float(np.vdot(theirs, ours) / max(float(np.vdot(theirs, theirs)), 1e-300))
    alike = np.linalg.norm(ours - ratio * theirs) < 0.01 * np.linalg.norm(ours)
    return ratio if alike and abs(ratio - 1) > 1e-3 else None
