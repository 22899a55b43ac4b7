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
from jaxnn._lowering.windows import grouped, padded, positions, product, window, woven

MANY_OUTPUTS = 512
"""Outputs of an image from which it has a product of its own, whatever the kernel's size."""

SMALL = 2**17
"""Numbers in a group's kernel up to which an image has a product of its own; else all images have one."""

SMALL_GRADIENT = 64
"""Numbers in a kernel for each output up to which an image has a gradient of its own, to be added up at the end."""


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


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, C, *sizes)`` and ``(O, C / groups, *kernel)`` to ``(N, O, *outputs)``."""
    lead = leading_axes(geometry, x.shape[1], w.shape[0])
    images, band, count, step = _portions(x, w.shape[0], geometry, lead)
    kernel = grouped(w, geometry.groups, 0)

    def some(images: Array) -> Array:
        total = jnp.zeros((), x.dtype)
        for phase in phases(band, lead):
            taps = jnp.stack([kernel[(slice(None),) * 3 + tap] for tap in phase.taps], 1)
            taps = jnp.moveaxis(taps, 3, -1).reshape(geometry.groups, -1, taps[0, 0, 0].size)
            found = _products(taps, _columns(images, phase, band), band)
            found = found.reshape(*found.shape[:2], len(phase.taps), -1, *phase.extents, *band.outputs[lead:])
            for index, start in enumerate(phase.starts):
                stops = [a + n for a, n in zip(start, band.outputs, strict=False)]
                total = total + found[(slice(None), slice(None), index, slice(None), *map(slice, start, stops))]
        return total.reshape(images.shape[0], w.shape[0], *band.outputs)

    return joined(mapped(some, images, step), geometry, count)


def image_gradient(y: Array, w: Array, geometry: Geometry) -> Array:
    """``(N, O, *outputs)`` to ``(N, C, *sizes)``: the whole kernel beside the results."""
    groups, rank, strides = geometry.groups, len(geometry.sizes), geometry.strides
    taps = w.reshape(groups, w.shape[0] // groups, -1).mT
    steps = [-(-(size + sum(pad)) // s) for size, pad, s in zip(geometry.sizes, geometry.pads, strides, strict=True)]
    number = {tap: index for index, tap in enumerate(positions(geometry.kernel_size))}
    present = {phase.place: phase for phase in phases(geometry, rank)}

    def some(y: Array) -> Array:
        found = _products(taps, y.reshape(y.shape[0], groups, y.shape[1] // groups, -1), geometry)
        found = found.reshape(*found.shape[:2], w.shape[1], len(number), *geometry.outputs)
        images = []
        for place in positions(strides):
            total = jnp.zeros((*found.shape[:2], w.shape[1], *steps), y.dtype)
            if place in present:
                for tap, start in zip(present[place].taps, present[place].starts, strict=True):
                    around = [(a, s - a - n) for a, s, n in zip(start, steps, geometry.outputs, strict=True)]
                    total = total + padded(found[:, :, :, number[tap]], around, first=3)
            images.append(total.reshape(y.shape[0], -1, *steps))
        # Or every place would be computed for every element.
        return woven(lax.optimization_barrier(jnp.stack(images)), strides)

    channels, itemsize = groups * w.shape[1], y.dtype.itemsize
    limit = allowed((y.shape[0] * channels * math.prod(geometry.sizes) + y.size) * itemsize)
    bytes_each = channels * len(number) * math.prod(geometry.outputs) * itemsize
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
    small = numbers <= SMALL_GRADIENT * math.prod(band.outputs)
    if not small and math.prod(band.outputs) >= MANY_OUTPUTS:
        step = 1
    leading, trailing = geometry.kernel_size[:lead], geometry.kernel_size[lead:]

    def some(images: Array, weights: Array) -> Array:
        found = {}
        for phase in phases(band, lead):
            moved = _moved(grouped(weights, groups, 1), phase, band)
            columns = _columns(images, phase, band)
            if small:
                axes, batch = ((3,), (3,)), ((0, 1), (0, 1))
                total = jnp.sum(lax.dot_general(moved, columns, (axes, batch), precision=band.precision), 0)
            else:
                total = product(_at_end(moved), _at_end(columns), (2, 2), band)
            total = total.reshape(groups, len(phase.taps), -1, *trailing, channels)
            found.update({tap: total[:, index] for index, tap in enumerate(phase.taps)})
        return jnp.stack([found[tap] for tap in positions(leading)], -1)

    total = summed(some, step, images, weights)
    # (groups, O / groups, *trailing, C / groups, leading)
    total = jnp.moveaxis(total, (-2, -1), (2, 3))
    return total.reshape(y.shape[1], channels, *geometry.kernel_size)


def _portions(x: Array, results: int, geometry: Geometry, lead: int) -> tuple[Array, Geometry, int, int]:
    """Padded images or bands of them, a band's geometry, how many bands an image has, and how many to take at once."""
    outputs = x.shape[0] * math.prod(geometry.outputs)
    bytes_each = copies(geometry, lead, x.shape[1], results) * math.prod(geometry.outputs) * x.dtype.itemsize
    limit = allowed((x.size + results * outputs) * x.dtype.itemsize)
    count = min(max(1, round(bytes_each / limit)), geometry.outputs[0])
    images, band = banded(padded(x, geometry.pads), geometry, count)
    return images, band, count, at_once(images.shape[0], bytes_each / count, limit)


