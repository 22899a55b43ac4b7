"""Every window of an image as a column, the kernel's elements first, and one matrix product for each image."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.windows import grouped, padded, positions, product, window

COLUMN_BYTES = 8 * 2**20
"""Memory for columns, so that they stay in the cache; a larger image is cut into bands of half as much."""


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, *sizes)`` and ``(O, C / groups, *kernel)`` to ``(N, O, *outputs)``."""
    groups = geometry.groups
    flat = jnp.moveaxis(grouped(w, groups, 0), 2, -1).reshape(groups, w.shape[0] // groups, -1)
    images, band = _bands(padded(x, geometry.pads), geometry)

    def one(image: Array) -> Array:
        return product(flat, _columns(image, band), (2, 1), band)

    outputs = lax.map(one, images).reshape(x.shape[0], -1, w.shape[0], *band.outputs)
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    joined = outputs.swapaxes(1, 2).reshape(*x.shape[:1], w.shape[0], -1, *band.outputs[1:])
    return joined[:, :, : geometry.outputs[0]]


def kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """Images and a weight for each output to ``(O, C / groups, *kernel)``."""
    groups, channels = geometry.groups, x.shape[1] // geometry.groups
    images, band = _bands(padded(x, geometry.pads), geometry)
    rows, count = band.outputs[0], images.shape[0] // x.shape[0]
    # Outputs that the last band has too many weigh nothing.
    weights = padded(y, [(0, rows * count - y.shape[2])])
    weights = weights.reshape(*y.shape[:2], count, rows, *y.shape[3:]).swapaxes(1, 2)

    def one(image: Array, weights: Array) -> Array:
        columns = _columns(image, band)
        return product(weights.reshape(groups, -1, columns.shape[-1]), columns, (2, 2), band)

    total = summed(one, images, weights.reshape(-1, y.shape[1], *band.outputs))
    return jnp.moveaxis(total.reshape(y.shape[1], *geometry.kernel_size, channels), -1, 1)


def _columns(image: Array, geometry: Geometry) -> Array:
    """``(C, *padded)`` as ``(groups, kernel * C / groups, outputs)``."""
    windows = jnp.stack([window(image, position, geometry) for position in positions(geometry.kernel_size)])
    if geometry.groups > 1:
        windows = grouped(windows, geometry.groups, 1).swapaxes(0, 1)
    return windows.reshape(geometry.groups, -1, math.prod(geometry.outputs))


def summed(function: Callable[..., Array], *images: Array) -> Array:
    """The sum of ``function`` of one image after the other."""
    first, *_ = images
    if first.shape[0] == 1:
        return function(*(x[0] for x in images))
    shape = jax.eval_shape(function, *(x[0] for x in images))
    start = jnp.zeros(shape.shape, shape.dtype)
    return lax.scan(lambda total, each: (total + function(*each), None), start, images)[0]


def _bands(image: Array, geometry: Geometry) -> tuple[Array, Geometry]:
    """Images cut along their first axis into overlapping bands, one band after the other, and a band's geometry."""
    outputs, stride = geometry.outputs, geometry.strides[0]
    row = image.shape[1] * math.prod(geometry.kernel_size) * math.prod(outputs[1:]) * image.dtype.itemsize
    rows = outputs[0] if row * outputs[0] <= COLUMN_BYTES else max(1, COLUMN_BYTES // (2 * row))
    count = -(-outputs[0] // rows)
    span = (rows - 1) * stride + geometry.dilations[0] * (geometry.kernel_size[0] - 1) + 1
    needed = (count - 1) * rows * stride + span
    # Bands may end behind the image, and strides may leave a rest of it.
    image = padded(image, [(0, needed - image.shape[2])])
    starts = [band * rows * stride for band in range(count)]
    cut = jnp.stack([lax.slice_in_dim(image, start, start + span, axis=2) for start in starts], 1)
    images = cut.reshape(-1, *cut.shape[2:])
    return images, geometry._replace(sizes=images.shape[2:], pads=((0, 0),) * len(outputs))
