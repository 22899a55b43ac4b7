"""Verdicts on a whole pass, and on one layer of it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from parity.checking.alignment import distance, identical
from parity.checking.evaluation import Evaluation, TorchSide
from parity.checking.sampling import explained_by_sample
from parity.checking.scatter import Scatter
from parity.comparison import FACTOR, FAR, Comparison, compare, largest

CLOSE = 4.0
"""A layer's output this near torch's, in machine epsilons of its norm, passes without a look at the truth: so much is
always allowed."""

PASSES = 4
"""So often a pass is rounded by chance before a gradient is called wrong."""


@dataclass
class Verdict:
    """Whether a layer passed, and the comparison that says so; without one where it was not compared."""

    passed: bool = True
    reason: str = ""
    allowed: float | None = None
    row: Comparison | None = None
    compared: bool = True


class _Surroundings:
    """The truth of one pass, and what rounding makes of its inputs and weights; the costlier is computed when the
    cheaper does not clear a result."""

    def __init__(self, side: TorchSide, truth: Evaluation, scatter: Callable[[], Scatter] | None = None) -> None:
        self.side = side
        self.truth = truth
        self.witness = cache(self._witness)
        self.neighbour = cache(side.neighbour)
        self.rounded = cache(self._rounded)
        self.scatter = cache(scatter) if scatter is not None else None

    def _witness(self) -> Evaluation | None:
        try:
            return self.side.witness()
        except (RuntimeError, ValueError):  # a probability of 1 must not be moved up
            return None

    def _rounded(self) -> list[Evaluation]:
        passes = []
        for seed in range(PASSES):
            with suppress(RuntimeError, ValueError):  # nor a probability be rounded up to more than 1
                passes.append(self.side.rounded(seed))
        return passes

    def judged(self, part: str, name: str, found: np.ndarray, **options: Any) -> Comparison:
        """The verdict on one tensor, ``name`` of the pass's ``part``."""

        def of(evaluation: Evaluation) -> np.ndarray:
            return getattr(evaluation, part)[name]

        theirs, exact = of(self.side.single), of(self.truth)
        row = compare(name, found, theirs, exact, **options)
        # What torch's own error does not explain, the inputs' rounding may.
        if not row.passed and np.isfinite(row.jax_error) and (witness := self.witness()) is not None:
            row = compare(name, found, theirs, exact, witnesses=[of(witness)], **options)
        if not row.passed and np.isfinite(row.jax_error):
            options["neighbours"] = [of(self.neighbour(1.0))]
            row = compare(name, found, theirs, exact, **options)
            if not row.passed:
                options["neighbours"].append(of(self.neighbour(FAR)))
                row = compare(name, found, theirs, exact, **options)
            if not row.passed and part.endswith("gradients"):
                # Torch's terms may have cancelled to a zero, where another order of them leaves what was rounded off.
                options["witnesses"] = [of(each) for each in self.rounded()]
                row = compare(name, found, theirs, exact, **options)
            if not row.passed and self.scatter is not None:
                options["scatter"] = self.scatter().of(part, name, found.astype(exact.dtype) - exact)
                row = compare(name, found, theirs, exact, **options)
        return row


def judged(
    side: TorchSide,
    jax_side: Evaluation,
    factor: float = FACTOR,
    floor: float = 4.0,
    scatter: Callable[[], Scatter] | None = None,
) -> list[Comparison]:
    """A row for every output, gradient and buffer of the torch side that JAX has too.

    An output that JAX lacks fails. ``scatter`` is asked for what explains a result of few numbers.
    """
    surroundings = _Surroundings(side, side.exact(), scatter)
    rows = []
    for kind, part in (
        ("output", "outputs"),
        ("gradient", "parameter_gradients"),
        ("gradient", "input_gradients"),
        ("buffer", "buffers"),
    ):
        found = getattr(jax_side, part)
        for name, value in getattr(side.single, part).items():
            if name not in found:
                # A port may keep its arrays otherwise; an output it must have.
                if kind == "output":
                    rows.append(missing(kind, name, value.shape))
                continue
            rows.append(surroundings.judged(part, name, found[name], kind=kind, factor=factor, floor=floor))
    extra = len(jax_side.outputs) - len(side.single.outputs)
    if extra > 0:
        reason = f"JAX returns {extra} more arrays than torch"
        rows.append(refused("output", "outputs", (), reason))
    return rows


def refused(kind: str, name: str, shape: tuple[int, ...], reason: str) -> Comparison:
    """A failure that has no numbers."""
    return Comparison(kind, name, shape, np.inf, 0.0, np.inf, 0.0, False, reason)


def missing(kind: str, name: str, shape: tuple[int, ...]) -> Comparison:
    """The failure of a tensor that JAX lacks."""
    return refused(kind, name, shape, "JAX has none of this name")


def near_enough(a: np.ndarray | None, b: np.ndarray, off: float | None = None) -> bool:
    """Whether ``a`` is so near torch's ``b`` that it passes without a look at the truth; ``off`` is their distance
    where it is known."""
    if a is None or a.shape != b.shape:
        return False
    if a.dtype != b.dtype:
        return a.dtype.kind in "iu" and b.dtype.kind in "iu" and np.array_equal(a, b)
    if a.dtype.kind not in "fcV":
        return np.array_equal(a, b)
    if not a.size or off == 0 or (off is None and identical(a, b)):
        return True
    eps = float((np if np.iscomplexobj(b) else ml_dtypes).finfo(b.dtype).eps)
    if (distance(a, b) if off is None else off) > CLOSE * eps:
        return False
    if a.dtype not in (np.float32, np.float64, np.complex64, np.complex128):
        a, b = a.astype(np.float32), b.astype(np.float32)
    off = largest(a - b)
    if np.isnan(off):
        return np.array_equal(a, b, equal_nan=True)  # else the slow way looks where it stands
    return off <= CLOSE * eps * largest(b)


def verdict_on(
    side: TorchSide | None,
    outputs: dict[str, np.ndarray],
    buffers: dict[str, np.ndarray],
    factor: float = FACTOR,
    scatter: Callable[[], Scatter] | None = None,
) -> Verdict:
    """The verdict on one layer's outputs and statistics.

    Args:
        side: torch's layer alone; where it is None nothing can be said, and the layer passes.
        outputs: the port's, in torch's layout, by torch's names.
        buffers: the port's statistics behind the call; what it keeps under other names is not compared.
        factor: how many times the error that rounding explains passes.
        scatter: of results of few numbers.
    """
    if side is None:
        return Verdict()
    allowed = explained_by_sample(side, outputs, factor) if outputs and not buffers else None
    if allowed is not None:
        return Verdict(allowed=allowed)
    try:
        truth = side.exact()
    except Exception:  # a layer that torch has in its own dtype only
        return Verdict()
    surroundings = _Surroundings(side, truth, scatter)
    verdict = Verdict()
    for kind, part, found in (("output", "outputs", outputs), ("buffer", "buffers", buffers)):
        for name in getattr(side.single, part):
            if name not in found:
                continue
            row = surroundings.judged(part, name, found[name], kind=kind, factor=factor, in_ulps=False)
            verdict.allowed = max(verdict.allowed or 0.0, row.allowed)
            if not row.passed:
                return Verdict(False, f"its {kind} is off: {row.reason}", row.allowed, row)
    return verdict
