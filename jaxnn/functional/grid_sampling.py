"""Images read at the points of a grid, and grids made of affine maps."""

import itertools
import math
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError, check_same_dtype
from jaxnn.functional._input import floating, widened
from jaxnn.functional._resampling import cubic_weights

Tap = tuple[Float[Array, "batch points"], Float[Array, "batch points"] | float]
"""Where along one axis a point reads, as an integer-valued coordinate, and with what weight."""


def grid_sample(
    input: Float[ArrayLike, "batch channels *spatial"],
    grid: Float[ArrayLike, " batch *output_and_axes"],
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Float[Array, "batch channels *output"]:
    r"""Read ``input`` at the points of ``grid``.

    .. math:: y_{n, c, p} = \sum_q x_{n, c, q} \prod_a k(u_{n, p, a} - q_a), \quad
        u = \tfrac12 (g + 1)(s - 1) \text{ with aligned corners, else } \tfrac12 ((g + 1) s - 1)

    where :math:`k` is the triangle, the nearest pixel's box or the cubic convolution kernel with
    :math:`\alpha = -0.75`, and :math:`s` the size of axis :math:`a`.

    Args:
        input: ``(batch, channels, height, width)`` or ``(batch, channels, depth, height, width)``.
        grid: ``(batch, *output, 2)`` or ``(batch, *output, 3)``: x, y, z of each point, -1 and 1 at the image's ends.
        mode: ``"bilinear"`` (with three axes trilinear), ``"nearest"`` (half-way points to the even pixel), or
            ``"bicubic"`` (two axes only).
        padding_mode: outside the image there are ``"zeros"``, the pixels of its ``"border"``, or its ``"reflection"``.
        align_corners: whether -1 and 1 are the centres of the corner pixels rather than their outer edges; false
            unless given.

    Returns:
        ``(batch, channels, *output)``. NaN at points that are NaN, except in mode nearest, where they lie outside.

    Raises:
        ArgumentError: ``mode`` or ``padding_mode`` is unknown, ``input`` has neither 4 nor 5 axes (for bicubic, not 4)
            or an empty spatial axis, ``grid`` does not fit it, or the dtypes differ.
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.grid_sample``; Jaderberg et al. (2015).
    """
    if mode not in _TAPS:
        raise ArgumentError(f"grid_sample: mode must be 'bilinear', 'nearest' or 'bicubic', got {mode!r}")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ArgumentError(
            f"grid_sample: padding_mode must be 'zeros', 'border' or 'reflection', got {padding_mode!r}"
        )
    check_same_dtype("grid_sample", input=input, grid=grid)
    input, grid = floating("grid_sample", input), jnp.asarray(grid)
    _check_shapes(input.shape, grid.shape, mode)
    batch, channels, *spatial = input.shape
    output = grid.shape[1:-1]
    points = widened(grid).reshape(batch, math.prod(output), len(spatial))
    # Channels last: each point then reads a row of memory.
    pixels = jnp.moveaxis(widened(input).reshape(batch, channels, math.prod(spatial)), 1, 2)

    def place(coordinate: Array, size: int) -> Array:
        return _placed(coordinate, size, padding_mode, bool(align_corners))

    taps = [
        _TAPS[mode](_pixel_coordinate(points[..., -1 - axis], size, bool(align_corners)), size, place)
        for axis, size in enumerate(spatial)
    ]
    total = jnp.zeros((), pixels.dtype)
    for corner in itertools.product(*taps):
        index, inside = _flat_index([place for place, _ in corner], spatial)
        read = jax.vmap(lambda image, where: image.at[where].get(mode="promise_in_bounds"))(pixels, index)
        weight = math.prod(weight for _, weight in corner)
        total = total + jnp.where(inside[..., None], read, 0) * jnp.asarray(weight, read.dtype)[..., None]
    return jnp.moveaxis(total, 2, 1).reshape(batch, channels, *output).astype(input.dtype)


def affine_grid(
    theta: Float[ArrayLike, "batch axes axes_and_shift"],
    size: Sequence[int],
    align_corners: bool | None = None,
) -> Float[Array, " batch *output_and_axes"]:
    r"""The points that an affine map sends the pixels of an image to, for :func:`grid_sample`.

    .. math:: g_{n, p} = A_n u_p + t_n, \quad \theta_n = (A_n \mid t_n), \quad u_{p, a} = \tfrac{2 p_a + 1}{s_a} - 1

    or, with aligned corners, :math:`u_{p, a} = \tfrac{2 p_a}{s_a - 1} - 1`.

    Args:
        theta: ``(batch, 2, 3)`` for images, ``(batch, 3, 4)`` for volumes; rows and columns in the order x, y, z.
        size: of the image to be sampled, ``(batch, channels, height, width)`` or with depth before height.
        align_corners: whether -1 and 1 are the centres of the corner pixels rather than their outer edges; false unless
            given. An axis of one pixel has it at 0.

    Returns:
        ``(batch, *spatial, 2)`` or ``(batch, *spatial, 3)``.

    Raises:
        ArgumentError: ``theta`` is not floating point or does not fit ``size``, or a size is not positive.
        NotImplementedError: ``size`` has neither 4 nor 5 entries.

    Source: ``torch.nn.functional.affine_grid``; Jaderberg et al. (2015).
    """
    theta, size = jnp.asarray(theta), tuple(operator.index(s) for s in size)
    if not jnp.issubdtype(theta.dtype, jnp.floating):
        raise ArgumentError(f"affine_grid: theta must be floating point, got {theta.dtype}")
    if len(size) not in (4, 5):
        raise NotImplementedError(f"affine_grid: size must have 4 or 5 entries, got {size}")
    batch, _, *spatial = size
    n = len(spatial)
    if theta.shape != (batch, n, n + 1):
        raise ArgumentError(
            f"affine_grid: theta must have shape {(batch, n, n + 1)} for size={size}, got {theta.shape}"
        )
    if min(size) <= 0:
        raise ArgumentError(f"affine_grid: size must be positive, got {size}")
    axes = [_centres(s, bool(align_corners)) for s in reversed(spatial)]
    theta_wide = widened(theta)
    points = np.stack([*reversed(np.meshgrid(*reversed(axes), indexing="ij")), np.ones(spatial)], axis=-1)
    homogeneous = jnp.asarray(points.reshape(-1, n + 1), theta_wide.dtype)
    mapped = jnp.einsum("pk,nak->npa", homogeneous, theta_wide, precision=matmul_precision())
    return mapped.reshape(batch, *spatial, n).astype(theta.dtype)


def _centres(size: int, align_corners: bool) -> np.ndarray:
    if size == 1:
        return np.zeros(1)
    ends = 1.0 if align_corners else 1.0 - 1.0 / size
    return np.linspace(-ends, ends, size)


def _check_shapes(input: tuple[int, ...], grid: tuple[int, ...], mode: str) -> None:
    if len(input) not in (4, 5):
        raise ArgumentError(f"grid_sample: input must have 4 or 5 axes, got shape {input}")
    if mode == "bicubic" and len(input) != 4:
        raise ArgumentError(f"grid_sample: mode='bicubic' is for input of 4 axes, got shape {input}")
    if len(grid) != len(input) or grid[0] != input[0] or grid[-1] != len(input) - 2:
        raise ArgumentError(
            f"grid_sample: grid must be (batch, *output, axes) with batch={input[0]}, {len(input) - 2} output axes "
            f"and {len(input) - 2} coordinates for input of shape {input}, got shape {grid}"
        )
    if 0 in input[2:]:
        raise ArgumentError(f"grid_sample: input must have pixels on every spatial axis, got shape {input}")


def _pixel_coordinate(x: Array, size: int, align_corners: bool) -> Array:
    return (x + 1) / 2 * (size - 1) if align_corners else ((x + 1) * size - 1) / 2


def _placed(x: Array, size: int, padding_mode: str, align_corners: bool) -> Array:
    """Coordinates brought into the image; zeros leaves them where they are."""
    if padding_mode == "zeros":
        return x
    if padding_mode == "reflection":
        x = _reflected(x, 0.0, size - 1.0) if align_corners else _reflected(x, -0.5, size - 0.5)
    # At the bounds themselves the derivative is torch's 0, where clip has a half; NaN is the first pixel, as in torch.
    return jnp.where(x > 0, jnp.where(x >= size - 1, size - 1, x), 0)


def _reflected(x: Array, low: float, high: float) -> Array:
    """``x`` mirrored at both bounds until it lies between them."""
    span = high - low
    if span == 0:
        return jnp.zeros_like(x)
    distance = jnp.where(x < low, low - x, x - low)
    rest = lax.rem(distance, jnp.full_like(distance, span))
    even = lax.stop_gradient(jnp.floor(distance / span)) % 2 == 0
    return jnp.where(even, rest + low, high - rest)


def _nearest(x: Array, size: int, place: Callable[[Array, int], Array]) -> list[Tap]:
    return [(jnp.round(lax.stop_gradient(place(x, size))), 1.0)]


def _linear(x: Array, size: int, place: Callable[[Array, int], Array]) -> list[Tap]:
    x = place(x, size)
    before = lax.stop_gradient(jnp.floor(x))
    return [(before, before + 1 - x), (before + 1, x - before)]


def _cubic(x: Array, size: int, place: Callable[[Array, int], Array]) -> list[Tap]:
    before = lax.stop_gradient(jnp.floor(x))
    weights = cubic_weights(x - before)
    return [(place(before + offset, size), weight) for offset, weight in zip((-1, 0, 1, 2), weights, strict=True)]


_TAPS: dict[str, Callable[[Array, int, Callable[[Array, int], Array]], list[Tap]]] = {
    "nearest": _nearest,
    "bilinear": _linear,
    "bicubic": _cubic,
}


def _flat_index(places: list[Array], spatial: Sequence[int]) -> tuple[Shaped[Array, "..."], Bool[Array, "..."]]:
    """The index of each point among all pixels, and whether it lies inside; outside the index is any that exists."""
    inside = jnp.ones((), bool)
    index = jnp.zeros((), jnp.int32)
    for place, size in zip(places, spatial, strict=True):
        inside = inside & (place >= 0) & (place <= size - 1)
        index = index * size + jnp.clip(jnp.nan_to_num(place), 0, size - 1).astype(jnp.int32)
    return index, inside
