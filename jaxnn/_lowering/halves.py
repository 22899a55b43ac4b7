"""The gradient of a kernel by one half of its columns on each side: images shifted along a row, outputs down by rows.

Columns repeat an image once for each element of the kernel. Here the image is repeated only for each element of a
kernel's row, and the weights of the outputs for each row of the kernel, moved down by as many rows, so that one product
meets every pair. Six copies in place of nine for a 3x3 kernel, each of whole rows. Measured for 2 images of 32
channels, 128 x 128: 3.6 ms against 4.9 by columns; of 64 channels, 64 x 64, 2.4 against 3.8.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.columns import summed
from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.windows import padded, window

IDLE = 1 / 9
"""The share of rows without an output, which are multiplied all the same, up to which this pays."""


def suits(x: Array, y: Array, geometry: Geometry) -> bool:
    """Whether the halves are fewer than the columns, two axes without groups or stride, and nearly all rows count."""
    if len(geometry.sizes) != 2 or geometry.groups > 1 or max(geometry.strides) > 1:
        return False
    taps, width = geometry.kernel_size
    rows = geometry.sizes[0] + sum(geometry.pads[0])
    fewer = taps * y.shape[1] + width * x.shape[1] < taps * width * x.shape[1]
    return fewer and rows <= (1 + IDLE) * geometry.outputs[0]


def kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """Images and a weight for each output to ``(O, C, *kernel)``; stride 1."""
    (taps, width), (rows, across) = geometry.kernel_size, geometry.outputs
    images = padded(x, geometry.pads)
    every = images.shape[2]
    down = [tap * geometry.dilations[0] for tap in range(taps)]
    lines = geometry._replace(sizes=images.shape[2:], kernel_size=(1, width), pads=((0, 0),) * 2)

    def one(image: Array, weights: Array) -> Array:
        columns = jnp.stack([window(image, (0, position), lines) for position in range(width)])
        moved = jnp.stack([padded(weights, [(start, every - rows - start)], first=1) for start in down])
        a, b = (each.reshape(-1, every * across) for each in (moved, columns))
        return lax.dot_general(a, b, (((1,), (1,)), ((), ())), precision=geometry.precision)

    found = summed(one, images, y).reshape(taps, y.shape[1], width, x.shape[1])
    return found.transpose(1, 3, 0, 2)
