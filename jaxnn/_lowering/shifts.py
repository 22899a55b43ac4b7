"""Few products for an output, as of depthwise kernels: shifted images, each times a number a channel, added up."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.borders import bordered
from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.windows import grouped, padded, positions, window

UNROLLED_TERMS = 384
"""Products that one step of a loop over rows adds up, at most: more would compile slowly."""

SUMS = 2
"""In how many sums the products of an output are added up: with one, each addition would wait for the one before."""


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, *sizes)`` and ``(O, C / groups, *kernel)`` to ``(N, O, *outputs)``."""
    groups, places = geometry.groups, list(positions(geometry.kernel_size))
    shape = (x.shape[0], groups, w.shape[0] // groups, *geometry.outputs)
    factors = w.reshape(*shape[1:3], w.shape[1], len(places))

    def products(x: Array) -> Array:
        # Plain operators of XLA: with a kernel of 7 x 7 jax.numpy's would take longer to trace than all else.
        images = grouped(padded(x, geometry.pads), groups, 1)
        channels = [lax.index_in_dim(images, channel, 2, keepdims=False) for channel in range(w.shape[1])]
        sums = [jnp.zeros(shape, x.dtype)] * SUMS
        for place, position in enumerate(places):
            for channel, image in enumerate(channels):
                met = lax.broadcast_in_dim(window(image, position, geometry), shape, (0, 1, *range(3, len(shape))))
                start = (0, 0, channel, place)
                factor = lax.slice(factors, start, (*shape[1:3], channel + 1, place + 1))
                product = met * lax.broadcast_in_dim(factor.reshape(shape[1:3]), shape, (1, 2))
                turn = (place + channel) % SUMS
                sums[turn] = sums[turn] + product
        return sum(sums[1:], sums[0]).reshape(x.shape[0], w.shape[0], *geometry.outputs)

    return bordered(products, x, jax.ShapeDtypeStruct((x.shape[0], w.shape[0], *geometry.outputs), x.dtype))


def kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """Images and a weight for each output to ``(O, C / groups, *kernel)``.

    Some rows of an image at a time: products add up along the vector units, and at the end across them.
    """
    groups, taps = geometry.groups, list(positions(geometry.kernel_size))
    stride, rows = geometry.strides[0], geometry.outputs[0]
    # Either one row, a step short enough for one thread, or so many that it pays to share them out among threads.
    most = min(rows, UNROLLED_TERMS // len(taps))
    count = -(-rows // most) if most >= min(rows, 16) else rows
    at_once = -(-rows // count)
    band = (at_once - 1) * stride + geometry.dilations[0] * (geometry.kernel_size[0] - 1) + 1
    # The last rows may end behind the image, where they weigh nothing.
    images = padded(x, geometry.pads)
    images = padded(images, [(0, max(0, (count - 1) * at_once * stride + band - images.shape[2]))])
    weights = padded(y, [(0, count * at_once - rows)])
    lines = geometry._replace(
        sizes=(1, *geometry.sizes[1:]),
        kernel_size=(1, *geometry.kernel_size[1:]),
        pads=((0, 0), *geometry.pads[1:]),
    )

    def step(totals: list[Array], index: Array) -> tuple[list[Array], None]:
        image, first = index // count, index % count * at_once
        met = _rows(images, image, first * stride, band)
        weight = _rows(weights, image, first, at_once)
        new = []
        for total, (tap, *position) in zip(totals, taps, strict=True):
            for row in range(at_once):
                start = row * stride + tap * geometry.dilations[0]
                line = window(met[:, start : start + 1], (0, *position), lines)
                each = grouped(weight[:, row : row + 1], groups, 0)[:, :, None]
                total = total + grouped(line, groups, 0)[:, None] * each
            new.append(total)
        return new, None

    shape = (groups, y.shape[1] // groups, x.shape[1] // groups, 1, *geometry.outputs[1:])
    start = [jnp.zeros(shape, x.dtype)] * len(taps)
    totals, _ = lax.scan(step, start, jnp.arange(x.shape[0] * count))
    sums = jnp.stack([jnp.sum(total, tuple(range(3, total.ndim))) for total in totals], -1)
    return sums.reshape(y.shape[1], -1, *geometry.kernel_size)


def _rows(images: Array, image: Array, first: Array, count: int) -> Array:
    """``count`` rows of one image."""
    starts = [image, jnp.zeros_like(image), first] + [jnp.zeros_like(image)] * (images.ndim - 3)
    return lax.dynamic_slice(images, starts, (1, images.shape[1], count, *images.shape[3:]))[0]
