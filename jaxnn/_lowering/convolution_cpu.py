"""Which algorithm convolves on a CPU, by the class of the static shapes.

XLA hands a convolution to YNNPACK, which is as fast as torch where channels lie last and are many. It loses by tens
where channels fall into groups, where the images are dilated (transposed convolutions, gradients of strided ones), and
in gradients of kernels. Each operator here returns None where XLA's is kept.

========= ===================================================== ====================================================
class     which                                                 algorithm
========= ===================================================== ====================================================
pointwise 1x1 kernels, where an image has many outputs          a matrix product for each image
shifts    in groups, few products an output (``FEW_TERMS``)     shifted multiply-adds: depthwise, narrow groups
blocks    other windows that neither overlap nor are padded     one matrix product: patch embeddings
columns   windows of more than 3x3, at most four channels       one product an image, its windows copied by axes
folded    long kernels of one axis, in groups                   the class of the rest, their elements in rows
taps      other groups, volumes, little to copy                 products with the kernel's axes on either side
winograd  3x3 kernels of many channels, float32                 16 products for four outputs, not 36
dense     the rest                                              XLA's, channels last; rows end to end, or a row more
========= ===================================================== ====================================================

The gradient of the images is, at stride 1, a convolution with the mirrored kernel. At a larger stride it goes by
phases, one output channel for each place within a stride, where that multiplies few zeros, else by taps, or as XLA's
where the kernel is larger than images and outputs. The gradient of the kernel goes by Winograd's filtering too, where
that suits it, else by taps; by phases from ``LONG_STRIDE`` on; and as XLA's convolution of channels where images have
few outputs.

``python -m parity bench --suite conv`` measures every class but ``folded``. Here milliseconds, on two cores of an
AMD EPYC; those of ``winograd`` and ``columns`` on one without AVX-512:

=========================================== ========= ====== ====== ======
convolution, or gradient                    class      jaxnn    XLA  torch
=========================================== ========= ====== ====== ======
8 x 64 @ 56 to 256, 1x1                     pointwise    2.1    8.3    3.0
8 x 96 @ 56, 3x3, depthwise                 shifts       1.1     47    0.9
8 x 3 @ 224 to 192, 16x16/16                blocks       1.7    2.1    1.2
8 x 3 @ 224 to 64, 7x7/2                    columns       27     35     14
8 x 128 @ 28, 3x3, in 8 groups              taps         1.9    9.0    0.6
8 x 16 @ 24 x 24 x 24, 3x3x3                taps         7.7     51    3.4
8 x 64 @ 56, 3x3                            winograd    13.3     35   14.6
8 x 64 @ 56, 3x3, where that does not fit   dense        5.7    9.1    3.9
images: 8 x 96 @ 56, 3x3/2, depthwise       taps         0.6     66    0.5
images: 8 x 64 @ 56 to 128, 3x3/2           taps         4.2    4.4    2.8
images: 8 x 64 @ 56, 4x4/2                  phases       2.8    5.8    2.6
kernel: 8 x 64 @ 56, 3x3                    taps         8.1   13.1    4.4
kernel: 8 x 128 @ 28, 3x3                   winograd    16.5     50   20.4
kernel: 8 x 128 @ 28, 3x3, in 8 groups      taps         2.9    331    0.7
kernel: 8 x 96 @ 14, 5x5                    dense        2.4    3.1    1.5
=========================================== ========= ====== ====== ======
"""

import math

import jax.numpy as jnp
from jaxtyping import Array

from jaxnn._lowering import blocks, columns, dense, folded, phases, pointwise, shifts, taps, winograd
from jaxnn._lowering.geometry import Geometry, mirrored

FEW_TERMS = 64
"""Products of one output up to which a kernel in groups is too narrow for a matrix product."""

THIN_TERMS = 192
"""Products up to which it is where a group has two channels at most; more take longer to compile than they save."""

MANY_RESULTS = 32
"""Results for each channel of the outputs from which it costs more to add them up than to multiply zeros."""

FEW_STEPS = 4
"""Steps of a stride up to which XLA, which puts as many zeros between the outputs, is the faster then."""

FEW_SUMMANDS = 9
"""Elements of a depthwise kernel up to which its products with strided images are added up as they come."""

WASTE = 1.2
"""How many times the products of a gradient by phases may be those that are needed."""

PLANE_WASTE = 1.5
"""How many times for images, without groups and with ``SOME_CHANNELS`` on either side."""

SOME_CHANNELS = 16
"""Channels of images and of outputs from which the convolution of phases is fast."""

LONG_STRIDE = 3
"""From here on the gradient of the kernel goes by blocks of a stride rather than by every element."""

FEW_OUTPUTS = 8
"""Outputs of an image for each place that a window spans up to which XLA's own gradient of the kernel is faster."""

LONG = 7
"""Elements of a kernel of one axis from which it is too where channels are few, as there is much to copy then."""

NARROW = 64
"""Channels of images and outputs up to which they are few."""


def convolution(x: Array, w: Array, *, geometry: Geometry) -> Array | None:
    """Cross-correlation of ``x`` with ``w``, or None."""
    if folded.is_slow(w, geometry) or not _is_suited(x, w, geometry):
        return None
    return _convolution(x, w, geometry)


