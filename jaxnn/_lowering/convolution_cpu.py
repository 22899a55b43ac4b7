"""Which algorithm convolves on a CPU, by the class of the static shapes.

XLA's convolution reaches 70 GFLOP/s where its matrix product reaches 150, and loses by tens where channels fall into
groups, where the images are dilated (transposed convolutions, gradients of strided ones), and in gradients of kernels.
Each operator here returns None where XLA's is kept.

=============  ===========================================  ============================================================
class          which                                        algorithm
=============  ===========================================  ============================================================
blocks         windows that neither overlap nor are padded  one matrix product an image: 1x1 kernels, patch embeddings
few            at most ``FEW_TERMS`` products an output      shifted multiply-adds: depthwise, narrow groups
columns        the rest, but for ``WIDE`` ones              each image's windows as columns, one matrix product an image
=============  ===========================================  ============================================================

The gradient of the images is, at stride 1, a convolution with the mirrored kernel; at a larger stride it has one output
channel for each place within a stride, woven together. ``python -m parity bench --suite conv`` measures every class.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry, mirrored

FEW_TERMS = 64
"""Products of one output up to which they are added up one shifted image after the other."""

UNROLLED_TERMS = 384
"""Products that one step of a loop over rows adds up, at most: more would compile slowly."""

WIDE = 128
"""Channels of input and output from which XLA's convolution at stride 1 keeps up with columns."""

COLUMN_BYTES = 8 * 2**20
"""Memory for columns, so that they stay in the cache; a larger image is cut into bands of half as much."""


def convolution(x: Array, w: Array, *, geometry: Geometry) -> Array | None:
    """Cross-correlation of ``x`` with ``w``, or None."""
    if not _is_suited(x, w, geometry):
        return None
    if _is_blocks(geometry):
        return _block_products(x, w, geometry)
    if _terms(w) <= FEW_TERMS and geometry.groups > 1:
        return _shifted_products(x, w, geometry)
    if _suits_columns(w, geometry):
        return _column_products(x, w, geometry)
    return None


def image_gradient(y: Array, w: Array, *, geometry: Geometry) -> Array | None:
    """The gradient of the images, a transposed convolution of ``y`` with ``w``, or None."""
    if not _is_suited(y, w, geometry):
        return None
    if _is_blocks(geometry):
        return _unblocked(y, w, geometry)
    transposed = mirrored(w, geometry.groups)
    if max(geometry.strides) == 1 or (_terms(transposed) <= FEW_TERMS and geometry.groups > 1):
        return _as_convolution(y, transposed, geometry)
    if max(geometry.dilations) == 1:
        return _woven(y, w, geometry)
    return None


def kernel_gradient(x: Array, y: Array, *, geometry: Geometry) -> Array | None:
    """The gradient of the kernel from images ``x`` and ``y``, a weight for each output, or None."""
    if not _is_suited(x, y, geometry):
        return None
    channels = x.shape[1] // geometry.groups
    if _is_blocks(geometry):
        return _block_sums(x, y, geometry)
    if channels * math.prod(geometry.kernel_size) <= FEW_TERMS and geometry.groups > 1:
        return _shifted_sums(x, y, geometry)
    kernel = np.broadcast_to(np.float32(0), (y.shape[1], channels, *geometry.kernel_size))
    if _suits_columns(kernel, geometry):
        return _column_sums(x, y, geometry)
    return None


def _is_suited(a: Array, b: Array, geometry: Geometry) -> bool:
    return a.dtype in (jnp.float32, jnp.float64) and 0 not in (*a.shape, *b.shape, *geometry.outputs, *geometry.sizes)


def _terms(w: Array | np.ndarray) -> int:
    """Products for one output."""
    return math.prod(w.shape[1:])


def _suits_columns(w: Array | np.ndarray, geometry: Geometry) -> bool:
    return min(w.shape[0], w.shape[1]) < WIDE or max(geometry.strides) > 1


