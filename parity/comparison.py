"""Error measures and verdicts: is this float32 result as good as torch's float32 result?

Two correct float32 programs differ by rounding, so neither can judge the other. The truth is computed once with torch
in float64; a result passes when its error against that truth is within :data:`FACTOR` of what rounding explains:
torch's own error in the same dtype, or the change of the truth when the inputs move by half a unit in the last place.

The gradient of a network of relus jumps where an activation crosses zero, and rounding makes it cross: among millions
of activations some always lie that close. So the truth is also computed :data:`FAR` times as far away in the same
direction. What that differs from the linear response is the size of the jumps near by, and counts as explained too.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

FACTOR = 4.0
"""How many times the error that rounding explains a result may have."""

FAR = 16.0
"""How many half units in the last place away jumps are looked for: far enough to meet several of those rounding
meets."""


@dataclass(frozen=True)
class Comparison:
    """One tensor of the JAX side held against torch's and against the truth.

    Attributes:
        kind: ``output``, ``gradient`` and so on.
        name: what the tensor is, such as an output's or a parameter's dotted path.
        shape: of torch's tensor.
        ulps: the largest distance from torch's tensor, in units in the last place (see :func:`ulp_distance`).
        torch_error: torch's error against the truth, root mean square, relative to the truth's.
        jax_error: the same for JAX.
        allowed: the largest ``jax_error`` that would have passed.
        passed: the verdict.
        reason: why not, in a sentence; empty where it passed.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    ulps: float
    torch_error: float
    jax_error: float
    allowed: float
    passed: bool
    reason: str = ""

    def to_dict(self) -> dict[str, object]:
        """As plain data, for JSON."""
        return asdict(self)


def compare(
    name: str,
    jax_value: npt.ArrayLike,
    torch_value: npt.ArrayLike,
    truth: npt.ArrayLike,
    *,
    kind: str = "output",
    neighbours: Sequence[npt.ArrayLike] = (),
    floor: float = 4.0,
    scale: float = 0.0,
    factor: float = FACTOR,
    witnesses: Sequence[npt.ArrayLike] = (),
    scatter: npt.ArrayLike | None = None,
    in_ulps: bool = True,
) -> Comparison:
    """The verdict on one tensor.

    Two norms are judged, each against the same norm of torch's error: the root mean square, which shows a small
    systematic fault (a wrong epsilon), and the maximum, which shows a local one (a wrong border).

    Args:
        name: what the tensor is.
        jax_value: under test.
        torch_value: torch's, in the dtype under test; fixes shape, dtype and where values are NaN or infinite.
        truth: torch's in float64.
        kind: what sort of tensor it is.
        neighbours: the truth again, from inputs moved by half a unit in the last place of the dtype under test, and
            from inputs moved :data:`FAR` times as far in the same direction; jumps are not looked for without these.
        floor: error always allowed, in machine epsilons of the dtype times the tensor's norm; torch's own error can be
            zero by luck.
        scale: a norm that stands for the tensor's in ``floor`` where it is the larger: where a gradient cancels to
            nothing, what is left is rounding of the size of what cancelled.
        factor: how many times the explained error passes.
        witnesses: torch's again, in the dtype under test, from inputs a unit in the last place away: their errors
            count as torch's own.
        scatter: an error of each number that is explained besides.
        in_ulps: measure ``ulps`` too, which no verdict rests on; else NaN stands there.
    """
    a, b, t = np.asarray(jax_value), np.asarray(torch_value), np.asarray(truth)

    def refused(reason: str) -> Comparison:
        return Comparison(kind, name, b.shape, np.inf, 0.0, np.inf, 0.0, False, reason)

    if a.shape != b.shape:
        return refused(f"shape is {a.shape}, torch's is {b.shape}")
    if not _same_kind(a.dtype, b.dtype):
        return refused(f"dtype is {a.dtype}, torch's is {b.dtype}")
    if not _is_inexact(b.dtype):
        wrong = int(np.sum(a != b))
        return (
            refused(f"{wrong} of {b.size} values differ")
            if wrong
            else Comparison(kind, name, b.shape, 0.0, 0.0, 0.0, 0.0, True)
        )
    info = (np if np.iscomplexobj(b) else ml_dtypes).finfo(b.dtype)
    # XLA makes zeros of numbers below the smallest normal one: also of terms of a sum that is larger itself.
    eps, flushed = float(info.eps), float(info.smallest_normal)
    flushed /= eps if flushed < eps**4 else 1.0
    a, b, t = _as_reals(a), _as_reals(b), _as_reals(t)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return refused("NaN or infinite where torch's is not, or the reverse")
    ulps = ulp_distance(a, b, eps) if in_ulps else np.nan
    finite &= np.isfinite(t)
    if not finite.all():
        a, b, t = a[finite], b[finite], t[finite]
    if not a.size:
        return Comparison(kind, name, np.shape(torch_value), ulps, 0.0, 0.0, 0.0, True)
    ours, theirs = a - t, b - t
    shifts = [_shift(neighbour, t, finite) for neighbour in neighbours]
    others = [_shift(witness, t, finite) for witness in witnesses]
    passed, measures = True, []
    for norm in (_root_mean_square, largest):
        size, error, torchs = norm(t), norm(ours), norm(theirs)
        explained = max(torchs, *map(norm, others), floor / factor * eps * max(size, scale), flushed)
        if scatter is not None:
            explained = max(explained, norm(np.asarray(scatter, np.float64)[finite]))
        if shifts:
            near, *rest = shifts
            explained = max(explained, norm(near), *(min(norm(far), norm(far - FAR * near)) for far in rest))
        passed &= bool(error <= factor * explained)
        unit = size or 1.0
        measures.append((torchs / unit, error / unit, factor * explained / unit))
    (torch_error, jax_error, allowed), (_, worst, worst_allowed) = measures
    reason = ""
    if not passed:
        reason = (
            f"relative error {jax_error:.1e} (allowed {allowed:.1e}, torch's {torch_error:.1e}); "
            f"at worst {worst:.1e} (allowed {worst_allowed:.1e})"
        )
    return Comparison(kind, name, np.shape(torch_value), ulps, torch_error, jax_error, allowed, passed, reason)


