"""A kernel's elements in matrix products: some beside what they multiply, the others beside what comes out.

Each window of an image can be copied into a column, a number for each element of the kernel, so that one product gives
the outputs. Or every element is multiplied with the images as they stand, and the products are added up in the places
where they belong. Here the kernel's leading axes go the second way and its trailing ones the first, cut where the
copies are fewest (:func:`leading_axes`): a 3x3 kernel takes three copies of the images and three of the outputs instead
of nine of the images. Channels stay first: nothing is transposed.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.portions import allowed, at_once, banded, banded_outputs, joined, mapped, summed
from jaxnn._lowering.windows import correlations, grouped, padded, positions, product, products, window, woven

MANY_OUTPUTS = 512
"""Outputs of an image from which it has a product of its own, whatever the kernel's size."""

SMALL = 2**17
"""Numbers in a kernel without groups up to which an image has a product of its own; else all images have one."""

SMALL_GRADIENT = 0.1
"""How many of the numbers copied for an image a kernel may have for each image to have a gradient of its own."""

LARGE_GRADIENT = 2**15
"""Numbers in a kernel without groups from which images have their gradients one after the other."""

CACHED_BYTES = 8 * 2**20
"""Memory for the copies of images whose gradients are found together, where there is a stride or each has its own."""

LITTLE = 1.5
"""Copies of each number of images and outputs below which little is copied."""


class Phase(NamedTuple):
    """The elements of a kernel's leading axes that begin at one place within the strides.

    Attributes:
        place: on each leading axis.
        taps: the elements.
        starts: the step of the strides at which each begins.
        extents: how many steps they meet together.
    """

    place: tuple[int, ...]
    taps: list[tuple[int, ...]]
    starts: list[tuple[int, ...]]
    extents: tuple[int, ...]


