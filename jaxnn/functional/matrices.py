"""Decompositions as ``torch.linalg`` has them: with what says which matrices have none, and rows counted from one."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Inexact, Int32, Integer

from jaxnn.functional._argument import concrete


def inv_ex(
    A: Inexact[ArrayLike, "*batch n n"], *, check_errors: bool = False
) -> tuple[Inexact[Array, "*batch n n"], Int32[Array, "*batch"]]:
    """Inverses, and of each matrix the first pivot that is zero, counted from one; 0 where it has an inverse.

    Args:
        A: the matrices.
        check_errors: refuse a matrix without an inverse, where its numbers are known.

    Raises:
        numpy.linalg.LinAlgError: as ``check_errors`` asks.

    Source: ``torch.linalg.inv_ex``.
    """
    matrix = jnp.asarray(A)
    return jnp.linalg.inv(matrix), _checked("inv_ex", _first_zero(jax.lax.linalg.lu(matrix)[0]), check_errors)


def solve_ex(
    A: Inexact[ArrayLike, "*batch n n"], B: Inexact[ArrayLike, "..."], *, left: bool = True, check_errors: bool = False
) -> tuple[Inexact[Array, "..."], Int32[Array, "*batch"]]:
    """Solutions of ``A @ X = B``, of ``X @ A = B`` if not ``left``, and what :func:`inv_ex` says of ``A``.

    Args:
        A: the matrices.
        B: matrices, or of each a vector: of shape ``(n,)`` or ``(*batch, n)``.
        left: whether ``A`` stands on the left.
        check_errors: refuse a matrix without an inverse, where its numbers are known.

    Raises:
        numpy.linalg.LinAlgError: as ``check_errors`` asks.

    Source: ``torch.linalg.solve_ex``.
    """
    matrix, right = jnp.asarray(A), jnp.asarray(B)
    vector = right.ndim == 1 or (right.ndim == matrix.ndim - 1 and right.shape == matrix.shape[:-1])
    right = right[..., None] if vector else right
    if left or vector:
        found = jnp.linalg.solve(matrix if left else matrix.mT, right)
    else:
        found = jnp.linalg.solve(matrix.mT, right.mT).mT
    info = _checked("solve_ex", _first_zero(jax.lax.linalg.lu(matrix)[0]), check_errors)
    return found[..., 0] if vector else found, info


def lu_factor(
    A: Inexact[ArrayLike, "*batch m n"], *, pivot: bool = True
) -> tuple[Inexact[Array, "*batch m n"], Int32[Array, "*batch k"]]:
    """:func:`lu_factor_ex` without what it says of the matrices.

    Source: ``torch.linalg.lu_factor``.
    """
    return lu_factor_ex(A, pivot=pivot)[:2]


def lu_factor_ex(
    A: Inexact[ArrayLike, "*batch m n"], *, pivot: bool = True, check_errors: bool = False
) -> tuple[Inexact[Array, "*batch m n"], Int32[Array, "*batch k"], Int32[Array, "*batch"]]:
    """Both factors in one matrix, the rows that were exchanged, counted from one, and what :func:`inv_ex` says.

    Args:
        A: the matrices.
        pivot: must be true.
        check_errors: refuse a matrix whose second factor has a zero on its diagonal, where its numbers are known.

    Raises:
        NotImplementedError: no rows are to be exchanged.
        numpy.linalg.LinAlgError: as ``check_errors`` asks.

    Source: ``torch.linalg.lu_factor_ex``.
    """
    if not pivot:
        raise NotImplementedError("lu_factor_ex: pivot must be true")
    factors, pivots, _ = jax.lax.linalg.lu(jnp.asarray(A))
    return factors, pivots + 1, _checked("lu_factor_ex", _first_zero(factors), check_errors)


def lu_unpack(
    LU_data: Inexact[ArrayLike, "*batch m n"],
    LU_pivots: Integer[ArrayLike, "*batch k"],
    unpack_data: bool = True,
    unpack_pivots: bool = True,
) -> tuple[Inexact[Array, "..."], Inexact[Array, "..."], Inexact[Array, "..."]]:
    """The matrices ``P``, ``L`` and ``U`` whose product was taken apart by :func:`lu_factor`.

    Args:
        LU_data: both factors in one matrix.
        LU_pivots: the rows that were exchanged, counted from one.
        unpack_data: give ``L`` and ``U``; else they are empty.
        unpack_pivots: give ``P``; else it is empty.

    Source: ``torch.lu_unpack``.
    """
    both, pivots = jnp.asarray(LU_data), jnp.asarray(LU_pivots)
    rows, columns = both.shape[-2:]
    rank = min(rows, columns)
    exchanged = lower = upper = jnp.zeros(0, both.dtype)
    if unpack_pivots:
        order = jax.lax.linalg.lu_pivots_to_permutation(pivots - 1, rows)
        exchanged = jax.nn.one_hot(order, rows, dtype=both.dtype).mT
    if unpack_data:
        lower = jnp.tril(both[..., :rank], -1) + jnp.eye(rows, rank, dtype=both.dtype)
        upper = jnp.triu(both[..., :rank, :])
    return exchanged, lower, upper


def cholesky_ex(
    input: Inexact[ArrayLike, "*batch n n"], *, upper: bool = False, check_errors: bool = False
) -> tuple[Inexact[Array, "*batch n n"], Int32[Array, "*batch"]]:
    """Cholesky factors, and of each matrix the order of the first leading minor that is not positive; 0 if all are.

    Args:
        input: symmetric or Hermitian matrices.
        upper: give the upper factor.
        check_errors: refuse a matrix that is not positive definite, where its numbers are known.

    Returns:
        The factors, NaN where there is none, and the orders.

    Raises:
        numpy.linalg.LinAlgError: as ``check_errors`` asks.

    Source: ``torch.linalg.cholesky_ex``.
    """
    matrix = jnp.asarray(input)
    factor = jnp.linalg.cholesky(matrix, upper=upper)
    order = _first_not_positive(jax.lax.stop_gradient(matrix))
    info = jnp.where(_is_factored(factor), 0, order).astype(jnp.int32)
    return factor, _checked("cholesky_ex", info, check_errors)


def _first_not_positive(matrix: Inexact[Array, "*batch n n"]) -> Array:
    """By bisection: a matrix with a leading block that is not positive definite is none itself."""
    size = matrix.shape[-1]
    low, high = jnp.zeros(matrix.shape[:-2], int), jnp.full(matrix.shape[:-2], size)

    def closer(_: Array | int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        inside = jnp.arange(size) < middle[..., None]
        block = jnp.where(inside[..., None] & inside[..., None, :], matrix, jnp.eye(size, dtype=matrix.dtype))
        positive = _is_factored(jnp.linalg.cholesky(block))
        return jnp.where(positive, middle, low), jnp.where(positive, high, middle)

    return jax.lax.fori_loop(0, size.bit_length(), closer, (low, high))[1]


def _is_factored(factor: Array) -> Array:
    return ~jnp.isnan(factor).any((-2, -1))


def _first_zero(factors: Array) -> Array:
    zero = jnp.diagonal(factors, axis1=-2, axis2=-1) == 0
    return jnp.where(zero.any(-1), zero.argmax(-1) + 1, 0).astype(jnp.int32)


def _checked(name: str, info: Array, check_errors: bool) -> Array:
    known = concrete(info) if check_errors else None
    if known is not None and known.any():
        raise np.linalg.LinAlgError(f"{name}: a matrix cannot be taken apart, as info says: {known.tolist()}")
    return info