def _shift(
    neighbour: npt.ArrayLike, truth: npt.NDArray[np.float64], finite: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    values = _as_reals(np.asarray(neighbour))
    shift = (values if finite.all() else values[finite]) - truth
    return np.where(np.isfinite(shift), shift, 0.0)


def ulp_distance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], eps: float) -> float:
    """The largest distance of ``a`` from ``b`` in units in the last place of a dtype with epsilon ``eps``.

    An element below the tensor's root mean square is measured in the units of that: where terms cancelled, the unit of
    what is left says nothing about the arithmetic.
    """
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.any():
        return 0.0
    if not finite.all():
        a, b = a[finite], b[finite]
    size = _root_mean_square(b)
    scale = np.maximum(np.abs(b), max(size, np.finfo(np.float64).smallest_normal) if size else 1.0)
    powers = (scale.view(np.uint64) & _EXPONENT).view(np.float64)  # of two, the next below
    return float(np.max(np.abs(a - b) / powers) / eps)


_EXPONENT = np.uint64(0x7FF0_0000_0000_0000)
"""The bits of a float64 that hold its exponent."""


def _root_mean_square(x: npt.NDArray[np.float64]) -> float:
    most = largest(x)
    if not most:
        return 0.0
    if 1e-140 < most < 1e140:  # nothing that counts is lost to underflow, and nothing overflows
        return float(np.sqrt(sum_of_squares(x) / x.size))
    return most * float(np.sqrt(np.mean((x / most) ** 2)))


def largest(x: np.ndarray) -> float:
    """The largest absolute value; 0 of an empty array."""
    if not x.size:
        return 0.0
    return float(np.abs(x).max()) if np.iscomplexobj(x) else float(max(x.max(), -x.min()))


def sum_of_squares(x: np.ndarray) -> float:
    """Of real numbers, in one thread: BLAS would wait for cores where torch's threads still spin."""
    flat = x.ravel()
    return float(np.einsum("i,i->", flat, flat))


def _is_inexact(dtype: np.dtype) -> bool:
    return np.issubdtype(dtype, np.inexact) or dtype in (ml_dtypes.bfloat16, np.float16)


def _same_kind(a: np.dtype, b: np.dtype) -> bool:
    # Without jax_enable_x64 JAX keeps integers in 32 bits; torch's indices have 64.
    return a == b or (a.kind in "iu" and b.kind in "iu")


def _as_reals(x: np.ndarray) -> npt.NDArray[np.float64]:
    if np.iscomplexobj(x):
        return np.stack([x.real, x.imag], axis=-1).astype(np.float64)
    return x.astype(np.float64)
