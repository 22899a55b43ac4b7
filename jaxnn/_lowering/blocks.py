"""Windows that neither overlap nor are padded: 1x1 kernels, and kernels as large as their stride.

Every number of the images meets each output channel once, so that all of a batch is one matrix product, its channels
last: XLA's matrix product wants the long axis in front.
"""

import itertools
import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.windows import channels_first, channels_last, grouped, product, spread


def are_blocks(geometry: Geometry) -> bool:
    """Whether each axis has a kernel of one element, or of as many as its stride, and no padding."""
    each = zip(geometry.kernel_size, geometry.strides, geometry.dilations, geometry.pads, strict=True)
    return all(pad == (0, 0) and (k == 1 or (k == s and d == 1)) for k, s, d, pad in each)


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, *sizes)`` and ``(O, C / groups, *kernel)`` to ``(N, O, *outputs)``."""
    found = product(_blocks(x, geometry), _flat(w, geometry), (2, 2), geometry)
    outputs = jnp.moveaxis(found, 0, 1).reshape(x.shape[0], *geometry.outputs, w.shape[0])
    return channels_first(outputs)


def image_gradient(y: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, O, *outputs)`` to ``(N, C, *sizes)``."""
    outputs, kernel_size, rank = geometry.outputs, geometry.kernel_size, len(geometry.outputs)
    found = product(_rows(y, geometry), _flat(w, geometry), (2, 1), geometry)
    blocks = found.reshape(geometry.groups, y.shape[0], *outputs, w.shape[1], *kernel_size)
    spatial = itertools.chain(*((2 + i, 3 + rank + i) for i in range(rank)))
    extents = [o * k for o, k in zip(outputs, kernel_size, strict=True)]
    joined = blocks.transpose(1, 0, 2 + rank, *spatial).reshape(y.shape[0], -1, *extents)
    steps = [s if k == 1 else 1 for s, k in zip(geometry.strides, kernel_size, strict=True)]
    return spread(joined, steps, geometry.sizes)


def kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """Images and a weight for each output to ``(O, C / groups, *kernel)``."""
    # XLA's matrix product is slow where the contracted axis is the first of two, and would fold a transpose into it.
    columns = lax.optimization_barrier(_rows(y, geometry).mT)
    found = product(columns, _blocks(x, geometry), (2, 1), geometry)
    return found.reshape(y.shape[1], -1, *geometry.kernel_size)


def _flat(w: Array, geometry: Geometry) -> Array:
    return w.reshape(geometry.groups, w.shape[0] // geometry.groups, -1)


def _rows(y: Array, geometry: Geometry) -> Array:
    """``(N, O, *outputs)`` as ``(groups, N * outputs, O / groups)``."""
    rows = channels_last(y).reshape(-1, geometry.groups, y.shape[1] // geometry.groups)
    return jnp.moveaxis(rows, 1, 0)


def _blocks(x: Array, geometry: Geometry) -> Array:
    """``(N, C, *sizes)`` as ``(groups, N * outputs, C / groups * kernel)``."""
    outputs, kernel_size, rank = geometry.outputs, geometry.kernel_size, len(geometry.outputs)
    stops = [(o - 1) * s + k for o, s, k in zip(outputs, geometry.strides, kernel_size, strict=True)]
    steps = [s if k == 1 else 1 for s, k in zip(geometry.strides, kernel_size, strict=True)]
    kept = grouped(lax.slice(x, [0] * x.ndim, [*x.shape[:2], *stops], [1, 1, *steps]), geometry.groups, 1)
    split = kept.reshape(*kept.shape[:3], *itertools.chain(*zip(outputs, kernel_size, strict=True)))
    order = (1, 0, *range(3, 3 + 2 * rank, 2), 2, *range(4, 3 + 2 * rank, 2))
    return split.transpose(order).reshape(geometry.groups, x.shape[0] * math.prod(outputs), -1)
