"""Layers cleared by a truth of a few rows.

The truth of a wide layer in float64 costs more than the layer does on both sides. Where every row of a layer's output
depends on its own row of the input alone, a few rows show how large torch's rounding is: some chosen at random, and
those that differ most. What differs from torch by less, on all the others, needs no more truth: by the triangle
inequality the whole truth would clear it too.
"""

import math
from typing import Any

import numpy as np
import torch

from parity.arrays import to_numpy
from parity.checking.evaluation import TorchSide
from parity.checking.perturbation import doubled
from parity.comparison import largest, sum_of_squares

ROWS = 32
"""Rows chosen at random, and as many of the worst; fewer than eight times as many are not worth it."""

SAFETY = 1.5
"""How many times larger the sample's root mean square error may be than that of all rows: among errors that are alike
32 rows give it to a few hundredths."""


def explained_by_sample(side: TorchSide, outputs: dict[str, np.ndarray], factor: float) -> float | None:
    """The relative error that torch's own explains, where a sample of rows shows that all are within it; else None.

    None says nothing against the layer: it has to be held against the whole truth.

    Args:
        side: torch's layer alone.
        outputs: the port's, in torch's layout, by torch's names.
        factor: how many times the error that rounding explains passes.
    """
    layer, (args, kwargs) = side.subject, side.call
    single = side.single.outputs
    if type(layer) not in _BY_ROWS or _hooked(layer) or kwargs or len(args) != 1 or set(single) != {"output"}:
        return None
    ours, theirs, x = outputs.get("output"), single["output"], args[0]
    inner = _BY_ROWS[type(layer)]
    if ours is None or ours.shape != theirs.shape or not ours.dtype == theirs.dtype == np.float32 or x.ndim <= inner:
        return None
    rows = math.prod(x.shape[:-inner])
    if rows < 8 * ROWS:
        return None
    ours, theirs = (y.reshape(rows, *y.shape[-inner:]) for y in (ours, theirs))
    difference = ours - theirs
    size, off = _size(theirs), _size(difference)
    by_row = _by_row(difference)
    order = np.random.default_rng(0).permutation(rows)
    worst = order[np.argpartition(by_row[order], rows - ROWS)[rows - ROWS :]]
    chosen = np.concatenate([order[:ROWS], worst])
    with torch.no_grad():
        truth = to_numpy(doubled(layer)(doubled(x.reshape(rows, *x.shape[-inner:])[chosen])))
    sampled = theirs[chosen]
    torchs, jaxs = sampled - truth, ours[chosen] - truth
    # Rows larger than the others have larger errors.
    typical = _size(torchs[:ROWS]) * min(1.0, size / (_size(sampled[:ROWS]) or 1.0)) / SAFETY
    by_row[chosen] = 0.0
    at_worst = largest(torchs)
    explained = (
        off <= (factor - 1) * typical  # written so that NaN says no
        and by_row.max() <= (factor - 1) * at_worst
        and largest(jaxs) <= factor * at_worst
    )
    return (factor * typical / size if size else 0.0) if explained else None


def _by_row(x: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, x.ndim))
    return np.maximum(x.max(axis=axes), -x.min(axis=axes))


def _size(x: np.ndarray) -> float:
    return math.sqrt(sum_of_squares(x) / x.size)


def _hooked(layer: Any) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


_BY_ROWS = {
    torch.nn.Linear: 1,
    torch.nn.Conv1d: 2,
    torch.nn.Conv2d: 3,
    torch.nn.Conv3d: 4,
    torch.nn.ConvTranspose1d: 2,
    torch.nn.ConvTranspose2d: 3,
    torch.nn.ConvTranspose3d: 4,
}
"""Layers that work on rows, and how many axes a row has."""
