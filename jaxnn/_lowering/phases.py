"""Gradients at a stride larger than one by convolutions of stride 1.

The images' gradient has as many images as there are places within a stride, woven together; the kernel's is that of
images cut into blocks of a stride, the places in a block as channels. A kernel that the stride does not divide is
filled up with zeros.
"""

import itertools
import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry, mirrored
from jaxnn._lowering.windows import padded, woven


def waste(geometry: Geometry) -> float:
    """How many times the products of these gradients are those that are needed."""
    each = zip(geometry.kernel_size, geometry.strides, strict=True)
    return math.prod(-(-k // s) * s / k for k, s in each)


def image_gradient(
    y: Array, w: Array, geometry: Geometry, convolve: Callable[[Array, Array, Geometry], Array]
) -> Array:
    """``(N, O, *outputs)`` to ``(N, C, *sizes)``, by a convolution of stride 1; no dilation.

    The image at ``stride * q + place - before`` gets the kernel's elements ``stride * j + place`` times ``y`` at
    ``q - j``. Places come before channels, so that weaving moves whole runs of channels where those lie last.
    """
    strides, rank, groups = geometry.strides, len(geometry.strides), geometry.groups
    taps = tuple(-(-k // s) for k, s in zip(geometry.kernel_size, strides, strict=True))
    before = [pad[0] // s for pad, s in zip(geometry.pads, strides, strict=True)]
    counts = [
        (size + pad[0] - 1) // s - first + 1
        for size, pad, s, first in zip(geometry.sizes, geometry.pads, strides, before, strict=True)
    ]
    pads = zip(taps, before, counts, y.shape[2:], strict=True)
    dense = Geometry(
        y.shape[2:],
        taps,
        (1,) * rank,
        tuple((t - 1 - first, count + first - outputs) for t, first, count, outputs in pads),
        (1,) * rank,
        groups,
        geometry.precision,
    )
    found = convolve(y, mirrored(_kernel(w, taps, geometry), groups), dense)
    channels = w.shape[1]
    found = found.reshape(y.shape[0], groups, -1, channels, *counts).swapaxes(1, 2)
    images = woven(found.reshape(y.shape[0], -1, groups * channels, *counts), strides)
    starts = [pad[0] - first * s for pad, first, s in zip(geometry.pads, before, strides, strict=True)]
    stops = [start + size for start, size in zip(starts, geometry.sizes, strict=True)]
    return lax.slice(images, [0, 0, *starts], [*images.shape[:2], *stops])


def kernel_gradient(
    x: Array, y: Array, geometry: Geometry, gradient: Callable[[Array, Array, Geometry], Array]
) -> Array:
    """Images and a weight for each output to ``(O, C / groups, *kernel)``, by a gradient of stride 1; no dilation."""
    strides, rank = geometry.strides, len(geometry.strides)
    taps = tuple(-(-k // s) for k, s in zip(geometry.kernel_size, strides, strict=True))
    blocks = tuple(n + t - 1 for n, t in zip(geometry.outputs, taps, strict=True))
    each = zip(geometry.pads, geometry.sizes, blocks, strides, strict=True)
    images = padded(x, [(before, count * s - before - size) for (before, _), size, count, s in each])
    images = images.reshape(*x.shape[:2], *itertools.chain(*zip(blocks, strides, strict=True)))
    places = range(3, 3 + 2 * rank, 2)
    images = images.transpose(0, 1, *places, *(i - 1 for i in places)).reshape(x.shape[0], -1, *blocks)
    images = lax.optimization_barrier(images)
    dense = Geometry(blocks, taps, (1,) * rank, ((0, 0),) * rank, (1,) * rank, geometry.groups, geometry.precision)
    found = gradient(images, y, dense)
    found = found.reshape(y.shape[1], x.shape[1] // geometry.groups, -1, *taps)
    whole = woven(found.swapaxes(1, 2), strides)
    return whole[(slice(None), slice(None), *map(slice, geometry.kernel_size))]


def _kernel(w: Array, taps: tuple[int, ...], geometry: Geometry) -> Array:
    """``(O, C / groups, *kernel)`` as ``(O, places * C / groups, *taps)``."""
    strides, rank = geometry.strides, len(taps)
    missing = [(0, t * s - k) for t, s, k in zip(taps, strides, geometry.kernel_size, strict=True)]
    kernel = padded(w, missing).reshape(*w.shape[:2], *itertools.chain(*zip(taps, strides, strict=True)))
    places = range(3, 3 + 2 * rank, 2)
    kernel = kernel.transpose(0, *places, 1, *(i - 1 for i in places))
    return jnp.reshape(kernel, (w.shape[0], -1, *taps))
