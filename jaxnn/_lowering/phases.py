"""The gradient of the images at a stride larger than one: as many images as places within a stride, woven together."""

import itertools
import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry, mirrored
from jaxnn._lowering.windows import padded, woven


def waste(geometry: Geometry) -> float:
    """How many times the products of this gradient are those that are needed."""
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


def _kernel(w: Array, taps: tuple[int, ...], geometry: Geometry) -> Array:
    """``(O, C / groups, *kernel)`` as ``(O, places * C / groups, *taps)``."""
    strides, rank = geometry.strides, len(taps)
    missing = [(0, t * s - k) for t, s, k in zip(taps, strides, geometry.kernel_size, strict=True)]
    kernel = padded(w, missing).reshape(*w.shape[:2], *itertools.chain(*zip(taps, strides, strict=True)))
    places = range(3, 3 + 2 * rank, 2)
    kernel = kernel.transpose(0, *places, 1, *(i - 1 for i in places))
    return jnp.reshape(kernel, (w.shape[0], -1, *taps))
