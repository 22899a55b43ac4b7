"""3 x 3 kernels by Winograd's minimal filtering, F(2 x 2, 3 x 3): 16 products for four outputs, where there were 36.

A tile ``d`` of 4 x 4 places, two from the next, gives 2 x 2 outputs of a kernel ``g``::

    A' ((G g G') * (B' d B)) A

Summed over channels, each of the 16 places is a matrix product of all tiles' channels with the kernel's (Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Its matrices hold zeros, ones and halves: the error
against float64 is 0.6 to 0.8 times that of torch's own convolution, in the root mean square. F(4 x 4, 3 x 3) has fewer
products, but errs two to five times as much and is slower here. A tile shares its rounding, and its infinities, among
its four outputs; float64 keeps the definition.
"""

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.portions import allowed, at_once, mapped, summed
from jaxnn._lowering.windows import channels_first, channels_last, padded

Places = list[list[Array]]
"""A matrix for each of the 4 x 4 places of a tile."""

SOME_CHANNELS = 64
"""Channels of images and of outputs from which the products outweigh the sums around them."""

SOME_PRODUCTS = 10_000_000
"""Multiplications in one matrix product from which it takes its time for them."""

CACHE = 25 * 2**20
"""Bytes of tiles and of their products up to which they stay in the third cache, or in much of it."""

SHARE = 1.7
"""How many times the memory of arrays their tiles, or products, may take; with the rest it is twice XLA's."""

SOME_WEIGHTS = 2**14
"""Channels of images times outputs from which the gradient of the kernel has products large enough."""

WASTE = 1.4
"""How many times the outputs may be computed, where tiles reach beyond them."""


def suits(x: Array, w: Array, geometry: Geometry) -> bool:
    """Whether this is the fastest, for float32: of many channels, in portions neither too small nor too large."""
    outputs, channels, *_ = w.shape
    if not _is_filter(x, geometry) or min(outputs, channels) < SOME_CHANNELS:
        return False
    at_once = _step(x, w, geometry) * math.prod(_tiles(geometry))
    tiles, products = (16 * at_once * n * x.dtype.itemsize for n in (channels, outputs))
    limit = allowed((x.size + x.shape[0] * outputs * math.prod(geometry.outputs)) * x.dtype.itemsize, SHARE)
    fits = tiles + products <= CACHE and max(tiles, products) <= limit
    return fits and at_once * channels * outputs >= SOME_PRODUCTS


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, H, W)`` and ``(O, C, 3, 3)`` to ``(N, O, *outputs)``."""
    kernel = lax.optimization_barrier(_kernel(w))  # or every portion would compute it

    def some(images: Array) -> Array:
        """To channels last: in a loop XLA transposes outputs one number after the other."""
        return _outputs(_filtered(_tiled(images, geometry), kernel, geometry.precision), _tiles(geometry))

    outputs = mapped(some, x, _step(x, w, geometry))
    return channels_first(outputs[:, : geometry.outputs[0], : geometry.outputs[1]])


def suits_gradient(x: Array, y: Array, geometry: Geometry) -> bool:
    """Whether the gradient of the kernel is the fastest so, for float32."""
    weights = x.shape[1] * y.shape[1]
    if not _is_filter(x, geometry) or min(x.shape[1], y.shape[1]) < SOME_CHANNELS or weights < SOME_WEIGHTS:
        return False
    step = _gradient_step(x, y, geometry)
    return 2 * step * math.prod(_tiles(geometry)) * (x.shape[1] + y.shape[1]) >= weights


def kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """Images and a weight for each output to ``(O, C, 3, 3)``: the transpose of the above, tiles times tiles."""

    def some(images: Array, weights: Array) -> Array:
        tiles, spread = _tiled(images, geometry), _spread(weights, geometry)
        contracted = (((0,), (0,)), ((), ()))
        each = zip(itertools.chain(*tiles), itertools.chain(*spread), strict=True)
        return jnp.stack([lax.dot_general(d, v, contracted, precision=geometry.precision) for d, v in each])

    places = summed(some, max(1, _gradient_step(x, y, geometry)), x, y)
    columns = [_narrowed([places[4 * row + column] for row in range(4)]) for column in range(4)]
    elements = itertools.chain(*(_narrowed(list(row)) for row in zip(*columns, strict=True)))
    return jnp.stack(list(elements), -1).reshape(*places.shape[1:], 3, 3).swapaxes(0, 1)


def _is_filter(x: Array, geometry: Geometry) -> bool:
    """Whether it is 3 x 3 with neither strides nor groups, and few outputs of the tiles are dropped."""
    if geometry.kernel_size != (3, 3) or not geometry.groups == max(geometry.strides) == max(geometry.dilations) == 1:
        return False
    return x.dtype == jnp.float32 and 4 * math.prod(_tiles(geometry)) <= WASTE * math.prod(geometry.outputs)


def _tiles(geometry: Geometry) -> tuple[int, int]:
    rows, columns = (-(-count // 2) for count in geometry.outputs)
    return rows, columns


def _step(x: Array, w: Array, geometry: Geometry) -> int:
    """The fewest images whose products are large enough, if any are."""
    images, each = x.shape[0], math.prod(_tiles(geometry)) * w.shape[0] * w.shape[1]
    return next(n for n in range(1, images + 1) if images % n == 0 and (n * each >= SOME_PRODUCTS or n == images))


def _gradient_step(x: Array, y: Array, geometry: Geometry) -> int:
    """As many images as stay in the cache; all or none where their gradients are large to add up. 0 if too large."""
    (images, channels), outputs, itemsize = x.shape[:2], y.shape[1], x.dtype.itemsize
    each = 16 * math.prod(_tiles(geometry)) * (channels + outputs) * itemsize
    limit = allowed((x.size + y.size + 9 * channels * outputs) * itemsize, SHARE)
    if 16 * channels * outputs * itemsize > CACHE / 2:
        return images if images * each <= min(limit, 2 * CACHE) else 0
    limit = min(limit, CACHE / 2)
    return at_once(images, each, limit) if each <= limit else 0


def _kernel(w: Array) -> Places:
    """``G g G'``, each place as a matrix ``(C, O)``."""

    def widened(first: Array, middle: Array, last: Array) -> list[Array]:
        return [first, (first + middle + last) / 2, (first - middle + last) / 2, last]

    g = jnp.moveaxis(w, (0, 1), (-1, -2))
    return [widened(*row) for row in zip(*(widened(*g[:, column]) for column in range(3)), strict=True)]


