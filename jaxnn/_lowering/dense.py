"""Many channels without groups: XLA's own convolution, in the form that its CPU library is fastest at.

The library behind XLA's convolution on a CPU (YNNPACK) wants channels last, and shares work out among threads only along
the last axis of the outputs and along blocks of output channels. Where a kernel is too small to give two blocks, the
outputs are laid out as one long axis: the images' rows that a kernel's row meets, end to end, once for each row of the
kernel. A kernel's element then is a step along that axis, and what a window meets across the end of a row is dropped.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.windows import channels_first, channels_last, padded, positions

BLOCKS = 2**17
"""Numbers in a kernel from which the library cuts its output channels into blocks; measured at 1 MB of second cache."""


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, *sizes)`` and ``(O, C, *kernel)`` to ``(N, O, *outputs)``."""
    images, kernel = channels_last(x), jnp.moveaxis(w, (0, 1), (-1, -2))
    if w.size >= BLOCKS and w.shape[0] > 64 or _stacked_size(x, geometry) > 2 * (x.size + _size(x, w, geometry)):
        convolve = _convolution
    else:
        convolve = _in_rows
    return channels_first(convolve(images, kernel, geometry))


def _size(x: Array, w: Array, geometry: Geometry) -> int:
    return x.shape[0] * w.shape[0] * math.prod(geometry.outputs)


def _stacked_size(x: Array, geometry: Geometry) -> int:
    """Numbers in the rows that :func:`_in_rows` stacks."""
    rows = math.prod(geometry.outputs[:-1]) * math.prod(geometry.kernel_size[:-1])
    return x.shape[0] * x.shape[1] * rows * (geometry.sizes[-1] + sum(geometry.pads[-1]))


def _convolution(images: Array, kernel: Array, geometry: Geometry) -> Array:
    axes = "DHW"[-len(geometry.sizes) :]
    return lax.conv_general_dilated(
        images,
        kernel,
        geometry.strides,
        geometry.pads,
        rhs_dilation=geometry.dilations,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        precision=geometry.precision,
    )


def _in_rows(images: Array, kernel: Array, geometry: Geometry) -> Array:
    count, *_, channels = images.shape
    *leading, last = geometry.outputs
    *taps, width = geometry.kernel_size
    *steps, stride = geometry.strides
    *spreads, spread = geometry.dilations
    before, after = geometry.pads[-1]
    row = geometry.sizes[-1] + before + after
    after += -row % stride  # so that every row begins at a step of the stride
    row += -row % stride
    images = padded(images, [*geometry.pads[:-1], (before, after)], first=1)
    images = lax.optimization_barrier(images)  # or each of the stacked parts would be computed from the start
    parts = [
        lax.slice(
            images,
            [0, *(p * d for p, d in zip(position, spreads, strict=True)), 0, 0],
            [count, *(p * d + (o - 1) * s + 1 for p, d, o, s in zip(position, spreads, leading, steps, strict=True))]
            + [row, channels],
            [1, *steps, 1, 1],
        ).reshape(count, -1, channels)
        for position in positions(taps)
    ]
    stacked = jnp.stack(parts, 1)
    outputs = lax.conv_general_dilated(
        stacked,
        kernel.reshape(-1, width, *kernel.shape[-2:]),
        (1, stride),
        ((0, 0), (0, (width - 1) * spread)),
        rhs_dilation=(1, spread),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=geometry.precision,
    )
    used = outputs[:, 0, : stacked.shape[2] // stride].reshape(count, *leading, row // stride, -1)
    return lax.slice_in_dim(used, 0, last, axis=-2)
