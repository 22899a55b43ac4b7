"""Verdicts on a whole pass, and on one layer of it."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from parity.checking.alignment import distance, identical
from parity.checking.evaluation import Evaluation, TorchSide
from parity.checking.sampling import explained_by_sample
from parity.comparison import FACTOR, Comparison, compare, largest

CLOSE = 4.0
"""A layer's output this near torch's, in machine epsilons of its norm, passes without a look at the truth: so much is
always allowed."""


@dataclass
class Verdict:
    """Whether a layer passed, and the comparison that says so."""

    passed: bool = True
    reason: str = ""
    allowed: float | None = None
    row: Comparison | None = None


def judged(side: TorchSide, jax_side: Evaluation, factor: float = FACTOR, floor: float = 4.0) -> list[Comparison]:
    """A row for every output, gradient and buffer of the torch side that JAX has too.

    An output that JAX lacks fails.
    """
    truth = side.exact()
    around: tuple[Evaluation, Evaluation] | None = None
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
            exact = getattr(truth, part)[name]
            row = compare(name, found[name], value, exact, kind=kind, factor=factor, floor=floor)
            if not row.passed and np.isfinite(row.jax_error):
                # What torch's own error does not explain, the inputs' rounding may.
                around = around or side.neighbours()
                near, far = (getattr(evaluation, part)[name] for evaluation in around)
                row = compare(
                    name, found[name], value, exact, kind=kind, neighbours=(near, far), factor=factor, floor=floor
                )
            rows.append(row)
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
    if not a.size or identical(a, b):
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
    side: TorchSide | None, outputs: dict[str, np.ndarray], buffers: dict[str, np.ndarray], factor: float = FACTOR
) -> Verdict:
    """The verdict on one layer's outputs and statistics.

    Args:
        side: torch's layer alone; where it is None nothing can be said, and the layer passes.
        outputs: the port's, in torch's layout, by torch's names.
        buffers: the port's statistics behind the call; what it keeps under other names is not compared.
        factor: how many times the error that rounding explains passes.
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
    around: tuple[Evaluation, Evaluation] | None = None
    verdict = Verdict()
    for kind, part, found in (("output", "outputs", outputs), ("buffer", "buffers", buffers)):
        for name, value in getattr(side.single, part).items():
            if name not in found:
                continue
            exact = getattr(truth, part)[name]
            row = compare(name, found[name], value, exact, kind=kind, factor=factor, in_ulps=False)
            if not row.passed and np.isfinite(row.jax_error):
                around = around or side.neighbours()
                neighbours = (getattr(around[0], part)[name], getattr(around[1], part)[name])
                row = compare(name, found[name], value, exact, kind=kind, neighbours=neighbours, factor=factor)
            verdict.allowed = max(verdict.allowed or 0.0, row.allowed)
            if not row.passed:
                return Verdict(False, f"its {kind} is off: {row.reason}", row.allowed, row)
    return verdict
