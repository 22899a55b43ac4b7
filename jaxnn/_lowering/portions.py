"""Images a few at a time, and large ones in bands, so that copies of them stay small."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.windows import padded

LEAST_BYTES = 8 * 2**20
"""What copies may take of memory, however small images and outputs are."""

SHARE = 1.5
"""How many times the memory of images and outputs copies may take; with a padded image it is twice XLA's at most."""


def allowed(size: int, share: float = SHARE) -> float:
    """Bytes that copies of images and outputs of ``size`` bytes may take together."""
    return max(LEAST_BYTES, share * size)


def at_once(count: int, bytes_each: float, limit: float) -> int:
    """How many of ``count`` images to take in one step; their number is a multiple of it."""
    return max(n for n in range(1, count + 1) if count % n == 0 and (n == 1 or n * bytes_each <= limit))


def mapped(function: Callable[[Array], Array], images: Array, step: int) -> Array:
    """``function`` of all images, ``step`` at a time."""
    if step == images.shape[0]:
        return function(images)
    outputs = lax.map(function, images.reshape(-1, step, *images.shape[1:]))
    return outputs.reshape(images.shape[0], *outputs.shape[2:])


def summed(function: Callable[..., Array], step: int, *images: Array) -> Array:
    """The sum of ``function`` of ``step`` images after the other."""
    if step == images[0].shape[0]:
        return function(*images)
    parts = [x.reshape(-1, step, *x.shape[1:]) for x in images]
    shape = jax.eval_shape(function, *(x[0] for x in parts))
    start = jnp.zeros(shape.shape, shape.dtype)
    return lax.scan(lambda total, each: (total + function(*each), None), start, parts)[0]


def banded(images: Array, geometry: Geometry, count: int) -> tuple[Array, Geometry]:
    """Padded images cut along their first axis into overlapping bands, one behind the other, and a band's geometry.

    The last band's outputs may be more than the image has.
    """
    none = ((0, 0),) * len(geometry.sizes)
    if count == 1:
        return images, geometry._replace(sizes=images.shape[2:], pads=none)
    stride, rows = geometry.strides[0], -(-geometry.outputs[0] // count)
    span = (rows - 1) * stride + geometry.dilations[0] * (geometry.kernel_size[0] - 1) + 1
    # Bands may end behind the image, and strides may leave a rest of it.
    images = padded(images, [(0, (count - 1) * rows * stride + span - images.shape[2])])
    starts = [band * rows * stride for band in range(count)]
    cut = jnp.stack([lax.slice_in_dim(images, start, start + span, axis=2) for start in starts], 1)
    bands = cut.reshape(-1, *cut.shape[2:])
    return bands, geometry._replace(sizes=bands.shape[2:], pads=none)


def banded_outputs(y: Array, geometry: Geometry, count: int) -> Array:
    """The outputs of each band, zeros where the last has more than there are."""
    if count == 1:
        return y
    rows = -(-geometry.outputs[0] // count)
    y = padded(y, [(0, rows * count - y.shape[2])])
    cut = y.reshape(*y.shape[:2], count, rows, *y.shape[3:]).swapaxes(1, 2)
    return cut.reshape(-1, *cut.shape[2:])


def joined(outputs: Array, geometry: Geometry, count: int) -> Array:
    """The outputs of bands as those of their images."""
    if count == 1:
        return outputs
    bands = outputs.reshape(-1, count, *outputs.shape[1:]).swapaxes(1, 2)
    whole = bands.reshape(*bands.shape[:2], -1, *bands.shape[4:])
    return whole[:, :, : geometry.outputs[0]]
