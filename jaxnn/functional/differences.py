"""Slopes between the values of a function that is known at some places."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Num, Real

from jaxnn.functional._argument import ArgumentError
from jaxnn.functional._input import checked_axis, default_float


def gradient(
    input: Num[ArrayLike, "*shape"],
    *,
    spacing: float | Sequence[float | Real[ArrayLike, " n"]] = 1,
    dim: int | Sequence[int] | None = None,
    edge_order: int = 1,
) -> tuple[Inexact[Array, "*shape"], ...]:
    """Derivatives of the parabolas through three neighbours, along each axis; ``jax.numpy.gradient`` has no parabolas
    at the edges.

    Args:
        input: the values.
        spacing: how far they are apart, for all axes or for each; or for each the places themselves.
        dim: the axes; None for all.
        edge_order: 1 for the slope between the two values at an edge, 2 for the derivative of the parabola there.

    Raises:
        ArgumentError: ``edge_order`` is neither, ``spacing`` is not one for each axis, or an axis is too short.

    Source: ``torch.gradient``.
    """
    if edge_order not in (1, 2):
        raise ArgumentError(f"gradient: edge_order must be 1 or 2, got {edge_order}")
    values = default_float(jnp.asarray(input))
    dims = range(values.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    spacings = spacing if isinstance(spacing, list | tuple) else [spacing] * len(dims)
    if len(spacings) != len(dims):
        raise ArgumentError(f"gradient: spacing must be one for each of {len(dims)} axes, got {len(spacings)}")
    axes = [checked_axis("gradient", axis, values.ndim) for axis in dims]
    return tuple(_slopes(values, each, axis, edge_order) for each, axis in zip(spacings, axes, strict=True))


def _slopes(values: Array, spacing: float | ArrayLike, axis: int, edge_order: int) -> Array:
    size = values.shape[axis]
    if size <= edge_order:
        raise ArgumentError(f"gradient: input must have more than {edge_order} values along axis {axis}, got {size}")
    places = jnp.asarray(spacing, values.real.dtype)
    steps = jnp.diff(places) if places.ndim else jnp.full(size - 1, places)
    rises = jnp.diff(jnp.moveaxis(values, axis, -1)) / steps
    inner = (rises[..., :-1] * steps[1:] + rises[..., 1:] * steps[:-1]) / (steps[1:] + steps[:-1])
    first, last = rises[..., :1], rises[..., -1:]
    if edge_order == 2:
        bend = jnp.diff(rises) / (steps[1:] + steps[:-1])
        first, last = first - bend[..., :1] * steps[0], last + bend[..., -1:] * steps[-1]
    return jnp.moveaxis(jnp.concatenate([first, inner, last], -1), -1, axis)
