"""Which pixels of an axis a resized axis reads, and with what weights: tables made in NumPy from the sizes alone."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Array

Values = TypeVar("Values", np.ndarray, Array)


class Resized(NamedTuple):
    """An axis and what becomes of it.

    Attributes:
        size: pixels before.
        output: pixels after.
        factor: the scale factor the user gave, which need not be ``output / size``; none where they gave a size.
    """

    size: int
    output: int
    factor: float | None

    def step(self, align_corners: bool = False) -> float:
        """Pixels of the input from one pixel of the output to the next."""
        if align_corners:
            return (self.size - 1) / (self.output - 1) if self.output > 1 else 0.0
        return 1.0 / self.factor if self.factor else self.size / self.output

    def sources(self, align_corners: bool) -> np.ndarray:
        """Where on the input, in pixels from the centre of the first, each pixel of the output lies."""
        step, positions = self.step(align_corners), np.arange(self.output)
        return positions * step if align_corners else (positions + 0.5) * step - 0.5


class Table(NamedTuple):
    """For each pixel of the output the pixels it reads and their weights, both ``(output, taps)``."""

    pixels: np.ndarray
    weights: np.ndarray

    def matrix(self, size: int) -> np.ndarray:
        """The weights by output pixel and by each of the ``size`` input pixels."""
        dense = np.zeros((len(self.pixels), size))
        np.add.at(dense, (np.arange(len(self.pixels))[:, None], self.pixels), self.weights)
        return dense


def cubic_weights(t: Values, alpha: float = -0.75) -> list[Values]:
    """The four weights of cubic convolution (Keys, 1981) at ``t`` pixels after the second tap, ``t`` in [0, 1]."""

    def near(x: Values) -> Values:
        return ((alpha + 2) * x - (alpha + 3)) * x * x + 1

    def far(x: Values) -> Values:
        return ((alpha * x - 5 * alpha) * x + 8 * alpha) * x - 4 * alpha

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def nearest(axis: Resized, exact: bool, dtype: type[np.floating], small_image: bool) -> Table:
    """One pixel, copied.

    Which of two it is where rounding decides hangs on torch's kernels, and so it does here. They compute in ``dtype``,
    float32 or float64, and round to float32 before they drop the fraction; one of them, for small images, computes in
    float32 always and, unless ``exact``, takes sizes that stay or double as such whatever the factor.
    """
    positions = np.arange(axis.output)
    kind = np.float32 if small_image else dtype
    step = kind(1.0 / axis.factor) if axis.factor else kind(axis.size) / kind(axis.output)
    if small_image and not exact and axis.output in (axis.size, 2 * axis.size):
        source: np.ndarray = positions * axis.size // axis.output
    elif not exact:
        source = positions.astype(kind) * step
    elif small_image:
        source = (positions + 0.5).astype(kind) * step
    else:
        # The product of two float32 is exact in float64: a fused multiply-add, as torch's compiler makes it.
        source = ((positions + 0.5) * np.float64(step) - 0.5).astype(kind) + kind(0.5)
    pixels = np.minimum(np.floor(source.astype(np.float32)).astype(np.int32), axis.size - 1)
    return Table(pixels[:, None], np.ones((axis.output, 1)))


def linear(axis: Resized, align_corners: bool) -> Table:
    """Two pixels, weighted by nearness; the edge pixels go on beyond the edges."""
    source = np.maximum(axis.sources(align_corners), 0)
    before = np.minimum(np.floor(source).astype(np.int32), axis.size - 1)
    after = np.minimum(before + 1, axis.size - 1)
    t = source - before
    return Table(np.stack([before, after], 1), np.stack([1 - t, t], 1))


def cubic(axis: Resized, align_corners: bool) -> Table:
    """Four pixels, weighted by cubic convolution; the edge pixels go on beyond the edges."""
    source = axis.sources(align_corners)
    before = np.floor(source).astype(np.int32)
    index = np.clip(before[:, None] + np.arange(-1, 3, dtype=np.int32), 0, axis.size - 1)
    return Table(index, np.stack(cubic_weights(source - before), 1))


def antialiased(axis: Resized, align_corners: bool, filter: Callable[[np.ndarray], np.ndarray], reach: int) -> Table:
    """All pixels within ``reach`` steps (pixels where the axis grows), weighted by ``filter`` to sum up to 1."""
    step = axis.step(align_corners)
    support = reach * max(step, 1.0)
    # From pixel edge to pixel edge: aligned corners change the step and nothing else, as in torch.
    centre = (np.arange(axis.output) + 0.5) * step
    first = np.maximum(np.trunc(centre - support + 0.5).astype(np.int32), 0)
    stop = np.minimum(np.trunc(centre + support + 0.5).astype(np.int32), axis.size)
    taps = np.arange(min(2 * math.ceil(support) + 1, axis.size), dtype=np.int32)
    index = first[:, None] + taps
    weight = filter((index - centre[:, None] + 0.5) / max(step, 1.0))
    weight = np.where(index < stop[:, None], weight, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    return Table(np.minimum(index, np.maximum(stop - 1, 0)[:, None]), weight / np.where(total == 0, 1.0, total))


def whole_weights(table: Table, size: int) -> tuple[np.ndarray, int]:
    """The weights of an axis of ``size`` pixels as 16-bit whole numbers, and how many of their bits are a fraction.

    Taps that fall on one pixel, as at the edges, are rounded as one.
    """
    merged = np.take_along_axis(table.matrix(size), table.pixels, axis=1)
    merged[np.diff(table.pixels, axis=1, prepend=-1) == 0] = 0.0
    bits = 1
    while bits < 22 and merged.max() * 2 ** (bits + 1) + 0.5 < 2**15:
        bits += 1
    return np.trunc(merged * 2**bits + np.copysign(0.5, merged)).astype(np.int32), bits


def triangle(x: np.ndarray) -> np.ndarray:
    """Linear interpolation's kernel, of reach 1."""
    return np.maximum(1 - np.abs(x), 0)


def sharper_cubic(x: np.ndarray) -> np.ndarray:
    """Cubic convolution's kernel with alpha -0.5, of reach 2; torch takes that here and -0.75 elsewhere."""
    distance = np.minimum(np.abs(x), 2.0)
    far, near, _, _ = cubic_weights(distance - np.floor(distance), alpha=-0.5)
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def lanczos(x: np.ndarray) -> np.ndarray:
    """The sinc windowed by a wider one, of reach 3."""
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)
