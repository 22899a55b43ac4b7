"""Few channels and large windows: each window in a column, copied axis by axis, and one product for each image.

Copied at once, a column of 7 x 7 places takes a choice among 49 for each number; one axis after the other, whole rows
are moved twice. Strides are cut into phases first, so that nothing is picked one number apart.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.portions import allowed, mapped
from jaxnn._lowering.windows import padded

FEW_CHANNELS = 4
"""Channels of images up to which XLA's convolution is slow, whatever the kernel."""

SOME_PLACES = 10
"""Elements of a kernel, a channel, from which two steps of copies are faster than one."""


def suits(x: Array, w: Array, geometry: Geometry) -> bool:
    """Whether windows are large, channels few, and the columns of an image small beside all there is."""
    places, count = math.prod(geometry.kernel_size), math.prod(geometry.outputs)
    if geometry.groups > 1 or len(geometry.sizes) != 2 or x.shape[1] > FEW_CHANNELS or places < SOME_PLACES:
        return False
    each = x.shape[1] * places * count * x.dtype.itemsize
    return bool(each <= allowed((x.size + x.shape[0] * w.shape[0] * count) * x.dtype.itemsize))


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, *sizes)`` and ``(O, C, *kernel)`` to ``(N, O, *outputs)``, without groups."""
    kernel = jnp.moveaxis(w, 1, -1).reshape(w.shape[0], -1)
    pads = [
        (before, after + -(size + before + after) % stride)
        for size, (before, after), stride in zip(geometry.sizes, geometry.pads, geometry.strides, strict=True)
    ]
    images = padded(x, pads)

    def some(images: Array) -> Array:
        columns = images[0]
        for axis in reversed(range(len(geometry.sizes))):
            columns = _along(columns, axis, geometry)
        return jnp.dot(kernel, columns.reshape(kernel.shape[1], -1), precision=geometry.precision)[None]

    return mapped(some, images, 1).reshape(x.shape[0], w.shape[0], *geometry.outputs)


def _along(columns: Array, axis: int, geometry: Geometry) -> Array:
    """``(places, *sizes)`` with the places of windows along ``axis`` in front of those there are."""
    stride, dilation, outputs = geometry.strides[axis], geometry.dilations[axis], geometry.outputs[axis]
    shape = columns.shape
    steps = columns.reshape(*shape[: 1 + axis], shape[1 + axis] // stride, stride, *shape[2 + axis :])
    parts = []
    for tap in range(geometry.kernel_size[axis]):
        start, phase = divmod(tap * dilation, stride)
        part = lax.index_in_dim(steps, phase, 2 + axis, keepdims=False)
        parts.append(lax.slice_in_dim(part, start, start + outputs, axis=1 + axis))
    return jnp.concatenate(parts)
