"""Which axis is which: arrays of a port laid out otherwise than torch's, and leaves in another order."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.comparison import sum_of_squares

NEAR = 0.05
"""Two arrays are of the same numbers in another layout if they differ by less than this, relative to their size."""


@dataclass(frozen=True)
class Layout:
    """How a port's array is laid out: torch's, some axes reversed, its axes permuted, then reshaped.

    Attributes:
        axes: torch's axes in the port's order.
        shape: the port's shape.
        reversed: those of torch's axes that run the other way, as the kernel of a transposed convolution may.
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    reversed: tuple[int, ...] = ()

    @property
    def is_torchs(self) -> bool:
        """Whether nothing is moved."""
        return self.axes == tuple(range(len(self.axes))) and len(self.shape) == len(self.axes) and not self.reversed

    def from_torch(self, x: Any) -> Any:
        """Torch's array, laid out as the port's."""
        return (np.flip(x, self.reversed) if self.reversed else x).transpose(self.axes).reshape(self.shape)

    def to_torch(self, x: Any, shape: Sequence[int]) -> Any:
        """The port's array, laid out as torch's of ``shape``."""
        if self.is_torchs:
            return x.reshape(shape)
        permuted = tuple(shape[axis] for axis in self.axes)
        there = x.reshape(permuted).transpose(tuple(np.argsort(self.axes)))
        return np.flip(there, self.reversed) if self.reversed else there

    def __str__(self) -> str:
        if self.axes == (0, *range(2, len(self.axes)), 1):
            return "channels last"
        return f"axes {self.axes}" if len(self.axes) == len(self.shape) else f"shape {self.shape}"


@functools.lru_cache(maxsize=4096)
def layouts(torch_shape: tuple[int, ...], jax_shape: tuple[int, ...]) -> tuple[Layout, ...]:
    """The layouts that turn one shape into the other, the likeliest first; none if the sizes differ."""
    rank = len(torch_shape)
    if math.prod(torch_shape) != math.prod(jax_shape):
        return ()
    likely = [tuple(range(rank))]
    if rank > 2:
        likely += [(0, *range(2, rank), 1), (1, 0, *range(2, rank))]
    if rank <= 5 and rank == len(jax_shape):
        likely += [p for p in itertools.permutations(range(rank)) if p not in likely]
    elif rank == len(jax_shape):
        return (Layout(likely[0], jax_shape),) if torch_shape == jax_shape else ()
    return tuple(
        Layout(axes, jax_shape)
        for axes in likely
        if rank != len(jax_shape) or tuple(torch_shape[axis] for axis in axes) == jax_shape
    )


def layout_of(jax_array: np.ndarray, torch_array: np.ndarray, near: float = NEAR) -> Layout | None:
    """The layout in which ``jax_array`` holds the numbers of ``torch_array``, or None where it holds others.

    Torch's own is preferred where several do.
    """
    return placed(jax_array, torch_array, near)[0]


def placed(jax_array: np.ndarray, torch_array: np.ndarray, near: float = NEAR) -> tuple[Layout | None, float]:
    """The layout that :func:`layout_of` gives, and the distance in it; infinite where there is none."""
    for layout in layouts(torch_array.shape, jax_array.shape):
        moved = layout.from_torch(torch_array)
        off = 0.0 if identical(jax_array, moved) else distance(jax_array, moved)
        if off <= near:
            return layout, off
    return None, math.inf


def likeliest(jax_array: np.ndarray, torch_array: np.ndarray, usual: tuple[int, ...] | None = None) -> Layout | None:
    """The layout of an array that holds other numbers than torch's in every one: that with axes ``usual``.

    Where none is usual, that in which they are clearly most alike, or torch's own.
    """
    options = layouts(torch_array.shape, jax_array.shape)
    expected = next((layout for layout in options if layout.axes == usual), None)
    if expected is not None or len(options) < 2 or jax_array.dtype.kind not in "fc":
        return expected or next(iter(options), None)
    likeness = [_correlation(jax_array, layout.from_torch(torch_array)) for layout in options]
    best = int(np.argmax(likeness))
    return options[best if likeness[best] > ALIKE + likeness[0] else 0]


ALIKE = 0.25
"""So much more alike are numbers in the layout that is theirs than in another."""


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    kind = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    a, b = a.astype(kind), b.astype(kind)
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b).real / size) if 0 < size < np.inf else 0.0


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of the difference, relative to that of ``b``; infinite where shapes or kinds differ."""
    if a.shape != b.shape:
        return math.inf
    if not a.size:
        return 0.0
    if a.dtype == b.dtype and a.dtype in (np.float32, np.float64):
        # The usual case, without copies in float64; what is not finite falls through.
        with np.errstate(over="ignore", invalid="ignore"):
            error, size = sum_of_squares(np.subtract(a, b)), sum_of_squares(b)
        if 1e-30 < size < 1e30 and error < 1e30:
            return math.sqrt(error / size)
    kind = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    a, b = a.astype(kind), b.astype(kind)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    differences = np.abs(np.where(same, 0.0, a - b))
    norm = float(np.sqrt(np.mean(np.abs(np.where(np.isfinite(b), b, 0.0)) ** 2)))
    measured = float(np.sqrt(np.mean(differences**2)))
    if not math.isfinite(measured):
        return math.inf
    return measured / norm if norm else (0.0 if measured == 0 else math.inf)


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether both hold the same bits: the cheapest way to see that there is nothing to look at."""
    if a.dtype != b.dtype or a.shape != b.shape or a.dtype.itemsize > 8:
        return False
    if a.strides == b.strides and a.__array_interface__["data"][0] == b.__array_interface__["data"][0]:
        return True
    bits = f"u{a.dtype.itemsize}"
    return np.array_equal(a.view(bits), b.view(bits))


def paired(
    jax_leaves: Sequence[Any],
    torch_leaves: Sequence[Any],
    fits: Callable[[Any, Any], bool],
    names: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> list[tuple[int, int]]:
    """Indices of leaves that belong together: by name where they share one, by place where the counts are the same and
    every two could be laid out alike; else in order, those that fit first, then those that could be laid out alike."""
    if len(jax_leaves) == len(torch_leaves) == 1:
        return [(0, 0)]
    ours_names, their_names = names
    shared = {name for name in ours_names if list(ours_names).count(name) == 1 == list(their_names).count(name)}
    same = len(jax_leaves) == len(torch_leaves)
    alike = same and all(map(_could_fit, jax_leaves, torch_leaves))
    if not alike:
        # A place, which one more or less has shifted; or they stand in another order, as states before outputs.
        shared = {name for name in shared if not name.isdigit()}
    pairs = {ours_names.index(name): their_names.index(name) for name in shared}
    if len(pairs) < len(jax_leaves) and alike:
        return [(i, i) for i in range(len(jax_leaves))]
    for fitting in (fits, lambda ours, theirs: ours.shape == theirs.shape, _could_fit):
        for i, ours in enumerate(jax_leaves):
            free = [j for j in range(len(torch_leaves)) if j not in pairs.values()]
            match = next((j for j in free if fitting(ours, torch_leaves[j])), None)
            if i not in pairs and match is not None:
                pairs[i] = match
    if same:  # what fits nothing
        rest = (j for j in range(len(torch_leaves)) if j not in pairs.values())
        pairs |= {i: next(rest) for i in range(len(jax_leaves)) if i not in pairs}
    return sorted(pairs.items())


def _could_fit(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.dtype.kind == theirs.dtype.kind and bool(layouts(theirs.shape, ours.shape))
