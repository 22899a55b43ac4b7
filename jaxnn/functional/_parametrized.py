"""Matrices with a given norm, with largest singular value one, and orthogonal ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact

Matrices = Inexact[Array, "*batch m n"]


def norm_except(v: Inexact[Array, "..."], dim: int) -> Inexact[Array, "..."]:
    """The norm of each slice along ``dim``, or of all of ``v`` where ``dim`` is -1; half precision in float32."""
    axes = None if dim == -1 else tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim)
    wide = v.astype(jnp.float32) if v.dtype.itemsize < 4 else v
    return jnp.sqrt(jnp.sum(jnp.abs(wide) ** 2, axis=axes, keepdims=axes is not None)).astype(v.dtype)


def power_iterations(
    matrix: Inexact[Array, "h w"], u: Inexact[Array, " h"], v: Inexact[Array, " w"], count: int, eps: float
) -> tuple[Inexact[Array, " h"], Inexact[Array, " w"]]:
    """``u`` and ``v`` brought nearer to the first singular vectors; nothing is differentiated."""
    matrix = jax.lax.stop_gradient(matrix)

    def step(_: ArrayLike, vectors: tuple[Array, Array]) -> tuple[Array, Array]:
        u = _unit(matrix @ vectors[1], eps)
        return u, _unit(matrix.conj().T @ u, eps)

    return jax.lax.fori_loop(0, count, step, (u, v))


def _unit(vector: Array, eps: float) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), eps).astype(vector.dtype)


def skew_orthogonal(x: Matrices, cayley: bool) -> Matrices:
    """The first columns of the exponential, or the Cayley map, of the lower triangle of ``x`` less its adjoint."""
    n, k = x.shape[-2:]
    lower = jnp.pad(jnp.tril(x), [(0, 0)] * (x.ndim - 1) + [(0, n - k)])
    skew = lower - lower.mT.conj()
    if cayley:
        eye = jnp.eye(n, dtype=x.dtype)
        return jnp.linalg.solve(eye - skew / 2, eye + skew / 2)[..., :k]
    return jax.scipy.linalg.expm(skew)[..., :k]


def householder_orthogonal(x: Matrices) -> Matrices:
    """The product of the reflections whose vectors stand below the diagonal of ``x``, columns signed by the diagonal.

    In the compact form :math:`I - V T V^T`, with :math:`T^{-1}` the upper triangle of :math:`V^T V`, halved on the
    diagonal: every step is a product of matrices.
    """
    n, k = x.shape[-2:]
    v = jnp.tril(x, -1) + jnp.eye(n, k, dtype=x.dtype)
    gram = v.mT @ v
    inverse = jnp.triu(gram, 1) + jnp.eye(k, dtype=x.dtype) * gram / 2
    top = jnp.broadcast_to(v[..., :k, :].mT, inverse.shape)
    q = jnp.eye(n, k, dtype=x.dtype) - v @ jax.scipy.linalg.solve_triangular(inverse, top)
    signs = jnp.trunc(jax.lax.stop_gradient(jnp.diagonal(x, axis1=-2, axis2=-1)))
    return q * signs[..., None, :]
