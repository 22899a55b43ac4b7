"""Distances between rows."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Num

from jaxnn.functional._argument import ArgumentError, promoted
from jaxnn.functional._elementwise_loss import broadcast_shape
from jaxnn.functional._input import checked_axis, default_float, floating, magnitude, widened
from jaxnn.functional._tangents import with_tangent
from jaxnn.functional.tensors import safe_sqrt, vector_norm


def pairwise_distance(
    x1: Num[ArrayLike, "..."],
    x2: Num[ArrayLike, "..."],
    p: int | float = 2.0,
    eps: int | float = 1e-6,
    keepdim: bool = False,
) -> Float[Array, "..."]:
    r"""Distance of each row of one array from the row of the other.

    .. math:: d = \lVert x_1 - x_2 + \epsilon \rVert_p

    Args:
        x1: ``(..., D)``.
        x2: the same shape, or one that broadcasts.
        p: the norm; infinity and zero (the count of differing entries) among them.
        eps: added to each difference, which keeps the gradient finite where rows coincide.
        keepdim: keep the last axis, of size one.

    Raises:
        ArgumentError: the shapes do not broadcast.

    Source: ``torch.nn.functional.pairwise_distance``.
    """
    broadcast_shape("pairwise_distance", x1=x1, x2=x2)
    first, second = promoted(x1, x2)
    differences = default_float(first - second) + eps
    return vector_norm(differences, p, -1 if differences.ndim else None, keepdim)


def cosine_similarity(
    x1: Num[ArrayLike, "..."], x2: Num[ArrayLike, "..."], dim: int = 1, eps: int | float = 1e-8
) -> Float[Array, "..."]:
    r"""Cosine of the angle between vectors along an axis.

    .. math:: \frac{x_1 \cdot x_2}{\max(\lVert x_1 \rVert_2, \epsilon) \max(\lVert x_2 \rVert_2, \epsilon)}

    Args:
        x1: any shape that has axis ``dim`` after broadcasting.
        x2: broadcasts against ``x1``.
        dim: the axis of the vectors.
        eps: the least norm; as in torch the gradient passes through a shorter vector's norm nevertheless.

    Raises:
        ArgumentError: the shapes do not broadcast.
        IndexError: there is no axis ``dim``.
        NotImplementedError: neither array is floating point, or one is complex.

    Source: ``torch.nn.functional.cosine_similarity``.
    """
    shape = broadcast_shape("cosine_similarity", x1=x1, x2=x2) or (1,)
    first, second = (floating("cosine_similarity", x) for x in promoted(x1, x2))
    axis = checked_axis("cosine_similarity", dim, len(shape))
    units = [_directions(axis, eps, widened(jnp.broadcast_to(x, shape))) for x in (first, second)]
    return jnp.sum(units[0] * units[1], axis).astype(first.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _directions(axis: int, eps: int | float, vectors: Array) -> Array:
    """``vectors`` divided by their norms, or by ``eps`` where they are shorter."""
    norm = jnp.sqrt(jnp.sum(lax.square(vectors), axis, keepdims=True))
    return vectors / jnp.maximum(norm, eps)


@_directions.defjvp
def _directions_jvp(axis: int, eps: int | float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Of the tangent what lies along the vector cancels exactly; a quotient's derivative would leave rounding behind.
    (vectors,), (tangent,) = primals, tangents
    norm = safe_sqrt(jnp.sum(lax.square(vectors), axis, keepdims=True))
    length = jnp.maximum(norm, eps)
    along = vectors / jnp.where(norm == 0, 1, norm)
    directions = vectors / length
    return directions, (tangent - directions * jnp.sum(along * tangent, axis, keepdims=True)) / length


def pdist(input: Float[ArrayLike, "n d"], p: int | float = 2.0) -> Float[Array, " pairs"]:
    r"""Distances between all pairs of rows, those of row 0 first.

    .. math:: d_{ij} = \lVert x_i - x_j \rVert_p, \quad i < j

    The gradient is zero where rows coincide. Of the maximum norm it goes to every one of equal largest entries.

    Args:
        input: ``(N, D)``.
        p: the norm, at least zero; infinity and zero (the count of differing entries) among them.

    Returns:
        ``(N (N - 1) / 2,)``.

    Raises:
        ArgumentError: ``input`` does not have two axes, or ``p`` is negative.

    Source: ``torch.nn.functional.pdist``.
    """
    x = floating("pdist", input)
    if x.ndim != 2:
        raise ArgumentError(f"pdist: input must have two axes, (N, D), got shape {x.shape}")
    if not p >= 0:
        raise ArgumentError(f"pdist: p cannot be negative, got {p}")
    differences = x[:, None] - x[None]
    distances = vector_norm(differences, p, -1)
    if math.isinf(p):
        size = magnitude(differences)
        largest = jnp.sum(jnp.where(size == distances[..., None], size, 0), -1)
        distances = with_tangent(distances, largest)
    # The indices are computed: as constants they would be as large as the result.
    rows, pairs = x.shape[0], x.shape[0] * (x.shape[0] - 1) // 2
    later = rows - 1 - jnp.arange(rows)
    first = jnp.repeat(jnp.arange(rows), later, total_repeat_length=pairs)
    second = rows - (jnp.cumsum(later)[first] - jnp.arange(pairs))
    return distances.at[first, second].get(mode="promise_in_bounds", unique_indices=True)
