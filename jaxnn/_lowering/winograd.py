"""3 x 3 kernels by Winograd's minimal filtering, F(2 x 2, 3 x 3): 16 products for four outputs, where there were 36.

A tile ``d`` of 4 x 4 places, two from the next, gives 2 x 2 outputs of a kernel ``g``::

    A' ((G g G') * (B' d B)) A

Summed over channels, each of the 16 places is a matrix product of all tiles' channels with the kernel's (Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Its matrices hold zeros, ones and halves: the error
against float64 is 0.6 to 0.8 times that of torch's own convolution, in the root mean square, or 2.2 times where torch
has AVX-512, whose sums err less. F(4 x 4, 3 x 3) has fewer products, but errs two to five times as much and is slower
here. A tile shares its rounding, and its infinities, among its four outputs; float64 keeps the definition.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.portions import allowed, at_once, mapped, summed
from jaxnn._lowering.windows import channels_first, channels_last, padded

SOME_CHANNELS = 64
"""Channels of images and of outputs from which the products outweigh the sums around them."""

SOME_PRODUCTS = 6_000_000
"""Multiplications in one matrix product from which the convolution takes its time for them."""

SOME_WEIGHTS = 2**14
"""Channels of images times outputs from which the gradient of the kernel does."""

CACHE = 16 * 2**20
"""Bytes of tiles and of what they are multiplied with, or give, that stay in the third cache."""

SHARE = 2
"""How many times the memory of images, kernel and outputs these may take; with the rest it is twice XLA's."""

WASTE = 1.4
"""How many times the outputs may be computed, where tiles reach beyond them."""


def suits(x: Array, outputs: int, geometry: Geometry) -> bool:
    """Whether this is the fastest, for float32: of many channels, in portions neither too small nor too large."""
    if not _is_filter(x, outputs, geometry):
        return False
    return _step(x, outputs, geometry) * math.prod(_tiles(geometry)) * x.shape[1] * outputs >= SOME_PRODUCTS


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, H, W)`` and ``(O, C, 3, 3)`` to ``(N, O, *outputs)``."""
    return _convolution(x, _widened(w), 1, geometry)


def image_gradient(y: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, O, H, W)`` and ``(O, C, 3, 3)`` to ``(N, C, *outputs)``, as ``geometry`` has them: the kernel is mirrored.

    The first and last of a mirrored kernel's four places are exchanged. They are computed as the convolution's are,
    so that XLA computes them once for both.
    """
    matrices, places = _widened(w), (3, 1, 2, 0)
    return _convolution(y, [[matrices[row][column] for column in places] for row in places], 0, geometry)


def _convolution(x: Array, matrices: list[list[Array]], channels: int, geometry: Geometry) -> Array:
    """Images and a matrix for each place, whose axis ``channels`` is the images' channels, to outputs."""

    def some(images: Array) -> Array:
        """To channels last: in a loop XLA transposes outputs one number after the other."""
        rows = zip(_tiled(images, geometry), matrices, strict=True)
        return _outputs([_products(tiles, row, (1, channels), geometry) for tiles, row in rows], geometry)

    outputs = mapped(some, x, max(1, _step(x, matrices[0][0].shape[1 - channels], geometry)))
    return channels_first(outputs[:, : geometry.outputs[0], : geometry.outputs[1]])


def suits_gradient(x: Array, outputs: int, geometry: Geometry) -> bool:
    """Whether the gradient of the kernel is the fastest so, for float32."""
    if not _is_filter(x, outputs, geometry) or x.shape[1] * outputs < SOME_WEIGHTS:
        return False
    return _step(x, outputs, geometry, whole=True) > 0


def kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """Images and a weight for each output to ``(O, C, 3, 3)``: the transpose of the above, tiles times tiles."""

    def some(images: Array, weights: Array) -> Array:
        each = zip(_spread(weights, geometry), _tiled(images, geometry), strict=True)
        products = [_products(spread, tiles, (0, 0), geometry) for spread, tiles in each]
        tall = [_narrowed(column) for column in zip(*products, strict=True)]
        return jnp.stack([element for row in zip(*tall, strict=True) for element in _narrowed(row)], -1)

    elements = summed(some, max(1, _step(x, y.shape[1], geometry, whole=True)), x, y)
    return elements.reshape(*elements.shape[:2], 3, 3)


def _is_filter(x: Array, outputs: int, geometry: Geometry) -> bool:
    """Whether it is 3 x 3 of many channels, with neither strides nor groups, and most outputs of tiles are used."""
    plain = geometry.groups == max(geometry.strides) == max(geometry.dilations) == 1
    if not plain or geometry.kernel_size != (3, 3) or x.dtype != jnp.float32:
        return False
    used = 4 * math.prod(_tiles(geometry)) <= WASTE * math.prod(geometry.outputs)
    return used and min(x.shape[1], outputs) >= SOME_CHANNELS