def _convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    if pointwise.suits(w, geometry):
        return pointwise.convolution(x, w, geometry)
    if geometry.groups > 1 and math.prod(w.shape[1:]) <= (THIN_TERMS if w.shape[1] <= 2 else FEW_TERMS):
        return shifts.convolution(x, w, geometry)
    if folded.suits(geometry):
        return folded.convolution(x, w, geometry, _convolution)
    if blocks.are_blocks(geometry):
        return blocks.convolution(x, w, geometry)
    if columns.suits(x, w, geometry):
        return columns.convolution(x, w, geometry)
    if _goes_by_tiles(x, w.shape[0], geometry):
        return winograd.convolution(x, w, geometry)
    if geometry.groups > 1 or len(geometry.sizes) == 3 or taps.copies_little(x.shape[1], w.shape[0], geometry):
        return taps.convolution(x, w, geometry)
    return dense.convolution(x, w, geometry)


def image_gradient(y: Array, w: Array, *, geometry: Geometry) -> Array | None:
    """The gradient of the images, a transposed convolution of ``y`` with ``w``, or None."""
    if folded.is_slow(w, geometry) or not _is_suited(y, w, geometry):
        return None
    if pointwise.suits(w, geometry):
        return pointwise.image_gradient(y, w, geometry)
    if blocks.are_blocks(geometry):
        return blocks.image_gradient(y, w, geometry)
    if max(geometry.strides) == 1:
        transposed = geometry._replace(sizes=y.shape[2:], pads=geometry.transposed_pads)
        if _goes_by_tiles(y, w.shape[1], transposed):
            return winograd.image_gradient(y, w, transposed)
        return _convolution(y, mirrored(w, geometry.groups), transposed)
    # Sums of more are compiled to several passes over the images.
    unrolled = geometry.groups == w.shape[0] and math.prod(geometry.kernel_size) > FEW_SUMMANDS
    many = geometry.groups == 1 and w[0].size > MANY_RESULTS * w.shape[0]
    few_steps = math.prod(geometry.strides) <= FEW_STEPS
    plane = geometry.groups == 1 and len(geometry.sizes) == 2 and min(w.shape[:2]) >= SOME_CHANNELS
    waste = phases.waste(geometry)
    if plane and few_steps and waste > WASTE and w.size > y.size + y.shape[0] * w.shape[1] * math.prod(geometry.sizes):
        return None  # a kernel so large costs more to rearrange
    if max(geometry.dilations) == 1 and (many or unrolled or waste <= (PLANE_WASTE if plane else WASTE)):
        return phases.image_gradient(y, w, geometry, _convolution)
    return None if many and few_steps else taps.image_gradient(y, w, geometry)


def kernel_gradient(x: Array, y: Array, *, geometry: Geometry) -> Array | None:
    """The gradient of the kernel from images ``x`` and ``y``, a weight for each output, or None."""
    return _kernel_gradient(x, y, geometry) if _is_suited(x, y, geometry) else None


def _kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    if pointwise.is_pointwise(geometry) and math.prod(geometry.outputs) >= pointwise.SOME_OUTPUTS:
        return pointwise.kernel_gradient(x, y, geometry)
    if geometry.groups > 1 and x.shape[1] // geometry.groups * math.prod(geometry.kernel_size) <= FEW_TERMS:
        return shifts.kernel_gradient(x, y, geometry)
    if folded.suits(geometry):
        return folded.kernel_gradient(x, y, geometry, _kernel_gradient)
    if blocks.are_blocks(geometry):
        return blocks.kernel_gradient(x, y, geometry)
    if max(geometry.strides) >= LONG_STRIDE and max(geometry.dilations) == 1 and phases.waste(geometry) <= WASTE:
        return phases.kernel_gradient(x, y, geometry, _kernel_gradient)
    if winograd.suits_gradient(x, y.shape[1], geometry):
        return winograd.kernel_gradient(x, y, geometry)
    spans = [d * (k - 1) + 1 for d, k in zip(geometry.dilations, geometry.kernel_size, strict=True)]
    few = math.prod(geometry.outputs) <= FEW_OUTPUTS * math.prod(spans)
    narrow = max(x.shape[1], y.shape[1]) <= NARROW and len(geometry.sizes) == 1 and geometry.kernel_size[0] >= LONG
    if (few or narrow) and geometry.groups == 1 and max(geometry.strides) == 1 and len(geometry.sizes) < 3:
        return dense.kernel_gradient(x, y, geometry)
    return taps.kernel_gradient(x, y, geometry)


def _goes_by_tiles(x: Array, outputs: int, geometry: Geometry) -> bool:
    """Whether Winograd's filtering is the class, of the convolution as of the gradient of its images."""
    return winograd.suits(x, outputs, geometry) and not taps.copies_little(x.shape[1], outputs, geometry)


def _is_suited(a: Array, b: Array, geometry: Geometry) -> bool:
    return a.dtype in (jnp.float32, jnp.float64) and 0 not in (*a.shape, *b.shape, *geometry.outputs, *geometry.sizes)
