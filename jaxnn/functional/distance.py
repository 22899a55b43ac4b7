"""Distances between rows."""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Inexact

from jaxnn.functional._argument import ArgumentError, promoted
from jaxnn.functional._elementwise_loss import absolute, broadcast_shape
from jaxnn.functional._input import checked_axis, floating, widened

Input = Inexact[ArrayLike, "..."]
Output = Inexact[Array, "..."]


def pairwise_distance(x1: Input, x2: Input, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Output:
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
    return vector_norm(first - second + eps, p, keepdim)


def cosine_similarity(x1: Input, x2: Input, dim: int = 1, eps: float = 1e-8) -> Output:
    r"""Cosine of the angle between vectors along an axis.

    .. math:: \frac{x_1 \cdot x_2}{\max(\lVert x_1 \rVert_2, \epsilon) \max(\lVert x_2 \rVert_2, \epsilon)}

    Args:
        x1: any shape that has axis ``dim`` after broadcasting.
        x2: broadcasts against ``x1``.
        dim: the axis of the vectors.
        eps: the least norm.

    Raises:
        ArgumentError: the shapes do not broadcast.
        IndexError: there is no axis ``dim``.

    Source: ``torch.nn.functional.cosine_similarity``.
    """
    shape = broadcast_shape("cosine_similarity", x1=x1, x2=x2)
    first, second = promoted(x1, x2)
    first, second = floating("cosine_similarity", first), floating("cosine_similarity", second)
    axis = checked_axis("cosine_similarity", dim, len(shape))
    dtype = first.dtype
    if not shape:
        first, second, axis = first[None], second[None], 0
    first, second = widened(jnp.broadcast_to(first, shape or (1,))), widened(jnp.broadcast_to(second, shape or (1,)))
    units = [x / _bounded_norm(x, axis, eps) for x in (first, second)]
    return jnp.sum(units[0] * units[1], axis).astype(dtype)


def pdist(input: Float[ArrayLike, "n d"], p: float = 2.0) -> Float[Array, "pairs"]:
    r"""Distances between all pairs of rows, those of row 0 first.

    .. math:: d_{ij} = \lVert x_i - x_j \rVert_p, \quad i < j

    The gradient is zero where rows coincide.

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
    if p < 0:
        raise ArgumentError(f"pdist: p cannot be negative, got {p}")
    # One block for each offset between the rows of a pair would be many small ones; a gather of the pairs is one.
    first, second = jnp.triu_indices(x.shape[0], 1)
    return vector_norm(x[first] - x[second], p)


def vector_norm(x: Inexact[Array, "*batch d"], p: float, keepdim: bool = False) -> Inexact[Array, "..."]:
    """The norm of the last axis, with torch's gradient: zero at the origin, shared among equal largest entries."""
    size = absolute(widened(x))
    if p == 0:
        norm = jnp.sum((size != 0).astype(size.dtype), -1, keepdims=keepdim)
    elif p == 1:
        norm = jnp.sum(size, -1, keepdims=keepdim)
    elif p == 2:
        norm = safe_sqrt(jnp.sum(lax.square(size), -1, keepdims=keepdim))
    elif math.isinf(p):
        norm = jnp.max(size, -1, keepdims=keepdim, initial=0) if p > 0 else jnp.min(size, -1, keepdims=keepdim)
    else:
        zero = size == 0
        powers = jnp.where(zero, 0 if p > 0 else math.inf, jnp.where(zero, 1, size) ** p)
        total = jnp.sum(powers, -1, keepdims=keepdim)
        norm = jnp.where(total == 0, 0, jnp.where(total == 0, 1, total) ** (1 / p))
    return norm.astype(size.dtype if jnp.issubdtype(x.dtype, jnp.complexfloating) else x.dtype)


def safe_sqrt(x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """The square root, of gradient zero at zero."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def _bounded_norm(x: Float[Array, "..."], axis: int, eps: float) -> Float[Array, "..."]:
    norm = safe_sqrt(jnp.sum(lax.square(x), axis, keepdims=True))
    return jnp.maximum(norm, eps)
