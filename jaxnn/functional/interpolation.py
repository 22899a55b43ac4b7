"""Images, sequences and volumes brought to another size."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Num

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional import _resampling
from jaxnn.functional._argument import ArgumentError, accumulation_dtype
from jaxnn.functional._resampling import Resized, Table
from jaxnn.functional.adaptive_pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

Number = TypeVar("Number", int, float)

_AXES = {"linear": 1, "bilinear": 2, "bicubic": 2, "lanczos": 2, "trilinear": 3}
_AREA = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


def interpolate(
    input: Num[ArrayLike, "batch channels *spatial"],
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Num[Array, "batch channels *output"]:
    r"""Bring the spatial axes to another size.

    .. math:: y_p = \sum_q k(u_p - q)\, x_q, \quad u_p = (p + \tfrac12) \cdot \text{step} - \tfrac12
        \text{, or with aligned corners } p \cdot \text{step}

    axis by axis. The step is the inverse of ``scale_factor``, or input size over output size (with aligned corners,
    their sizes less one).

    Args:
        input: ``(batch, channels, *spatial)`` with one to three spatial axes, floating point; uint8 also in modes
            nearest, nearest-exact, bilinear, bicubic and lanczos, rounded.
        size: of the output, in pixels, for all axes or for each.
        scale_factor: output size over input size, for all axes or for each, in place of ``size``.
        mode: ``"nearest"`` (the pixel below, as OpenCV has it), ``"nearest-exact"``, ``"linear"`` (one axis),
            ``"bilinear"``, ``"bicubic"``, ``"lanczos"`` (two), ``"trilinear"`` (three), ``"area"`` (adaptive average
            pooling).
        align_corners: whether corner pixels lie on corner pixels by their centres, in the linear and cubic modes.
        recompute_scale_factor: take the step from the sizes, not from ``scale_factor``.
        antialias: widen the kernel where the image shrinks; modes bilinear, bicubic and lanczos.

    Returns:
        ``(batch, channels, *size)``.

    Raises:
        ArgumentError: not exactly one of ``size`` and ``scale_factor`` is given or it does not fit the axes, an option
            does not go with the mode, or an axis but the batch is empty.
        TypeError: ``size`` holds something else than integers.
        NotImplementedError: the mode is unknown or not for that many axes, or the dtype not for the mode.

    Source: ``torch.nn.functional.interpolate``.
    """
    input = jnp.asarray(input)
    spatial = input.shape[2:]
    if mode not in _AXES and align_corners is not None:
        raise ArgumentError(
            f"interpolate: align_corners goes with the linear and cubic modes only, got "
            f"align_corners={align_corners} beside mode={mode!r}"
        )
    if recompute_scale_factor and size is not None:
        raise ArgumentError("interpolate: recompute_scale_factor goes with scale_factor, got size")
    resized = _resized(spatial, size, scale_factor)
    if mode == "area" or recompute_scale_factor:
        resized = [axis._replace(factor=None) for axis in resized]
    if antialias and (mode not in ("bilinear", "bicubic", "lanczos") or input.ndim != 4):
        raise ArgumentError(
            f"interpolate: antialias goes with modes 'bilinear', 'bicubic' and 'lanczos' and input of 4 axes, "
            f"got mode={mode!r} and input of shape {input.shape}"
        )
    known = mode in ("nearest", "nearest-exact", "area")
    if not (1 <= len(spatial) <= 3 and (known or _AXES.get(mode) == len(spatial))):
        raise NotImplementedError(
            f"interpolate: mode={mode!r} is not to be had for input of {input.ndim} axes; there are nearest, "
            f"nearest-exact and area for 3 to 5, linear for 3, bilinear, bicubic and lanczos for 4, trilinear for 5"
        )
    if mode == "area":
        return _AREA[len(spatial)](input, [axis.output for axis in resized])
    if mode == "lanczos" and (align_corners or not antialias):
        raise ArgumentError("interpolate: mode='lanczos' needs antialias=True and no align_corners=True")
    if input.shape[1] == 0 or min(spatial) == 0 or min(axis.output for axis in resized) <= 0:
        raise ArgumentError(
            f"interpolate: sizes must be positive, got input of shape {input.shape} "
            f"and output {tuple(axis.output for axis in resized)}"
        )
    _check_dtype(input, mode)
    read = _read_bytes if input.dtype == jnp.uint8 and not known else _read
    output = input.astype(accumulation_dtype(input.dtype))
    # The last axis first: what is gathered along the others is then whole rows of memory.
    tables = _tables(resized, mode, bool(align_corners), antialias, input.dtype)
    for place, table in reversed(list(enumerate(tables, 2))):
        if table is not None:
            output = read(output, place, table)
    return output.astype(input.dtype)


def upsample(
    input: Num[ArrayLike, "batch channels *spatial"],
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Num[Array, "batch channels *output"]:
    """:func:`interpolate` by its older name.

    Source: ``torch.nn.functional.upsample``.
    """
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Num[ArrayLike, "batch channels *spatial"],
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Num[Array, "batch channels *output"]:
    """:func:`interpolate` in mode nearest.

    Source: ``torch.nn.functional.upsample_nearest``.
    """
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(
    input: Num[ArrayLike, "batch channels height width"],
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Num[Array, "batch channels output_height output_width"]:
    """:func:`interpolate` in mode bilinear with aligned corners.

    Source: ``torch.nn.functional.upsample_bilinear``.
    """
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def _resized(
    spatial: tuple[int, ...], size: int | Sequence[int] | None, scale_factor: float | Sequence[float] | None
) -> list[Resized]:
    if size is not None and scale_factor is None:
        sizes = _per_axis("size", size, spatial)
        return [Resized(n, operator.index(output), None) for n, output in zip(spatial, sizes, strict=True)]
    if scale_factor is not None and size is None:
        factors = _per_axis("scale_factor", scale_factor, spatial)
        return [Resized(n, int(n * float(factor)), float(factor)) for n, factor in zip(spatial, factors, strict=True)]
    raise ArgumentError(
        f"interpolate: one of size and scale_factor must be given, got size={size} and scale_factor={scale_factor}"
    )


def _per_axis(name: str, given: Number | Sequence[Number], spatial: tuple[int, ...]) -> Sequence[Number]:
    values = given if isinstance(given, Sequence) else (given,) * len(spatial)
    if len(values) != len(spatial):
        raise ArgumentError(f"interpolate: {name} must have a value for each of the axes {spatial}, got {given}")
    return values


def _check_dtype(input: Array, mode: str) -> None:
    if input.dtype == jnp.uint8 and mode not in ("linear", "trilinear"):
        return
    if not jnp.issubdtype(input.dtype, jnp.floating):
        raise NotImplementedError(f"interpolate: mode={mode!r} is not for input of dtype {input.dtype}")


def _tables(
    resized: list[Resized], mode: str, align_corners: bool, antialias: bool, dtype: jnp.dtype
) -> list[Table | None]:
    """A table for each axis, none where the axis stays as it is."""
    if mode in ("nearest", "nearest-exact"):
        # torch's kernel for images whose height and width sum up to so little rounds in its own way.
        small_image = len(resized) == 2 and sum(axis.output for axis in resized) <= 128
        kind = np.float64 if dtype == jnp.float64 else np.float32
        return [_resampling.nearest(axis, mode == "nearest-exact", kind, small_image) for axis in resized]
    if mode == "bicubic" and not antialias:
        return [_resampling.cubic(axis, align_corners) for axis in resized]
    if antialias:
        filter, reach = _FILTERS[mode]
        made = [_resampling.antialiased(axis, align_corners, filter, reach) for axis in resized]
    else:
        made = [_resampling.linear(axis, align_corners) for axis in resized]
    return [None if axis.output == axis.size else table for axis, table in zip(resized, made, strict=True)]


_FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "bilinear": (_resampling.triangle, 1),
    "bicubic": (_resampling.sharper_cubic, 2),
    "lanczos": (_resampling.lanczos, 3),
}


def _read(input: Array, place: int, table: Table) -> Array:
    """The weighted sum, along one axis, of the pixels a table names.

    By slices, so that a NaN stays among the pixels that read it; but the derivative is a matrix product, as the
    transpose of those slices would be as many scatters.
    """
    size, (output, taps) = input.shape[place], table.pixels.shape
    times = output // size
    if taps == 1 and np.array_equal(table.pixels[:, 0], np.arange(size * times) // max(times, 1)):
        return jnp.repeat(input, times, place)
    weights = table.weights.astype(input.dtype)

    @jax.custom_jvp
    def read(x: Array) -> Array:
        return _tap_by_tap(x, place, table.pixels, weights)

    @read.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        matrix = table.matrix(size).astype(weights.dtype)
        moved = jnp.moveaxis(tangents[0], place, -1)
        product = jnp.einsum("...i,oi->...o", moved, matrix, precision=matmul_precision())
        return read(*primals), jnp.moveaxis(product, -1, place)

    return read(input)


def _read_bytes(input: Array, place: int, table: Table) -> Array:
    """As :func:`_read`, in the whole numbers torch computes with, rounded to bytes after each axis."""
    weights, bits = _resampling.whole_weights(table, input.shape[place])
    total = _tap_by_tap(input.astype(jnp.int32), place, table.pixels, weights)
    return jnp.clip((total + (1 << bits - 1)) >> bits, 0, 255).astype(input.dtype)


def _tap_by_tap(x: Array, place: int, pixels: np.ndarray, weights: np.ndarray) -> Array:
    shape = [-1 if i == place else 1 for i in range(x.ndim)]
    terms = [
        jnp.take(x, pixel, place, mode="clip") * weight.reshape(shape)
        for pixel, weight in zip(pixels.T, weights.T, strict=True)
    ]
    return functools.reduce(operator.add, terms)