def _tiled(images: Array, geometry: Geometry) -> Places:
    """``B' d B``, each place as a matrix ``(tiles, C)``."""
    (rows, columns) = tiles = _tiles(geometry)
    each = zip(tiles, geometry.sizes, geometry.pads, strict=True)
    pads = [(before, 2 * count + 2 - size - before) for count, size, (before, _) in each]
    images = lax.optimization_barrier(padded(channels_last(images), pads, first=1))
    steps = [
        [images[:, row : row + 2 * rows - 1 : 2, column : column + 2 * columns - 1 : 2] for row in range(4)]
        for column in range(4)
    ]
    return [_matrices(_differences(row)) for row in zip(*map(_differences, steps), strict=True)]


def _spread(weights: Array, geometry: Geometry) -> Places:
    """``A y A'``, each place as a matrix ``(tiles, O)``."""
    pads = [(0, 2 * count - size) for count, size in zip(_tiles(geometry), geometry.outputs, strict=True)]
    weights = lax.optimization_barrier(padded(channels_last(weights), pads, first=1))
    steps = [[weights[:, row::2, column::2] for row in range(2)] for column in range(2)]

    def spread(first: Array, last: Array) -> list[Array]:
        return [first, first + last, first - last, -last]

    return [_matrices(spread(*row)) for row in zip(*(spread(*column) for column in steps), strict=True)]


def _matrices(places: list[Array]) -> list[Array]:
    """A product must find its operand whole: XLA would compute it anew for each block of the outputs."""
    return [lax.optimization_barrier(place).reshape(-1, place.shape[-1]) for place in places]


def _filtered(tiles: Places, kernel: Places, precision: lax.Precision | None) -> Places:
    each = zip(tiles, kernel, strict=True)
    return [[jnp.dot(d, g, precision=precision) for d, g in zip(*row, strict=True)] for row in each]


def _outputs(places: Places, tiles: tuple[int, int]) -> Array:
    """``A' m A``: matrices ``(tiles, O)`` to ``(N, 2 * rows, 2 * columns, O)``."""
    rows, columns = tiles
    wide = [jnp.stack(_sums([m.reshape(-1, rows, columns, m.shape[-1]) for m in row]), 3) for row in places]
    outputs = jnp.stack(_sums([lax.optimization_barrier(row) for row in wide]), 2)
    return outputs.reshape(outputs.shape[0], 2 * rows, 2 * columns, -1)


def _differences(four: Sequence[Array]) -> list[Array]:
    """``B' d``."""
    return [four[0] - four[2], four[1] + four[2], four[2] - four[1], four[1] - four[3]]


def _sums(four: list[Array]) -> list[Array]:
    """``A' m``."""
    return [four[0] + four[1] + four[2], four[1] - four[2] - four[3]]


def _narrowed(four: list[Array]) -> list[Array]:
    """``G' k``."""
    total, difference = (four[1] + four[2]) / 2, (four[1] - four[2]) / 2
    return [four[0] + total, difference, total + four[3]]
