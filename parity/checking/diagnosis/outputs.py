"""What can be said of a wrong output by looking at it beside torch's."""

import itertools

import ml_dtypes
import numpy as np

from parity.checking.alignment import distance

Outputs = dict[str, np.ndarray]


def relation(ours: Outputs, theirs: Outputs) -> tuple[str, str] | None:
    """The suspect, and how the port's first wrong output comes of torch's; None where no simple way leads there."""
    for name, b in theirs.items():
        a = ours.get(name)
        if a is None or distance(a, b) < 1e-7 or a.dtype.kind not in "fc" or b.dtype.kind not in "fc":
            continue
        if a.shape != b.shape:
            return "shape", f"{name} has shape {a.shape}, torch's {b.shape}"
        if np.iscomplexobj(a) or np.iscomplexobj(b):
            if distance(a, b.conj()) < 0.05 * distance(a, b):
                return "conjugate", f"{name} is the conjugate of torch's"
            a, b = (np.stack([x.real, x.imag], -1) for x in (a, b))
            name = f"{name}, with real and imaginary parts as its last axis,"
        found = _of_one(name, a.astype(np.float64), b.astype(np.float64))
        if found is not None:
            return found
    return None


def coarseness(ours: Outputs, theirs: Outputs) -> tuple[str, str] | None:
    """Whether an output has fewer bits than torch's of the same dtype."""
    for name, b in theirs.items():
        a = ours.get(name)
        if a is None or a.dtype != b.dtype or a.dtype not in (np.float32, np.float64) or a.size < 4:
            continue
        for kind, word in ((ml_dtypes.bfloat16, "bfloat16"), (np.float16, "float16")):
            with np.errstate(over="ignore"):
                few, many = (np.mean(x.astype(kind).astype(x.dtype) == x) for x in (a, b))
            if few == 1.0 and many < 0.9:
                return "precision", f"{name} has the precision of {word} only: somewhere it is computed or stored so"
    return None


def _of_one(name: str, a: np.ndarray, b: np.ndarray) -> tuple[str, str] | None:
    before = distance(a, b)
    if not np.any(a):
        return "missing", f"{name} is zero"
    if np.isnan(a).any() and not np.isnan(b).any():
        return "masked value", f"{name} has NaN in {int(np.isnan(a).sum())} of {a.size} places, torch's has none"
    factor = float(np.vdot(b, a) / max(float(np.vdot(b, b)), 1e-300))
    if a.size == 1:  # any number is a multiple of any other, and so much more than it
        if not factor or not np.isfinite(factor):
            return None
        whole = max(abs(factor), 1 / abs(factor))
        told = abs(whole - round(whole)) < 1e-4 and abs(factor - 1) > 1e-4
        return ("scale", f"{name} is torch's times {factor:.6g}") if told else None
    if distance(a, factor * b) < 0.1 * before and abs(factor - 1) > 1e-6:
        return "scale", f"{name} is torch's times {factor:.6g}"
    shift = float(np.mean(a - b))
    if distance(a, b + shift) < 0.1 * before:
        return "shift", f"{name} is torch's plus {shift:.6g}"
    for axis in range(b.ndim):
        others = tuple(i for i in range(b.ndim) if i != axis)
        by_index = np.mean(a - b, others, keepdims=True)
        if others and b.shape[axis] * 4 < b.size and distance(a, b + by_index) < 0.05 * before:
            return "bias", f"{name} is torch's plus one number for each index of axis {axis} (a wrong or missing bias)"
        top, bottom = np.sum(a * b, others, keepdims=True), np.sum(b * b, others, keepdims=True)
        scaled = b * (top / np.where(bottom == 0, 1, bottom))
        if others and b.shape[axis] * 4 < b.size and distance(a, scaled) < 0.05 * before:
            return "scale", f"{name} is torch's times one number for each index of axis {axis} (a wrong scale)"
        if distance(a, np.flip(b, axis)) < 0.05 * before:
            return "order", f"{name} is torch's, reversed along axis {axis}"
        for step in (1, -1):
            if distance(a, np.roll(b, step, axis)) < 0.05 * before:
                return "order", f"{name} is torch's, shifted by {step} along axis {axis}"
    for axes in itertools.permutations(range(b.ndim)) if b.ndim <= 5 else ():
        if b.transpose(axes).shape == a.shape and distance(a, b.transpose(axes)) < 0.05 * before:
            return "swapped axes", f"{name} is torch's with its axes in the order {axes}"
    return _where(name, a, b)


def _where(name: str, a: np.ndarray, b: np.ndarray) -> tuple[str, str] | None:
    """Whether the wrong numbers stand in one place."""
    off = np.abs(a - b) > 1e-5 * np.sqrt(np.mean(b**2))
    if not off.any() or off.mean() > 0.9:
        return None
    for axis in range(b.ndim):
        others = tuple(i for i in range(b.ndim) if i != axis)
        rows = np.flatnonzero(off.any(others))
        size = b.shape[axis]
        if 0 < len(rows) < size and len(rows) <= size // 2:
            ends = set(rows) <= {0, 1, size - 2, size - 1} and axis >= 2
            suspect = "padding" if ends else "part"
            hint = " (the border: padding)" if ends else ""
            return suspect, f"{name} is wrong only at indices {', '.join(map(str, rows[:6]))} of axis {axis}{hint}"
    return "part", f"{name} is wrong in {off.mean():.0%} of its numbers only"
