"""How an array of the port differs from the checkpoint's."""

import itertools
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import torch

from parity.arrays import to_numpy
from parity.checking.alignment import distance
from parity.checking.pairing import Pair

EQUAL = 1e-6


def differing(found: list[Pair]) -> list[Pair]:
    """The pairs whose values are not the same."""
    return [
        pair
        for pair in found
        if pair.name != "num_batches_tracked"
        and not np.array_equal(pair.layout.to_torch(pair.ours, pair.theirs.shape), pair.theirs)
    ]


def relation(pair: Pair, others: dict[str, np.ndarray]) -> tuple[str, str]:
    """The suspect, and in words how the port's array comes of the checkpoint's.

    Args:
        pair: the two.
        others: the layer's other arrays in torch, by name: one may have been loaded for another.
    """
    ours, theirs, name = pair.layout.to_torch(pair.ours, pair.theirs.shape), pair.theirs, pair.name
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if not np.any(ours):
        suspect = "missing bias" if "bias" in name else "missing weight"
        return suspect, f"{name} is zero, not the checkpoint's"
    for suspect, said, value in _rearranged(name, theirs):
        if distance(ours, value) < EQUAL:
            return suspect, said
    for other, value in others.items():
        if other != name and value.shape == theirs.shape and np.array_equal(ours, value):
            swapped = {name, other} == {"weight", "bias"} and theirs.ndim == 1
            return "swapped gamma and beta" if swapped else "swapped weights", f"{name} holds the checkpoint's {other}"
    factor = float(np.vdot(theirs, ours) / np.vdot(theirs, theirs)) if np.any(theirs) else 0.0
    if factor and distance(ours, factor * theirs) < 1e-5 and abs(factor - 1) > 1e-7:
        suspect = "scaled bias" if "bias" in name else "scaled weight"
        return suspect, f"{name} differs from the checkpoint by a factor of {factor:.6g}"
    shift = float(np.mean(ours - theirs))
    if np.abs(ours - theirs - shift).max() < 1e-5 * np.abs(shift):
        return "shifted weight", f"{name} differs from the checkpoint by the addition of {shift:.6g}"
    off = ~np.isclose(ours, theirs, rtol=1e-6, atol=0)
    if off.sum() <= max(1, 0.1 * off.size):
        at = tuple(int(i) for i in np.argwhere(off)[0])
        return (
            "altered weight",
            f"{name} differs from the checkpoint in {off.sum()} of {off.size} numbers, first at {at}",
        )
    rows = np.flatnonzero(off.reshape(off.shape[0], -1).any(1))
    if off.ndim and 0 < len(rows) < off.shape[0]:
        return "altered weight", f"{name} differs from the checkpoint in rows {_ranges(rows)} of {off.shape[0]}"
    for other, value in others.items():
        # One gate's part scaled, two parts exchanged and so on are found by the rows above.
        if other != name and value.size == theirs.size and distance(ours.reshape(-1), value.reshape(-1)) < EQUAL:
            return "swapped weights", f"{name} holds the checkpoint's {other}"
    size = np.sqrt(np.mean(ours**2) / max(float(np.mean(theirs**2)), 1e-300))
    return (
        "other weights",
        f"{name} is not the checkpoint's (relative difference {distance(ours, theirs):.2g}, size {size:.3g} times)",
    )


def from_elsewhere(pair: Pair, path: str, whole: torch.nn.Module) -> tuple[str, str] | None:
    """The suspect, and in words of which other layer of the model the port's array is; None where it is of none."""
    ours = pair.layout.to_torch(pair.ours, pair.theirs.shape)
    if not np.any(ours != ours.flat[0]):  # as it was made, in many layers alike
        return None
    for name, x in (*whole.named_parameters(), *whole.named_buffers()):
        if name.rpartition(".")[0] != path and x.shape == ours.shape and np.array_equal(ours, to_numpy(x)):
            return "swapped weights", f"{pair.name} holds the checkpoint's {name}"
    return None


def _rearranged(name: str, value: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """The checkpoint's array with a usual mistake made in carrying it over."""
    for kind, word in ((ml_dtypes.bfloat16, "bfloat16"), (np.float16, "float16")):
        with np.errstate(over="ignore"):
            yield "precision", f"{name} is the checkpoint's, rounded to {word}", value.astype(kind).astype(np.float64)
    yield "tf32", f"{name} is the checkpoint's, rounded to tf32", rounded_to_tf32(value)
    if value.ndim >= 2:
        if value.ndim > 2:
            spatial = tuple(range(2, value.ndim))
            yield "flipped weight", f"{name} is flipped in its spatial axes", np.flip(value, spatial)
            for axis in spatial:
                yield "flipped weight", f"{name} is flipped along axis {axis}", np.flip(value, axis)
        for axes in itertools.permutations(range(value.ndim)) if value.ndim <= 5 else ():
            if axes != tuple(range(value.ndim)):
                turned = value.transpose(axes)
                said = "is transposed" if value.ndim == 2 else f"is transposed: its axes are in the order {axes}"
                if turned.shape == value.shape:
                    yield "transposed weight", f"{name} {said}", turned
                said = "is reshaped where it should be transposed"
                yield (
                    "transposed weight",
                    f"{name} {said} {axes if value.ndim > 2 else ''}".strip(),
                    turned.reshape(value.shape),
                )
        if value.ndim > 2 and value.shape[0] == value.shape[1]:
            turned = np.flip(value.swapaxes(0, 1), tuple(range(2, value.ndim)))
            yield "transposed weight", f"{name} is transposed and flipped", turned
    yield "sign", f"{name} has the other sign", -value
    if np.all(value > 0):
        yield "running statistics", f"{name} is the root of the checkpoint's", np.sqrt(value)
        yield "running statistics", f"{name} is the square of the checkpoint's", value**2
        yield "running statistics", f"{name} is one over the checkpoint's", 1 / value
    if value.ndim:
        for axis in range(value.ndim):
            yield "order", f"{name} is reversed along axis {axis}", np.flip(value, axis)
            for shift in (1, -1):
                yield "order", f"{name} is shifted by {shift} along axis {axis}", np.roll(value, shift, axis)
        yield from _gates(name, value)


def _gates(name: str, value: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Blocks of rows in another order: the gates of a recurrent layer, or query, key and value."""
    recurrent = "_ih" in name or "_hh" in name
    for count, letters in ((4, "ifgo"), (3, "rzn" if recurrent else ""), (2, "")):
        if value.shape[0] % count:
            continue
        blocks = np.split(value, count)
        for order in list(itertools.permutations(range(count)))[1:]:
            if letters and recurrent:
                shown = ", ".join(letters[i] for i in order)
                said = f"{name} has its gates in the order {shown}; torch's is {', '.join(letters)}"
                yield "gate order", said, np.concatenate([blocks[i] for i in order])
            else:
                said = f"{name} has its {count} blocks of rows in the order {order}"
                yield "order", said, np.concatenate([blocks[i] for i in order])


def rounded_to_tf32(x: np.ndarray) -> np.ndarray:
    """``x`` with ten bits behind the point."""
    single = np.ascontiguousarray(x, np.float32)
    bits = single.view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def _ranges(rows: np.ndarray) -> str:
    if len(rows) == rows[-1] - rows[0] + 1:
        return f"{rows[0]} to {rows[-1]}" if len(rows) > 1 else str(rows[0])
    return ", ".join(map(str, rows[:5])) + (" ..." if len(rows) > 5 else "")