def _tiles(geometry: Geometry) -> tuple[int, int]:
    rows, columns = (-(-count // 2) for count in geometry.outputs)
    return rows, columns


def _step(x: Array, outputs: int, geometry: Geometry, whole: bool = False) -> int:
    """As many images as stay in the cache; 0 where one does not, or has few tiles for all the weights there are.

    Args:
        x: the images.
        outputs: channels of the outputs.
        geometry: of the convolution.
        whole: whether a large kernel, whose gradients would have to be added up, has all images at once or none.
    """
    (images, channels), tiles, itemsize = x.shape[:2], math.prod(_tiles(geometry)), x.dtype.itemsize
    weights, results = channels * outputs, images * outputs * math.prod(geometry.outputs)
    each = 16 * tiles * (channels + outputs) * itemsize
    limit = allowed((x.size + 9 * weights + results) * itemsize, SHARE)
    if whole and 16 * weights * itemsize > CACHE / 2:
        step = images if images * each <= min(limit, 2 * CACHE) else 0
    else:
        step = at_once(images, each, min(limit, CACHE)) if each <= min(limit, CACHE) else 0
    return step if 2 * step * tiles * (channels + outputs) >= weights else 0


def _widened(w: Array) -> list[list[Array]]:
    """``G g G'``: ``(O, C, 3, 3)`` to four rows of four ``(O, C)``."""

    def widened(first: Array, middle: Array, last: Array) -> list[Array]:
        outer, inner = (first + last) / 2, middle / 2
        return [first, outer + inner, outer - inner, last]

    tall = [widened(*(w[:, :, row, column] for row in range(3))) for column in range(3)]
    return [widened(*columns) for columns in zip(*tall, strict=True)]


def _tiled(images: Array, geometry: Geometry) -> list[list[Array]]:
    """``B' d B``: ``(N, C, H, W)`` to four rows of four ``(tiles, C)``."""
    (rows, columns) = tiles = _tiles(geometry)
    each = zip(tiles, geometry.sizes, geometry.pads, strict=True)
    pads = [(before, 2 * count + 2 - size - before) for count, size, (before, _) in each]
    images = padded(channels_last(images), pads, first=1)
    tall = _differences([images[:, row : row + 2 * rows - 1 : 2] for row in range(4)])
    wide = [_differences([row[:, :, at : at + 2 * columns - 1 : 2] for at in range(4)]) for row in tall]
    return [[at.reshape(-1, images.shape[-1]) for at in row] for row in wide]


def _spread(weights: Array, geometry: Geometry) -> list[list[Array]]:
    """``A y A'``: ``(N, O, *outputs)`` to four rows of four ``(tiles, O)``."""
    pads = [(0, 2 * count - size) for count, size in zip(_tiles(geometry), geometry.outputs, strict=True)]
    weights = padded(channels_last(weights), pads, first=1)

    def spread(first: Array, last: Array) -> list[Array]:
        return [first, first + last, first - last, -last]

    tall = spread(weights[:, ::2], weights[:, 1::2])
    wide = [spread(row[:, :, ::2], row[:, :, 1::2]) for row in tall]
    return [[at.reshape(-1, weights.shape[-1]) for at in row] for row in wide]


def _products(a: list[Array], b: list[Array], contracted: tuple[int, int], geometry: Geometry) -> list[Array]:
    """A matrix product for each place of a row."""
    axes = (contracted[:1], contracted[1:])
    return [lax.dot_general(x, y, (axes, ((), ())), precision=geometry.precision) for x, y in zip(a, b, strict=True)]


def _outputs(products: list[list[Array]], geometry: Geometry) -> Array:
    """``A' m A``: four rows of four ``(tiles, O)`` to ``(N, 2 * rows, 2 * columns, O)``."""
    rows, columns = _tiles(geometry)
    wide = [jnp.stack(_sums([m.reshape(-1, rows, columns, m.shape[-1]) for m in row]), 3) for row in products]
    outputs = jnp.stack(_sums(wide), 2)
    return outputs.reshape(outputs.shape[0], 2 * rows, 2 * columns, -1)


def _differences(four: Sequence[Array]) -> list[Array]:
    """``B' d``."""
    return [four[0] - four[2], four[1] + four[2], four[2] - four[1], four[1] - four[3]]


def _sums(four: Sequence[Array]) -> list[Array]:
    """``A' m``."""
    return [four[0] + four[1] + four[2], four[1] - four[2] - four[3]]


def _narrowed(four: Sequence[Array]) -> list[Array]:
    """``G' k``."""
    total, difference = (four[1] + four[2]) / 2, (four[1] - four[2]) / 2
    return [four[0] + total, difference, total + four[3]]
