"""Sums, means and maxima of rows of a table, bag by bag."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Shaped

from jaxnn.functional._argument import ArgumentError, check_same_dtype, concrete
from jaxnn.functional._input import widened
from jaxnn.functional._table import check_indices, index_array, looked_up, renormed, with_gradient_of


def embedding_bag(
    input: Shaped[ArrayLike, "..."],
    weight: Shaped[ArrayLike, "..."],
    offsets: Int[ArrayLike, " offsets"] | None = None,
    max_norm: int | float | None = None,
    norm_type: int | float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Float[ArrayLike, "..."] | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Float[Array, "bags columns"]:
    """The sum, mean or maximum of the rows in each bag of indices; zero for an empty bag of a line.

    Args:
        input: ``(bags, length)``, a bag a row and none empty; or ``(n,)``, all bags in a line.
        weight: ``(rows, columns)``.
        offsets: ``(bags,)``, where each bag begins in the line; the first is zero.
        max_norm: rows longer than this are shortened to it first; :func:`embedding_bag_with_renorm` returns that table.
        norm_type: the norm that measures them.
        scale_grad_by_freq: divide the gradient of a row by how often it is looked up; not for maxima.
        mode: ``"sum"``, ``"mean"`` or ``"max"``.
        sparse: accepted for torch's sake; without effect, and refused for maxima, as in torch.
        per_sample_weights: the shape of ``input``, a factor for each row looked up; for sums alone.
        include_last_offset: the last of ``offsets`` is where the last bag ends.
        padding_idx: indices of this value count nothing, not in means either.

    Raises:
        ArgumentError: a shape or an option does not fit, ``offsets`` is not as it should be, or an index is no row
            (under ``jit`` its bag is NaN).
        NotImplementedError: ``per_sample_weights`` with another mode than ``"sum"``.

    Source: ``torch.nn.functional.embedding_bag``.
    """
    name = "embedding_bag"
    input, weight = _ordered(input, weight)
    indices, table = index_array(name, "input", input), jnp.asarray(weight)
    if table.ndim != 2 or not jnp.issubdtype(table.dtype, jnp.floating):
        raise ArgumentError(
            f"{name}: weight must have two axes, (rows, columns), and be floating point, "
            f"got shape {table.shape} of {table.dtype}"
        )
    if mode not in ("sum", "mean", "max"):
        raise ArgumentError(f"{name}: mode must be 'sum', 'mean' or 'max', got {mode!r}")
    if mode == "max" and (scale_grad_by_freq or sparse):
        raise ArgumentError(f"{name}: mode 'max' allows neither scale_grad_by_freq nor sparse")
    if per_sample_weights is not None:
        if jnp.shape(per_sample_weights) != indices.shape:
            raise ArgumentError(
                f"{name}: per_sample_weights must have the shape of input, {indices.shape}, "
                f"got {jnp.shape(per_sample_weights)}"
            )
        if mode != "sum":
            raise NotImplementedError(f"{name}: per_sample_weights need mode='sum', got {mode!r}")
        check_same_dtype(name, weight=table, per_sample_weights=per_sample_weights)
    bags, count = _bags(name, indices, offsets, include_last_offset)
    if padding_idx is not None:
        if not -table.shape[0] <= padding_idx < table.shape[0]:
            raise ArgumentError(f"{name}: padding_idx must be a row of {table.shape}, got {padding_idx}")
        padding_idx %= table.shape[0]
    flat = indices.reshape(-1)
    check_indices(name, flat, table, ArgumentError if max_norm is None else IndexError)
    rows = looked_up(name, table, flat, max_norm, norm_type)
    rows = widened(with_gradient_of(rows, table, flat, padding_idx, scale_grad_by_freq))
    counted = jnp.ones(flat.shape, bool) if padding_idx is None else flat != padding_idx
    if per_sample_weights is not None:
        rows = rows * widened(jnp.asarray(per_sample_weights).reshape(-1, 1))
    if mode == "max":
        return _bag_maxima(rows, counted, bags, count).astype(table.dtype)
    output = _bag_sums(jnp.where(counted[:, None], rows, 0), bags, count)
    if mode == "mean":
        members = _bag_sums(counted.astype(rows.dtype)[:, None], bags, count)
        output = output / jnp.maximum(members, 1)
    return output.astype(table.dtype)


def embedding_bag_with_renorm(
    input: Shaped[ArrayLike, "..."],
    weight: Shaped[ArrayLike, "..."],
    offsets: Int[ArrayLike, " offsets"] | None = None,
    max_norm: int | float | None = None,
    norm_type: int | float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Float[ArrayLike, "..."] | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Float[Array, "bags columns"], Float[Array, "rows columns"]]:
    """:func:`embedding_bag`, and the table as torch would have left it."""
    input, weight = _ordered(input, weight)
    output = embedding_bag(
        input,
        weight,
        offsets,
        max_norm,
        norm_type,
        scale_grad_by_freq,
        mode,
        sparse,
        per_sample_weights,
        include_last_offset,
        padding_idx,
    )
    return output, renormed("embedding_bag", weight, input, max_norm, norm_type)


def _ordered(input: Shaped[ArrayLike, "..."], weight: Shaped[ArrayLike, "..."]) -> tuple[ArrayLike, ArrayLike]:
    """Indices and table, in this order; torch still takes them in its old one, with a warning."""
    input, weight = jnp.asarray(input), jnp.asarray(weight)
    if not (jnp.issubdtype(input.dtype, jnp.floating) and jnp.issubdtype(weight.dtype, jnp.integer)):
        return input, weight
    warnings.warn("embedding_bag: input must hold the indices and weight the table; they are exchanged", stacklevel=3)
    return weight, input


def _bags(
    name: str, indices: Array, offsets: Int[ArrayLike, " offsets"] | None, include_last_offset: bool
) -> tuple[Array | None, int]:
    """The bag of each index and how many bags there are; no array where the bags are rows."""
    if indices.ndim == 2:
        if offsets is not None:
            raise ArgumentError(f"{name}: offsets must be None beside an input of two axes, whose rows are the bags")
        if indices.shape[1] == 0:
            raise ArgumentError(f"{name}: bags that are rows need at least one index each, got shape {indices.shape}")
        return None, indices.shape[0]
    if indices.ndim != 1:
        raise ArgumentError(f"{name}: input must have one or two axes, got shape {indices.shape}")
    if offsets is None or jnp.ndim(offsets) != 1:
        found = "None" if offsets is None else f"shape {jnp.shape(offsets)}"
        raise ArgumentError(f"{name}: offsets must have one axis beside an input of one, got {found}")
    starts = index_array(name, "offsets", offsets)
    if include_last_offset and not starts.size:
        raise ArgumentError(f"{name}: include_last_offset needs at least one offset, got none")
    known = concrete(starts)
    if known is not None and known.size:
        if known[0] != 0:
            raise ArgumentError(f"{name}: offsets must begin with 0, got {known[0]}")
        if known[-1] > indices.size:
            raise ArgumentError(
                f"{name}: offsets cannot go beyond the {indices.size} indices of input, got {known[-1]}"
            )
        if (np.diff(known) < 0).any():
            raise ArgumentError(f"{name}: offsets cannot fall, got {known}")
    positions = jnp.arange(indices.size, dtype=starts.dtype)
    # What lies behind a last offset falls into a bag beyond the count, and is dropped.
    return jnp.searchsorted(starts, positions, side="right") - 1, starts.size - include_last_offset


def _bag_sums(rows: Array, bags: Array | None, count: int) -> Array:
    if bags is None:
        return jnp.sum(rows.reshape(count, rows.shape[0] // max(count, 1), rows.shape[-1]), 1)
    return jax.ops.segment_sum(rows, bags, count, indices_are_sorted=True)


def _bag_maxima(rows: Array, counted: Array, bags: Array | None, count: int) -> Array:
    """The first of the largest entries takes the gradient, as in torch."""
    columns = rows.shape[-1]
    if not rows.size:
        return jnp.zeros((count, columns), rows.dtype)
    least = jnp.where(counted[:, None], lax.stop_gradient(rows), -jnp.inf)
    positions = jnp.arange(rows.shape[0])[:, None]
    if bags is None:
        bags = jnp.repeat(jnp.arange(count), rows.shape[0] // count, total_repeat_length=rows.shape[0])
    largest = jax.ops.segment_max(least, bags, count, indices_are_sorted=True)
    at_largest = counted[:, None] & (least == largest.at[bags].get(mode="clip"))
    first = jax.ops.segment_min(jnp.where(at_largest, positions, rows.shape[0]), bags, count, indices_are_sorted=True)
    found = first < rows.shape[0]
    picked = jnp.take_along_axis(rows, jnp.where(found, first, 0), 0, mode="clip")
    return jnp.where(found, picked, jnp.where(jnp.isnan(largest), jnp.nan, 0))