def _positions(kernel_size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every element of a kernel."""
    return itertools.product(*map(range, kernel_size))


def _padded(x: Array, geometry: Geometry) -> Array:
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, [(0, 0, 0)] * (x.ndim - len(geometry.pads)) + [(*pad, 0) for pad in geometry.pads])


def _window(padded: Array, position: Sequence[int], geometry: Geometry) -> Array:
    """What the kernel's element at ``position`` meets, for each output."""
    lead = padded.ndim - len(position)
    starts = [p * d for p, d in zip(position, geometry.dilations, strict=True)]
    stops = [
        start + (outputs - 1) * stride + 1
        for start, outputs, stride in zip(starts, geometry.outputs, geometry.strides, strict=True)
    ]
    return lax.slice(
        padded,
        [0] * lead + starts,
        [*padded.shape[:lead], *stops],
        [1] * lead + list(geometry.strides),
    )


def _grouped(x: Array, groups: int, axis: int) -> Array:
    """The axis of channels as groups and channels of a group."""
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])


def _product(a: Array, b: Array, geometry: Geometry, contracted: int = 1) -> Array:
    """Matrix products of each group over axis ``contracted`` of ``b``, of ``a``'s rows; without groups a single one."""
    if geometry.groups == 1:
        axes = (((1,), (contracted - 1,)), ((), ()))
        return lax.dot_general(a[0], b[0], axes, precision=geometry.precision)[None]
    return lax.dot_general(a, b, (((2,), (contracted,)), ((0,), (0,))), precision=geometry.precision)


def _over_images(function: Callable[..., Array], *images: Array) -> Array:
    """``function`` of one image after the other: what it makes stays in the cache."""
    return lax.map(lambda each: function(*each), images)


def _summed_over_images(function: Callable[..., Array], *images: Array) -> Array:
    first, *_ = images
    if first.shape[0] == 1:
        return function(*(x[0] for x in images))
    shapes = jax.eval_shape(function, *(x[0] for x in images))
    start = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), shapes)
    return lax.scan(lambda total, each: (jax.tree.map(jnp.add, total, function(*each)), None), start, images)[0]


# Blocks: a kernel as large as its stride (or of one element), without padding.


def _is_blocks(geometry: Geometry) -> bool:
    each = zip(geometry.kernel_size, geometry.strides, geometry.dilations, geometry.pads, strict=True)
    return all(pad == (0, 0) and (k == 1 or (k == s and d == 1)) for k, s, d, pad in each)


def _blocks(image: Array, geometry: Geometry) -> Array:
    """``(C, *sizes)`` as ``(groups, C / groups * kernel, outputs)``."""
    outputs, rank = geometry.outputs, len(geometry.outputs)
    if max(geometry.strides) == 1:
        return image.reshape(geometry.groups, -1, math.prod(outputs))
    stops = [(o - 1) * s + k for o, s, k in zip(outputs, geometry.strides, geometry.kernel_size, strict=True)]
    steps = [s if k == 1 else 1 for s, k in zip(geometry.strides, geometry.kernel_size, strict=True)]
    kept = lax.slice(image, [0] * (rank + 1), [image.shape[0], *stops], [1, *steps])
    split = kept.reshape(-1, *itertools.chain(*zip(outputs, geometry.kernel_size, strict=True)))
    order = (0, *range(2, 2 * rank + 1, 2), *range(1, 2 * rank, 2))
    return split.transpose(order).reshape(geometry.groups, -1, math.prod(outputs))


