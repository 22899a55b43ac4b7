"""A long kernel of one axis as one of two, so that few windows are copied: a kernel of 128 elements as 8 rows of 16.

Images are cut into rows as long as the kernel's, each followed by what the next begins with; a convolution over both
axes then gives the outputs, row by row. Measured for 2 images of 768 channels in 16 groups, 49 long, with a kernel of
128, as in wav2vec 2.0: the gradient of the kernel 51 ms against 241. For 4 images of 64 channels in 4 groups, 512 long,
with a kernel of 31: 2.8 ms against 3.8, the gradient 3.7 against 43.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.windows import padded

Operator = Callable[[Array, Array, Geometry], Array]

LONG = 16
"""Elements of a kernel from which it is folded."""

MANY_TERMS = 4096
"""Products of an output from which XLA's convolution, though not its gradient of the kernel, is the faster."""


def suits(geometry: Geometry) -> bool:
    """Whether it has one axis, a long kernel in groups, and neither stride nor dilation."""
    return (
        len(geometry.sizes) == 1
        and geometry.groups > 1
        and geometry.kernel_size[0] >= LONG
        and geometry.strides == geometry.dilations == (1,)
    )


def is_slow(w: Array, geometry: Geometry) -> bool:
    """Whether XLA's convolution is faster than a folded one."""
    return suits(geometry) and math.prod(w.shape[1:]) >= MANY_TERMS


def convolution(x: Array, w: Array, geometry: Geometry, convolve: Operator) -> Array:
    """``(N, C, size)`` and ``(O, C / groups, kernel)`` to ``(N, O, outputs)``."""
    folded = _folded(geometry)
    kernel = padded(w, [(0, math.prod(folded.kernel_size) - w.shape[2])]).reshape(*w.shape[:2], *folded.kernel_size)
    outputs = convolve(_rows(x, geometry, folded), kernel, folded)
    return outputs.reshape(*outputs.shape[:2], -1)[..., : geometry.outputs[0]]


def kernel_gradient(x: Array, y: Array, geometry: Geometry, gradient: Operator) -> Array:
    """Images and a weight for each output to ``(O, C / groups, kernel)``."""
    folded = _folded(geometry)
    weights = padded(y, [(0, math.prod(folded.outputs) - y.shape[2])]).reshape(*y.shape[:2], *folded.outputs)
    found = gradient(_rows(x, geometry, folded), weights, folded)
    return found.reshape(*found.shape[:2], -1)[..., : geometry.kernel_size[0]]


def _folded(geometry: Geometry) -> Geometry:
    """The convolution of rows: as many rows of the kernel as elements in one, or fewer."""
    elements, outputs = geometry.kernel_size[0], geometry.outputs[0]
    row = 2 ** math.ceil(math.log2(elements) / 2)
    taps = -(-elements // row)
    rows = -(-outputs // row) + taps - 1
    none = ((0, 0), (0, 0))
    return geometry._replace(
        sizes=(rows, 2 * row - 1), kernel_size=(taps, row), strides=(1, 1), pads=none, dilations=(1, 1)
    )


def _rows(x: Array, geometry: Geometry, folded: Geometry) -> Array:
    rows, row = folded.sizes[0], folded.kernel_size[1]
    before = geometry.pads[0][0]
    whole = padded(x, [(before, (rows + 1) * row - before - x.shape[2])])
    cut = lax.optimization_barrier(whole).reshape(*x.shape[:2], rows + 1, row)
    return jnp.concatenate([cut[..., :-1, :], cut[..., 1:, :-1]], -1)
