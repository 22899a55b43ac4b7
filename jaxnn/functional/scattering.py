"""Values reduced into an array at given places, with torch's gradients where places or values coincide."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer, Real

from jaxnn.functional._argument import ArgumentError
from jaxnn.functional._input import checked_axis

Reduce = Literal["sum", "prod", "mean", "amax", "amin"]


def scatter_reduce(
    input: Real[Array, "..."],
    dim: int,
    index: Integer[Array, "..."],
    src: Real[Array, "..."],
    reduce: Reduce,
    *,
    include_self: bool = True,
) -> Real[Array, "..."]:
    """``input`` with the entries of ``src`` reduced into the places that ``index`` names along an axis.

    Args:
        input: any shape.
        dim: the axis.
        index: as many axes as ``input``, and no longer than ``src`` along any, nor than ``input`` along the other axes.
        src: of the dtype of ``input``.
        reduce: ``"sum"``, ``"prod"``, ``"mean"``, ``"amax"`` or ``"amin"``.
        include_self: whether what ``input`` holds at these places counts, too.

    Returns:
        Of the shape of ``input``. Equal extremes share the gradient.

    Raises:
        IndexError: there is no such axis.
        ArgumentError: the reduction is unknown, or the arrays differ in their number of axes.

    Source: ``torch.scatter_reduce``.
    """
    if reduce not in _REDUCTIONS:
        raise ArgumentError(f"scatter_reduce: reduce must be one of {', '.join(_REDUCTIONS)}, got {reduce!r}")
    if not input.ndim == index.ndim == src.ndim:
        found = f"input {input.ndim}, index {index.ndim}, src {src.ndim}"
        raise ArgumentError(f"scatter_reduce: arrays must have as many axes as one another, got {found}")
    dim = checked_axis("scatter_reduce", dim, input.ndim)
    src = src[tuple(map(slice, index.shape))]
    return _scattered(dim, reduce, include_self, index, input, src)


def index_reduce(
    input: Real[Array, "..."],
    dim: int,
    index: Integer[Array, " n"],
    source: Real[Array, "..."],
    reduce: Literal["prod", "mean", "amax", "amin"],
    *,
    include_self: bool = True,
) -> Real[Array, "..."]:
    """``input`` with the slices of ``source`` along an axis reduced into the slices that ``index`` names.

    Args:
        input: any shape.
        dim: the axis.
        index: which slice of ``input`` each of ``source`` belongs to.
        source: of the shape of ``input`` but for ``n`` slices, and of its dtype.
        reduce: ``"prod"``, ``"mean"``, ``"amax"`` or ``"amin"``.
        include_self: whether what ``input`` holds in these slices counts, too.

    Source: ``torch.index_reduce``; gradients are those of :func:`scatter_reduce`.
    """
    dim = checked_axis("index_reduce", dim, input.ndim)
    behind = max(source.ndim - dim - 1, 0)
    places = jnp.broadcast_to(index.reshape(-1, *[1] * behind) if source.ndim else index, source.shape)
    return scatter_reduce(input, dim, places, source, reduce, include_self=include_self)


def _at(x: Array, dim: int, index: Array) -> Any:
    """``x.at`` the entries that ``index`` names along ``dim``; the other axes are indexed by their own positions."""
    if not x.ndim:
        return x.at[jnp.zeros(index.shape, int)] if index.ndim else x.at[()]
    grid = list(jnp.ogrid[tuple(map(slice, index.shape))])
    grid[dim] = index
    return x.at[tuple(grid)]


def _read(x: Array, dim: int, index: Array) -> Array:
    return _at(x, dim, index).get()


_REDUCTIONS = {"sum": "add", "prod": "multiply", "mean": "add", "amax": "max", "amin": "min"}


def _neutral(reduce: str, dtype: jnp.dtype) -> Array:
    if reduce in ("sum", "mean", "prod"):
        return jnp.asarray(reduce == "prod", dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(-jnp.inf if reduce == "amax" else jnp.inf, dtype)
    limits = jnp.iinfo(dtype)
    return jnp.asarray(limits.min if reduce == "amax" else limits.max, dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _scattered(dim: int, reduce: str, own: bool, index: Array, x: Array, src: Array) -> Array:
    start = x if own else _at(x, dim, index).set(_neutral(reduce, x.dtype))
    found = getattr(_at(start, dim, index), _REDUCTIONS[reduce])(src)
    if reduce != "mean":
        return found
    count = _counts(dim, own, index, x)
    return found / count if jnp.issubdtype(x.dtype, jnp.floating) else found // count


def _counts(dim: int, own: bool, index: Array, x: Array) -> Array:
    """How many values each place is the mean of."""
    count = _at(jnp.full_like(x, own), dim, index).add(1)
    return count if own else jnp.maximum(count, 1)


@_scattered.defjvp
def _scattered_jvp(
    dim: int, reduce: str, own: bool, primals: tuple[Array, ...], tangents: tuple[Any, Array, Array]
) -> tuple[Array, Array]:
    index, x, src = primals
    found = _scattered(dim, reduce, own, index, x, src)
    of_x, of_src = _factors(dim, reduce, own, index, x, src, found)
    if not own:
        of_x = _at(of_x, dim, index).set(0)
    return found, _at(of_x * tangents[1], dim, index).add(of_src * tangents[2])


def _factors(dim: int, reduce: str, own: bool, index: Array, x: Array, src: Array, found: Array) -> tuple[Array, Array]:
    """The derivatives of the result by the value at its place, and by each that is reduced into it."""
    if reduce == "sum":
        return jnp.ones_like(x), jnp.ones_like(src)
    if reduce == "mean":
        count = 1 / _counts(dim, own, index, x)
        return count, _read(count, dim, index)
    if reduce == "prod":
        return _of_product(dim, own, index, x, src, found)
    of_x = (x == found).astype(x.dtype)
    of_src = (src == _read(found, dim, index)).astype(x.dtype)
    ties = _at(of_x, dim, index).add(of_src)  # torch counts the value at the place also where it is left out
    return of_x / ties, of_src / _read(ties, dim, index)


def _of_product(dim: int, own: bool, index: Array, x: Array, src: Array, found: Array) -> tuple[Array, Array]:
    """A product divided by the factor, with the other factors' product where that factor alone is zero."""
    nonzero = jnp.where(x == 0, 1, x)
    of_x = _scattered(dim, "prod", own, index, nonzero, src) / nonzero
    zero = src == 0
    zeros = _read(_at(jnp.zeros(x.shape, int), dim, index).add(zero.astype(int)), dim, index)
    alone = zero & (zeros == 1)
    others = _scattered(dim, "prod", own, index, x, jnp.where(alone, 1, src))
    divided = _read(found, dim, index) / jnp.where(zero, 1, src)
    return of_x, jnp.where(alone, _read(others, dim, index), divided)