def _columns(images: Array, phase: Phase, geometry: Geometry) -> Array:
    """What the kernel's trailing elements meet: ``(N, groups, trailing * C / groups, extents * outputs)``."""
    lead, rank = len(phase.place), len(geometry.sizes)
    lines = geometry._replace(
        kernel_size=(1,) * lead + geometry.kernel_size[lead:],
        sizes=phase.extents + geometry.sizes[lead:],
        strides=(1,) * lead + geometry.strides[lead:],
    )
    for axis, (place, extent) in enumerate(zip(phase.place, phase.extents, strict=True)):
        stride = geometry.strides[axis]
        images = lax.slice_in_dim(images, place, place + (extent - 1) * stride + 1, stride, axis=2 + axis)
    windows = jnp.stack([window(images, position, lines) for position in positions(lines.kernel_size)], 1)
    windows = jnp.swapaxes(grouped(windows, geometry.groups, 2), 1, 2)
    return windows.reshape(images.shape[0], geometry.groups, -1, math.prod(windows.shape[-rank:]))


def _moved(weights: Array, phase: Phase, geometry: Geometry) -> Array:
    """Weights of outputs where leading elements meet them: ``(N, groups, taps * O / groups, extents * outputs)``."""
    moved = []
    for start in phase.starts:
        around = [(a, e - a - n) for a, e, n in zip(start, phase.extents, geometry.outputs, strict=False)]
        moved.append(padded(weights, around, first=3))
    stacked = jnp.stack(moved, 2)
    return stacked.reshape(*weights.shape[:2], len(moved) * weights.shape[2], -1)


def _products(kernel: Array, columns: Array, geometry: Geometry) -> Array:
    """``(groups, M, K)`` times ``(N, groups, K, S)`` to ``(N, groups, M, S)``."""
    count, groups, _, size = columns.shape
    if count > 1 and (size >= MANY_OUTPUTS or kernel.size // groups <= SMALL):
        each = jnp.broadcast_to(kernel, (count, *kernel.shape))
        return lax.dot_general(each, columns, (((3,), (2,)), ((0, 1), (0, 1))), precision=geometry.precision)
    found = product(kernel, _at_end(columns), (2, 1), geometry)
    return jnp.moveaxis(found.reshape(groups, -1, count, size), 2, 0)


def _at_end(x: Array) -> Array:
    """``(N, groups, K, S)`` as ``(groups, K, N * S)``."""
    return jnp.moveaxis(x, 0, 2).reshape(x.shape[1], x.shape[2], -1)