def phases(geometry: Geometry, lead: int) -> Iterator[Phase]:
    """Every phase that has elements; without a stride there is one."""
    strides, dilations, outputs = geometry.strides[:lead], geometry.dilations[:lead], geometry.outputs[:lead]
    at: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for tap in positions(geometry.kernel_size[:lead]):
        at.setdefault(tuple(t * d % s for t, d, s in zip(tap, dilations, strides, strict=True)), []).append(tap)
    for place, taps in at.items():
        starts = [tuple(t * d // s for t, d, s in zip(tap, dilations, strides, strict=True)) for tap in taps]
        last = starts[-1]
        yield Phase(place, taps, starts, tuple(n + start for n, start in zip(outputs, last, strict=True)))


def copies(geometry: Geometry, lead: int, channels: int, results: int) -> int:
    """How many numbers are copied for each place of the outputs."""
    leading, trailing = geometry.kernel_size[:lead], geometry.kernel_size[lead:]
    apart = math.prod(min(k, s) for k, s in zip(leading, geometry.strides, strict=False))
    return apart * math.prod(trailing) * channels + math.prod(leading) * results


def leading_axes(geometry: Geometry, channels: int, results: int) -> int:
    """How many of the kernel's axes to take beside the results, so that the fewest numbers are copied."""
    every = range(len(geometry.sizes), -1, -1)
    return min(every, key=lambda lead: copies(geometry, lead, channels, results))


def copies_little(channels: int, results: int, geometry: Geometry) -> bool:
    """Whether less is copied than XLA transposes for its own convolution, which is slow for few channels."""
    lead = leading_axes(geometry, channels, results)
    return copies(geometry, lead, channels, results) < LITTLE * (channels + results)


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, *sizes)`` and ``(O, C / groups, *kernel)`` to ``(N, O, *outputs)``."""
    lead, groups = leading_axes(geometry, x.shape[1], w.shape[0]), geometry.groups
    images, band, count, step = _portions(x, w.shape[0], geometry, lead)
    kernel = grouped(w, groups, 0)
    together = _goes_together(w.size, band)

    def some(images: Array) -> Array:
        arranged = _arranged(images, groups, together)
        total = jnp.zeros((), x.dtype)
        for phase in phases(band, lead):
            taps = jnp.stack([kernel[(slice(None),) * 3 + tap] for tap in phase.taps], 1)
            taps = jnp.moveaxis(taps, 3, -1).reshape(groups, len(phase.taps) * taps.shape[2], -1)
            found = _products(taps, _columns(arranged, phase, band, together), band, together)
            shape = (*phase.extents, *band.outputs[lead:])
            for each, start in zip(_results(found, len(phase.taps), shape, together), phase.starts, strict=True):
                stops = [a + n for a, n in zip(start, band.outputs, strict=False)]
                total = total + each[(slice(None),) * 3 + tuple(map(slice, start, stops))]
        return _as_images(total, together)

    return joined(mapped(some, images, step), geometry, count)


def image_gradient(y: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, O, *outputs)`` to ``(N, C, *sizes)``: the whole kernel beside the results."""
    groups, rank, strides = geometry.groups, len(geometry.sizes), geometry.strides
    taps = grouped(w, groups, 0).reshape(groups, w.shape[0] // groups, w.shape[1], -1)
    taps = taps.transpose(0, 3, 2, 1).reshape(groups, -1, w.shape[0] // groups)
    steps = [-(-(size + sum(pad)) // s) for size, pad, s in zip(geometry.sizes, geometry.pads, strides, strict=True)]
    elements = list(positions(geometry.kernel_size))
    at = {phase.place: phase for phase in phases(geometry, rank)}
    together = _goes_together(w.size, geometry)

    def some(y: Array) -> Array:
        weights = _flat(_arranged(y, groups, together), together)
        found = _products(taps, weights, geometry, together)
        results = dict(zip(elements, _results(found, len(elements), geometry.outputs, together), strict=True))
        images = []
        for place in positions(strides):
            total = jnp.zeros((*results[elements[0]].shape[:3], *steps), y.dtype)
            if place in at:
                for tap, start in zip(at[place].taps, at[place].starts, strict=True):
                    around = [(a, s - a - n) for a, s, n in zip(start, steps, geometry.outputs, strict=True)]
                    total = total + padded(results[tap], around, first=3)
            images.append(_as_images(total, together))
        # Or every place would be computed for every element.
        return woven(jnp.moveaxis(lax.optimization_barrier(jnp.stack(images)), 0, 1), strides)

    channels, itemsize = groups * w.shape[1], y.dtype.itemsize
    # Nothing is padded here.
    limit = allowed((y.shape[0] * channels * math.prod(geometry.sizes) + y.size) * itemsize, 2)
    bytes_each = channels * len(elements) * math.prod(geometry.outputs) * itemsize
    images = mapped(some, y, at_once(y.shape[0], bytes_each, limit))
    each_axis = zip(geometry.pads, geometry.sizes, images.shape[2:], strict=True)
    return padded(images, [(-before, size + before - extent) for (before, _), size, extent in each_axis])


def kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """Images and a weight for each output to ``(O, C / groups, *kernel)``."""
    groups, channels = geometry.groups, x.shape[1] // geometry.groups
    lead = leading_axes(geometry, x.shape[1], y.shape[1])
    images, band, count, step = _portions(x, y.shape[1], geometry, lead)
    weights = banded_outputs(y, geometry, count)
    numbers = y.shape[1] * channels * math.prod(geometry.kernel_size)
    outputs = math.prod(band.outputs)
    together = numbers > SMALL_GRADIENT * copies(geometry, lead, x.shape[1], y.shape[1]) * outputs
    together |= groups == 1 and numbers >= LARGE_GRADIENT
    if together and outputs >= MANY_OUTPUTS:
        step = 1
    if max(geometry.strides) > 1 or not together:
        bytes_each = copies(geometry, lead, x.shape[1], y.shape[1]) * outputs * x.dtype.itemsize
        step = at_once(images.shape[0], bytes_each, CACHED_BYTES)
    leading, trailing = geometry.kernel_size[:lead], geometry.kernel_size[lead:]

    def some(images: Array, weights: Array) -> Array:
        images, weights = _arranged(images, groups, together), _arranged(weights, groups, together)
        found = {}
        for phase in phases(band, lead):
            last = phase.starts[-1]
            wide = padded(weights, [(start, start) for start in last], first=3)
            moved = []
            for start in phase.starts:
                each = zip(last, start, phase.extents, strict=True)
                moved.append(wide[(slice(None),) * 3 + tuple(slice(a - b, a - b + extent) for a, b, extent in each)])
            stacked = _flat(_stacked(moved, together), together)
            columns = _columns(images, phase, band, together)
            total = product(stacked, columns, (2, 2), band) if together else correlations(stacked, columns, band)
            total = total.reshape(groups, len(phase.taps), -1, *trailing, channels)
            found.update({tap: total[:, index] for index, tap in enumerate(phase.taps)})
        return jnp.stack([found[tap] for tap in positions(leading)], -1)

    total = summed(some, step, images, weights)  # (groups, O / groups, *trailing, C / groups, leading)
    return jnp.moveaxis(total, (-2, -1), (2, 3)).reshape(y.shape[1], channels, *geometry.kernel_size)


def _goes_together(numbers: int, geometry: Geometry) -> bool:
    """Whether all images are in one product, for each group, and not each in its own."""
    return geometry.groups > 1 or (numbers > SMALL and math.prod(geometry.outputs) < MANY_OUTPUTS)


def _portions(x: Array, results: int, geometry: Geometry, lead: int) -> tuple[Array, Geometry, int, int]:
    """Padded images or bands of them, a band's geometry, how many bands an image has, and how many to take at once."""
    outputs = x.shape[0] * math.prod(geometry.outputs)
    bytes_each = copies(geometry, lead, x.shape[1], results) * math.prod(geometry.outputs) * x.dtype.itemsize
    limit = allowed((x.size + results * outputs) * x.dtype.itemsize)
    count = 1
    if bytes_each > limit:
        limit /= 2  # Bands are copies too.
        count = min(math.ceil(bytes_each / limit), geometry.outputs[0])
    images, band = banded(padded(x, geometry.pads), geometry, count)
    return images, band, count, at_once(images.shape[0], bytes_each / count, limit)


# What follows holds images as (N, groups, channels, *sizes), or together as (groups, channels, N, *sizes).


def _arranged(images: Array, groups: int, together: bool) -> Array:
    if not together:
        return grouped(images, groups, 1)
    return grouped(lax.optimization_barrier(jnp.moveaxis(images, 0, 1)), groups, 0)


def _as_images(arranged: Array, together: bool) -> Array:
    images = jnp.moveaxis(arranged, 2, 0) if together else arranged
    return images.reshape(images.shape[0], -1, *images.shape[3:])


def _stacked(parts: list[Array], together: bool) -> Array:
    """The same axes, the parts' channels one behind the other."""
    axis = 1 if together else 2
    stacked = jnp.stack(parts, axis)
    return stacked.reshape(*stacked.shape[:axis], -1, *stacked.shape[axis + 2 :])


def _flat(arranged: Array, together: bool) -> Array:
    """``(N, groups, channels, sizes)``, or ``(groups, channels, N * sizes)``."""
    return arranged.reshape(*arranged.shape[: 2 if together else 3], -1)


def _columns(images: Array, phase: Phase, geometry: Geometry, together: bool) -> Array:
    """What the kernel's trailing elements meet, flat, the elements before the channels."""
    lead = len(phase.place)
    lines = geometry._replace(
        kernel_size=(1,) * lead + geometry.kernel_size[lead:],
        sizes=phase.extents + geometry.sizes[lead:],
        strides=(1,) * lead + geometry.strides[lead:],
    )
    for axis, (place, extent) in enumerate(zip(phase.place, phase.extents, strict=True), start=3):
        stride = geometry.strides[axis - 3]
        images = lax.slice_in_dim(images, place, place + (extent - 1) * stride + 1, stride, axis=axis)
    windows = [window(images, position, lines) for position in positions(lines.kernel_size)]
    return _flat(_stacked(windows, together), together)


def _products(kernel: Array, columns: Array, geometry: Geometry, together: bool) -> Array:
    """``(groups, M, K)`` times flat columns of ``K`` channels to flat ones of ``M``."""
    if together:
        return product(kernel, columns, (2, 1), geometry)
    each = jnp.broadcast_to(kernel, (columns.shape[0], *kernel.shape))
    return products(each, columns, (3, 2), geometry)


def _results(flat: Array, taps: int, sizes: tuple[int, ...], together: bool) -> list[Array]:
    """Flat columns of every tap's channels as images of each tap."""
    axis = 1 if together else 2
    count = (-1, *sizes) if together else sizes
    split = flat.reshape(*flat.shape[:axis], taps, flat.shape[axis] // taps, *count)
    return [lax.index_in_dim(split, tap, axis, keepdims=False) for tap in range(taps)]
