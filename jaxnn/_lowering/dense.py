"""Many channels without groups: XLA's own convolution, in the form that its CPU library is fastest at.

The library behind XLA's convolution on a CPU (YNNPACK) wants channels last, and shares work out among threads only
along the last axis of the outputs and along blocks of output channels. Where a kernel is too small to give two blocks,
the outputs are laid out as one long axis: the images' rows that a kernel's row meets, end to end, once for each row of
the kernel. A kernel's element then is a step along that axis, and what a window meets across the end of a row is
dropped. Measured for 8 images of 64 channels, 56 x 56, kernel 3 x 3: 6.4 ms against 10.5, torch 4.6.

Where the copies of that layout do not pay, the outputs get one more row than the images have. The library declines
such a convolution, and XLA's older one (Eigen), which always shares the work, takes it. Measured for 4 images of
64 channels, 32 x 32, kernel 3 x 3 dilated by 2, on another machine: 3.8 ms against 6.2, torch 2.6.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.portions import at_once, mapped
from jaxnn._lowering.windows import channels_first, channels_last, padded

BLOCKS = 2**17
"""Numbers in a kernel from which the library cuts its output channels into blocks; measured at 1 MB of second cache."""

TERMS = 256
"""Products of one output above which rows end to end pay for the copies of images and outputs that they take."""

WORK = 3 * 2**27
"""Products of all outputs from which they do."""

ROW_BYTES = 6 * 2**20
"""Memory for the stacked rows of the images that are convolved at once."""

SOME_CHANNELS = 16
"""Channels of images and of outputs from which a row more pays."""

SPARE = 4
"""Rows, or columns, of the outputs that there must be for each that is computed and dropped."""


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, *sizes)`` and ``(O, C, *kernel)`` to ``(N, O, *outputs)``."""
    kernel = jnp.moveaxis(w, (0, 1), (-1, -2))
    if not _suits_rows(x, w, geometry):
        axis, more = _beyond(w, geometry)
        pads = [(before, after + more * (i == axis)) for i, (before, after) in enumerate(geometry.pads)]
        outputs = _last(channels_last(x), kernel, geometry._replace(pads=tuple(pads)))
        return channels_first(lax.slice_in_dim(outputs, 0, geometry.outputs[axis], axis=1 + axis))

    def some(images: Array) -> Array:
        return channels_first(_in_rows(channels_last(images), kernel, geometry))

    # A few images at a time: what they take stays in the cache.
    stacked = geometry.kernel_size[0] * x.size // x.shape[0] * x.dtype.itemsize
    return mapped(some, x, at_once(x.shape[0], stacked, ROW_BYTES))


def kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """Images and a weight for each output to ``(O, C, *kernel)``: a convolution of channels, over images; stride 1."""
    swapped = geometry._replace(dilations=geometry.strides, strides=geometry.dilations)
    found = _last(jnp.moveaxis(x, (0, 1), (-1, 0)), jnp.moveaxis(y, (0, 1), (-2, -1)), swapped)
    return jnp.moveaxis(found, (0, -1), (1, 0))


def _last(images: Array, kernel: Array, geometry: Geometry) -> Array:
    """XLA's, with channels last and said to be: it finds that out itself, but not within a loop, where it is slow."""
    spatial = "DHW"[-len(geometry.sizes) :]
    return lax.conv_general_dilated(
        images,
        kernel,
        geometry.strides,
        geometry.pads,
        rhs_dilation=geometry.dilations,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        precision=geometry.precision,
    )


def _is_shared(w: Array, geometry: Geometry) -> bool:
    """Whether all threads take part, or there is nothing to be done about it."""
    return len(geometry.sizes) != 2 or (w.size >= BLOCKS and w.shape[0] > 64)


def _beyond(w: Array, geometry: Geometry) -> tuple[int, int]:
    """An axis, and how many outputs more make them more there than the images have; 0 where it does not pay."""
    missing = [size + 1 - count for size, count in zip(geometry.sizes, geometry.outputs, strict=True)]
    axis = min(range(len(missing)), key=lambda i: missing[i] / geometry.outputs[i])
    suited = min(w.shape[:2]) >= SOME_CHANNELS and max(geometry.strides) == 1 and not _is_shared(w, geometry)
    pays = suited and 0 < missing[axis] * SPARE <= geometry.outputs[axis]
    return axis, missing[axis] if pays else 0


def _suits_rows(x: Array, w: Array, geometry: Geometry) -> bool:
    if _is_shared(w, geometry):
        return False
    results = x.shape[0] * w.shape[0] * math.prod(geometry.outputs)
    terms = math.prod(w.shape[1:])
    row = x.shape[0] * x.shape[1] * (geometry.sizes[1] + sum(geometry.pads[1]))
    stacked = row * geometry.outputs[0] * geometry.kernel_size[0]
    fits = stacked * x.dtype.itemsize <= 2 * ROW_BYTES * x.shape[0]
    return fits and terms > TERMS and results * terms >= WORK and stacked <= 2 * (x.size + results)


def _in_rows(images: Array, kernel: Array, geometry: Geometry) -> Array:
    count, *_, channels = images.shape
    rows, last = geometry.outputs
    taps, width = geometry.kernel_size
    step, stride = geometry.strides
    apart, spread = geometry.dilations
    before, after = geometry.pads[-1]
    row = geometry.sizes[-1] + before + after
    after += -row % stride  # so that every row begins at a step of the stride
    row += -row % stride
    images = padded(images, [geometry.pads[0], (before, after)], first=1)
    images = lax.optimization_barrier(images)  # or each of the stacked parts would be computed from the start
    span = (rows - 1) * step + 1
    parts = [lax.slice_in_dim(images, tap * apart, tap * apart + span, step, axis=1) for tap in range(taps)]
    stacked = jnp.stack([part.reshape(count, -1, channels) for part in parts], 1)
    lines = geometry._replace(
        sizes=stacked.shape[1:3],
        strides=(1, stride),
        pads=((0, 0), (0, (width - 1) * spread)),
        dilations=(1, spread),
    )
    outputs = _last(stacked, kernel, lines)
    used = outputs.reshape(count, rows, row // stride, -1)
    return lax.slice_in_dim(used, 0, last, axis=-2)
