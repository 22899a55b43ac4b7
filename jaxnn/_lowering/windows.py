"""What the algorithms of a convolution share: padding, windows, channels in groups or last."""

import itertools
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnn._lowering.geometry import Geometry

FEW_ROWS = 32
"""Rows up to which XLA's product of each image is faster with them on its right."""


def positions(kernel_size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every element of a kernel."""
    return itertools.product(*map(range, kernel_size))


def padded(x: Array, pads: Sequence[tuple[int, int]], first: int = 2) -> Array:
    """Zeros around the axes from ``first`` on; a negative pad crops."""
    if all(before <= 0 and after <= 0 for before, after in pads):  # a slice, which costs no choice for each element
        kept = [slice(-before, size + after) for (before, after), size in zip(pads, x.shape[first:], strict=False)]
        return x[(slice(None),) * first + tuple(kept)]
    edges = [(0, 0, 0)] * first + [(*pad, 0) for pad in pads]
    edges += [(0, 0, 0)] * (x.ndim - len(edges))
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def spread(x: Array, steps: Sequence[int], sizes: Sequence[int]) -> Array:
    """Elements so many steps apart, zeros between them and behind the last up to ``sizes``."""
    each = zip(x.shape[2:], steps, sizes, strict=True)
    edges = [(0, size - ((count - 1) * step + 1), step - 1) for count, step, size in each]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * 2 + edges)


def window(image: Array, position: Sequence[int], geometry: Geometry) -> Array:
    """What the kernel's element at ``position`` meets, for each output; ``image`` is padded."""
    lead = image.ndim - len(position)
    starts = [p * d for p, d in zip(position, geometry.dilations, strict=True)]
    stops = [
        start + (outputs - 1) * stride + 1
        for start, outputs, stride in zip(starts, geometry.outputs, geometry.strides, strict=True)
    ]
    return lax.slice(
        image,
        [0] * lead + starts,
        [*image.shape[:lead], *stops],
        [1] * lead + list(geometry.strides),
    )


def woven(x: Array, steps: Sequence[int]) -> Array:
    """``(N, places, C, *sizes)`` to ``(N, C, *sizes * steps)``: places within a step, one behind the other."""
    rank = len(steps)
    places = x.reshape(x.shape[0], *steps, *x.shape[2:])
    order = (0, 1 + rank, *itertools.chain(*((2 + rank + i, 1 + i) for i in range(rank))))
    extents = [size * step for size, step in zip(x.shape[3:], steps, strict=True)]
    return places.transpose(order).reshape(x.shape[0], x.shape[2], *extents)


def grouped(x: Array, groups: int, axis: int) -> Array:
    """The axis of channels as groups and channels of a group."""
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])


def channels_last(x: Array) -> Array:
    """``(N, C, *sizes)`` to ``(N, *sizes, C)``."""
    return jnp.moveaxis(x, 1, -1)


def channels_first(x: Array) -> Array:
    """``(N, *sizes, C)`` to ``(N, C, *sizes)``."""
    return jnp.moveaxis(x, -1, 1)


def products(a: Array, b: Array, contracted: tuple[int, int], geometry: Geometry) -> Array:
    """Matrix products of each image and group, over those axes."""
    axes = (contracted[:1], contracted[1:])
    return lax.dot_general(a, b, (axes, ((0, 1), (0, 1))), precision=geometry.precision)


def correlations(a: Array, b: Array, geometry: Geometry) -> Array:
    """``(N, groups, A, K)`` and ``(N, groups, B, K)`` to ``(groups, A, B)``: products of rows, added up over images.

    XLA's product wants few rows on its right: of 3 and 64 rows of 50176, 8 images, 7 ms against 104.
    """
    if a.shape[2] < b.shape[2] and a.shape[2] <= FEW_ROWS:
        return correlations(b, a, geometry).mT
    return jnp.sum(products(a, b, (3, 3), geometry), 0)


def product(a: Array, b: Array, contracted: tuple[int, int], geometry: Geometry) -> Array:
    """Matrix products of each group, over those axes; without groups a single one, which is faster on a CPU."""
    if geometry.groups == 1:
        axes = (contracted[0] - 1,), (contracted[1] - 1,)
        return lax.dot_general(a[0], b[0], (axes, ((), ())), precision=geometry.precision)[None]
    batch = ((0,), (0,))
    return lax.dot_general(a, b, (((contracted[0],), (contracted[1],)), batch), precision=geometry.precision)