def _block_products(x: Array, w: Array, geometry: Geometry) -> Array:
    flat = w.reshape(geometry.groups, w.shape[0] // geometry.groups, -1)

    def one(image: Array) -> Array:
        return _product(flat, _blocks(image, geometry), geometry)

    return _over_images(one, x).reshape(x.shape[0], w.shape[0], *geometry.outputs)


def _unblocked(y: Array, w: Array, geometry: Geometry) -> Array:
    outputs, kernel_size, rank = geometry.outputs, geometry.kernel_size, len(geometry.outputs)
    channels = w.shape[1] * geometry.groups
    flat = w.reshape(geometry.groups, w.shape[0] // geometry.groups, -1).mT

    def one(image: Array) -> Array:
        return _product(flat, image.reshape(geometry.groups, -1, math.prod(outputs)), geometry)

    blocks = _over_images(one, y).reshape(y.shape[0], channels, *kernel_size, *outputs)
    order = (0, 1, *itertools.chain(*((2 + rank + i, 2 + i) for i in range(rank))))
    joined = blocks.transpose(order).reshape(
        y.shape[0], channels, *(o * k for o, k in zip(outputs, kernel_size, strict=True))
    )
    edges = [
        (0, size - ((n - 1) * (s if k == 1 else 1) + 1), s - 1 if k == 1 else 0)
        for size, n, s, k in zip(geometry.sizes, joined.shape[2:], geometry.strides, kernel_size, strict=True)
    ]
    return lax.pad(joined, jnp.zeros((), y.dtype), [(0, 0, 0)] * 2 + edges)


def _block_sums(x: Array, y: Array, geometry: Geometry) -> Array:
    def one(image: Array, weights: Array) -> Array:
        columns = _blocks(image, geometry)
        return _product(weights.reshape(geometry.groups, -1, columns.shape[-1]), columns, geometry, contracted=2)

    return _summed_over_images(one, x, y).reshape(y.shape[1], -1, *geometry.kernel_size)


# Few terms: shifted images, each times a number a channel.


def _shifted_products(x: Array, w: Array, geometry: Geometry) -> Array:
    groups, rank = geometry.groups, len(geometry.sizes)
    kernel = _grouped(w, groups, 0)

    def products(x: Array) -> Array:
        padded = _grouped(_padded(x, geometry), groups, 1)
        output = jnp.zeros((), x.dtype)
        for position in _positions(geometry.kernel_size):
            window = _window(padded, position, geometry)
            for channel in range(w.shape[1]):
                factor = kernel[(slice(None), slice(None), channel, *position)].reshape(groups, -1, *[1] * rank)
                output = output + window[:, :, channel, None] * factor
        return output.reshape(x.shape[0], w.shape[0], *geometry.outputs)

    return _written_once(products, x)


def _written_once(function: Callable[[Array], Array], x: Array) -> Array:
    """``function(x)``, with ``x`` and the result in memory.

    XLA would fuse a sum of shifted images into whatever reads it, and compute all of it again for each reader (a
    normalization has three). A loop is a border to that, if XLA cannot know that it turns once; turning twice would
    change nothing.
    """
    turns = jnp.where(x.ravel()[0] == jnp.inf, 2, 1)
    shape = jax.eval_shape(function, x)
    return lax.fori_loop(0, turns, lambda _, output: function(x), jnp.zeros(shape.shape, shape.dtype))


def _shifted_sums(x: Array, y: Array, geometry: Geometry) -> Array:
    """Some rows of an image at a time: products add up along the vector units, and at the end across them."""
    groups, positions = geometry.groups, list(_positions(geometry.kernel_size))
    stride, rows = geometry.strides[0], geometry.outputs[0]
    # Either one row, a step short enough for one thread, or so many that it pays to share them out among threads.
    most = min(rows, UNROLLED_TERMS // len(positions))
    count = -(-rows // most) if most >= min(rows, 16) else rows
    at_once = -(-rows // count)
    band = (at_once - 1) * stride + geometry.dilations[0] * (geometry.kernel_size[0] - 1) + 1
    # The last rows may end behind the image, where they weigh nothing.
    padded = _padded(x, geometry)
    missing = (count - 1) * at_once * stride + band - padded.shape[2]
    padded = jnp.pad(padded, [(0, 0), (0, 0), (0, max(0, missing))] + [(0, 0)] * (x.ndim - 3))
    weights = jnp.pad(y, [(0, 0), (0, 0), (0, count * at_once - rows)] + [(0, 0)] * (y.ndim - 3))
    lines = geometry._replace(
        sizes=(1, *geometry.sizes[1:]),
        kernel_size=(1, *geometry.kernel_size[1:]),
        pads=((0, 0), *geometry.pads[1:]),
    )

    def step(totals: list[Array], index: Array) -> tuple[list[Array], None]:
        image, first = index // count, index % count * at_once
        window = _rows(padded, image, first * stride, band)
        weight = _rows(weights, image, first, at_once)
        new = []
        for total, (tap, *position) in zip(totals, positions, strict=True):
            for row in range(at_once):
                start = row * stride + tap * geometry.dilations[0]
                met = _window(window[:, start : start + 1], (0, *position), lines)
                each = _grouped(weight[:, row : row + 1], groups, 0)[:, :, None]
                total = total + _grouped(met, groups, 0)[:, None] * each
            new.append(total)
        return new, None

    shape = (groups, y.shape[1] // groups, x.shape[1] // groups, 1, *geometry.outputs[1:])
    start = [jnp.zeros(shape, x.dtype)] * len(positions)
    totals, _ = lax.scan(step, start, jnp.arange(x.shape[0] * count))
    sums = jnp.stack([jnp.sum(total, tuple(range(3, total.ndim))) for total in totals], -1)
    return sums.reshape(y.shape[1], -1, *geometry.kernel_size)


def _rows(images: Array, image: Array, first: Array, count: int) -> Array:
    """``count`` rows of one image."""
    starts = [image, jnp.zeros_like(image), first] + [jnp.zeros_like(image)] * (images.ndim - 3)
    return lax.dynamic_slice(images, starts, (1, images.shape[1], count, *images.shape[3:]))[0]


# Columns: every window of an image side by side, the kernel's elements first.


def _columns(padded: Array, geometry: Geometry) -> Array:
    """``(C, *padded)`` as ``(groups, kernel * C / groups, outputs)``."""
    windows = jnp.stack([_window(padded, position, geometry) for position in _positions(geometry.kernel_size)])
    if geometry.groups > 1:
        windows = _grouped(windows, geometry.groups, 1).swapaxes(0, 1)
    return windows.reshape(geometry.groups, -1, math.prod(geometry.outputs))


def _column_products(x: Array, w: Array, geometry: Geometry) -> Array:
    groups = geometry.groups
    flat = jnp.moveaxis(_grouped(w, groups, 0), 2, -1).reshape(groups, w.shape[0] // groups, -1)
    images, band = _bands(_padded(x, geometry), geometry)

    def one(padded: Array) -> Array:
        return _product(flat, _columns(padded, band), band)

    outputs = _over_images(one, images).reshape(x.shape[0], -1, w.shape[0], *band.outputs)
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    joined = outputs.swapaxes(1, 2).reshape(*x.shape[:1], w.shape[0], -1, *band.outputs[1:])
    return joined[:, :, : geometry.outputs[0]]


def _column_sums(x: Array, y: Array, geometry: Geometry) -> Array:
    groups, channels = geometry.groups, x.shape[1] // geometry.groups
    images, band = _bands(_padded(x, geometry), geometry)
    rows, count = band.outputs[0], images.shape[0] // x.shape[0]
    # Outputs that the last band has too many weigh nothing.
    weights = jnp.pad(y, [(0, 0), (0, 0), (0, rows * count - y.shape[2])] + [(0, 0)] * (y.ndim - 3))
    weights = weights.reshape(*y.shape[:2], count, rows, *y.shape[3:]).swapaxes(1, 2)

    def one(padded: Array, weights: Array) -> Array:
        columns = _columns(padded, band)
        return _product(weights.reshape(groups, -1, columns.shape[-1]), columns, band, contracted=2)

    total = _summed_over_images(one, images, weights.reshape(-1, y.shape[1], *band.outputs))
    return jnp.moveaxis(total.reshape(y.shape[1], *geometry.kernel_size, channels), -1, 1)


def _bands(padded: Array, geometry: Geometry) -> tuple[Array, Geometry]:
    """Images cut along their first axis into overlapping bands, one band after the other, and a band's geometry."""
    outputs, stride = geometry.outputs, geometry.strides[0]
    row = padded.shape[1] * math.prod(geometry.kernel_size) * math.prod(outputs[1:]) * padded.dtype.itemsize
    rows = outputs[0] if row * outputs[0] <= COLUMN_BYTES else max(1, COLUMN_BYTES // (2 * row))
    count = -(-outputs[0] // rows)
    span = (rows - 1) * stride + geometry.dilations[0] * (geometry.kernel_size[0] - 1) + 1
    needed = (count - 1) * rows * stride + span
    # Bands may end behind the image, and strides may leave a rest of it.
    edges = [(0, 0, 0)] * 2 + [(0, needed - padded.shape[2], 0)] + [(0, 0, 0)] * (padded.ndim - 3)
    padded = lax.pad(padded, jnp.zeros((), padded.dtype), edges)
    starts = [band * rows * stride for band in range(count)]
    cut = jnp.stack([lax.slice_in_dim(padded, start, start + span, axis=2) for start in starts], 1)
    images = cut.reshape(-1, *cut.shape[2:])
    no_pads = ((0, 0),) * len(outputs)
    return images, geometry._replace(sizes=images.shape[2:], pads=no_pads)


# Gradients of the images by way of convolutions.


def _as_convolution(y: Array, kernel: Array, geometry: Geometry) -> Array | None:
    """With zeros between the elements of ``y`` where the stride is larger than one; ``kernel`` is mirrored."""
    if max(geometry.strides) > 1:
        between = [(0, 0, stride - 1) for stride in geometry.strides]
        y = lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), (0, 0, 0), *between])
    ones = (1,) * len(geometry.strides)
    dense = geometry._replace(sizes=y.shape[2:], strides=ones, pads=geometry.transposed_pads)
    return convolution(y, kernel, geometry=dense)


def _dense_convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    output = convolution(x, w, geometry=geometry)
    if output is not None:
        return output
    return lax.conv_general_dilated(
        x,
        w,
        geometry.strides,
        geometry.pads,
        feature_group_count=geometry.groups,
        precision=geometry.precision,
    )


def _woven(y: Array, w: Array, geometry: Geometry) -> Array:
    """One output channel for each place within a stride, by a convolution of stride 1, then woven together.

    The image at ``stride * q + place - before`` gets the kernel's elements ``stride * j + place`` times ``y`` at
    ``q - j``.
    """
    strides, rank, groups = geometry.strides, len(geometry.strides), geometry.groups
    taps = tuple(-(-k // s) for k, s in zip(geometry.kernel_size, strides, strict=True))
    missing = [(0, t * s - k) for t, s, k in zip(taps, strides, geometry.kernel_size, strict=True)]
    kernel = jnp.pad(w, [(0, 0), (0, 0), *missing])
    kernel = kernel.reshape(*w.shape[:2], *itertools.chain(*zip(taps, strides, strict=True)))
    places = range(3, 3 + 2 * rank, 2)
    kernel = kernel.transpose(0, 1, *places, *(i - 1 for i in places))
    kernel = kernel.reshape(w.shape[0], -1, *taps)
    before = [pad[0] // s for pad, s in zip(geometry.pads, strides, strict=True)]
    counts = [
        (size + pad[0] - 1) // s - first + 1
        for size, pad, s, first in zip(geometry.sizes, geometry.pads, strides, before, strict=True)
    ]
    dense = Geometry(
        y.shape[2:],
        taps,
        (1,) * rank,
        tuple(
            (t - 1 - first, count + first - outputs)
            for t, first, count, outputs in zip(taps, before, counts, y.shape[2:], strict=True)
        ),
        (1,) * rank,
        groups,
        geometry.precision,
    )
    phases = _dense_convolution(y, mirrored(kernel, groups), dense)
    channels = w.shape[1] * groups
    phases = phases.reshape(y.shape[0], channels, *strides, *counts)
    order = (0, 1, *itertools.chain(*((2 + rank + i, 2 + i) for i in range(rank))))
    woven = phases.transpose(order).reshape(
        y.shape[0], channels, *(count * s for count, s in zip(counts, strides, strict=True))
    )
    starts = [pad[0] - first * s for pad, first, s in zip(geometry.pads, before, strides, strict=True)]
    stops = [start + size for start, size in zip(starts, geometry.sizes, strict=True)]
    return lax.slice(woven, [0, 0, *starts], [*woven.shape[:2], *stops])
