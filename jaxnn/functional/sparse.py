"""Rows of a table by index."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Inexact, Int, Num

from jaxnn.functional._argument import ArgumentError, check_same_dtype, concrete
from jaxnn.functional._input import widened
from jaxnn.functional.distance import vector_norm

Table = Inexact[ArrayLike, "rows columns"]
Indices = Int[ArrayLike, "..."]


def one_hot(input: Num[ArrayLike, "*shape"], num_classes: int = -1) -> Int[Array, "*shape classes"]:
    """A one at the index, zeros elsewhere, along a new last axis.

    Args:
        input: class indices, any shape.
        num_classes: how many there are; -1 for one more than the largest index, which needs its value.

    Raises:
        ArgumentError: ``input`` holds no integers, an index is no class (under ``jit`` its row is all zeros), or
            ``num_classes`` is to be found under ``jit``, or in an empty array.

    Source: ``torch.nn.functional.one_hot``.
    """
    indices = jnp.asarray(input)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ArgumentError(f"one_hot: input must hold class indices, got {indices.dtype}")
    known = concrete(indices)
    least, most = (known.min(), known.max()) if known is not None and known.size else (0, -1)
    if least < 0:
        raise ArgumentError(f"one_hot: input cannot be negative, got {least} in it")
    if num_classes == -1:
        if known is None or not known.size:
            reason = "under jit shapes cannot depend on values" if known is None else "input is empty"
            raise ArgumentError(f"one_hot: num_classes must be given, for {reason}; got -1")
        num_classes = int(most) + 1
    if num_classes <= 0 and (num_classes < 0 or not indices.size):
        raise ArgumentError(f"one_hot: num_classes must be positive, got {num_classes}")
    if most >= num_classes:
        raise ArgumentError(f"one_hot: input must be below num_classes={num_classes}, got {most} in it")
    return (indices[..., None] == jnp.arange(num_classes, dtype=indices.dtype)).astype(jnp.int_)


def embedding(
    input: Indices,
    weight: Table,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Inexact[Array, "*shape columns"]:
    """The row of the table at each index.

    Args:
        input: indices, any shape.
        weight: ``(rows, columns)``.
        padding_idx: the gradient of this row is zero; negative counts from the end.
        max_norm: rows longer than this are shortened to it before they are looked up. Torch does so in ``weight``
            itself; :func:`embedding_with_renorm` returns that table too.
        norm_type: the norm that measures them.
        scale_grad_by_freq: divide the gradient of a row by how often it is looked up.
        sparse: accepted for torch's sake; without effect.

    Raises:
        ArgumentError: ``weight`` does not have two axes, or ``input`` holds no integers.
        AssertionError: ``padding_idx`` is no row.
        IndexError: an index is no row; under ``jit`` its result is NaN.

    Source: ``torch.nn.functional.embedding``.
    """
    return embedding_with_renorm(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)[0]


def embedding_with_renorm(
    input: Indices,
    weight: Table,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> tuple[Inexact[Array, "*shape columns"], Inexact[Array, "rows columns"]]:
    """:func:`embedding`, and the table as torch would have left it."""
    indices, table = _checked("embedding", input, weight)
    if padding_idx is not None:
        if not -table.shape[0] <= padding_idx < table.shape[0]:
            raise AssertionError(f"embedding: padding_idx must be a row of {table.shape}, got {padding_idx}")
        padding_idx %= table.shape[0]
    valid = _valid("embedding", indices, table, IndexError)
    if max_norm is not None:
        table = _renormed(table, indices, valid, max_norm, norm_type)
    return _rows(table, indices, valid, padding_idx, scale_grad_by_freq), lax.stop_gradient(table)


def embedding_bag(
    input: Indices,
    weight: Table,
    offsets: Int[ArrayLike, "offsets"] | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Float[ArrayLike, "..."] | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Inexact[Array, "bags columns"]:
    """The sum, mean or maximum of the rows in each bag of indices; zero for an empty bag.

    Args:
        input: ``(bags, length)``, a bag a row; or ``(n,)``, all bags in a line.
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
    return embedding_bag_with_renorm(
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
    )[0]


def embedding_bag_with_renorm(
    input: Indices,
    weight: Table,
    offsets: Int[ArrayLike, "offsets"] | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Float[ArrayLike, "..."] | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Inexact[Array, "bags columns"], Inexact[Array, "rows columns"]]:
    """:func:`embedding_bag`, and the table as torch would have left it."""
    name = "embedding_bag"
    indices, table = _checked(name, input, weight)
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
    valid = _valid(name, flat, table, ArgumentError)
    if max_norm is not None:
        table = _renormed(table, flat, valid, max_norm, norm_type)
    rows = widened(_rows(table, flat, valid, padding_idx, scale_grad_by_freq))
    counted = jnp.ones(flat.shape, bool) if padding_idx is None else flat != padding_idx
    if per_sample_weights is not None:
        rows = rows * widened(jnp.asarray(per_sample_weights).reshape(-1, 1))
    if mode == "max":
        output = _bag_maxima(rows, counted, bags, count)
    else:
        output = _bag_sums(jnp.where(counted[:, None], rows, 0), bags, count)
        if mode == "mean":
            members = _bag_sums(counted.astype(rows.dtype)[:, None], bags, count)
            output = output / jnp.maximum(members, 1)
    return output.astype(table.dtype), lax.stop_gradient(table)


def _checked(name: str, input: Indices, weight: Table) -> tuple[Array, Array]:
    indices, table = jnp.asarray(input), jnp.asarray(weight)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ArgumentError(f"{name}: input must hold indices, got {indices.dtype}")
    if table.ndim != 2:
        raise ArgumentError(f"{name}: weight must have two axes, (rows, columns), got shape {table.shape}")
    return indices, table


def _valid(name: str, indices: Array, table: Array, error: type[Exception]) -> Array:
    count = table.shape[0]
    known = concrete(indices)
    if known is not None and (wrong := known[(known < 0) | (known >= count)]).size:
        raise error(f"{name}: index {wrong[0]} is not a row of weight, which has {count}")
    return (indices >= 0) & (indices < count)


def _rows(
    table: Array, indices: Array, valid: Array, padding_idx: int | None, scale_grad_by_freq: bool
) -> Inexact[Array, "..."]:
    index = jnp.where(valid, indices, 0)
    rows = table.at[index].get(mode="promise_in_bounds")
    if padding_idx is not None or scale_grad_by_freq:
        scale = jnp.ones(indices.shape, rows.dtype)
        if scale_grad_by_freq:
            often = jnp.zeros(table.shape[0], rows.dtype).at[index].add(1)
            scale = scale / often.at[index].get(mode="promise_in_bounds")
        if padding_idx is not None:
            scale = jnp.where(indices == padding_idx, 0, scale)
        rows = _with_tangent(rows, rows, scale[..., None])
    return jnp.where(valid[..., None], rows, jnp.nan)


def _renormed(table: Array, indices: Array, valid: Array, max_norm: float, norm_type: float) -> Array:
    """The table with the rows looked up at most ``max_norm`` long; its gradient passes as if nothing had happened."""
    norms = vector_norm(table, norm_type, keepdim=True)
    looked_up = jnp.zeros(table.shape[0], bool).at[jnp.where(valid, indices, 0).ravel()].max(valid.ravel())
    short = jnp.where(norms > max_norm, table * (max_norm / (norms + 1e-7)), table)
    return _with_tangent(lax.stop_gradient(jnp.where(looked_up[:, None], short, table)), table, jnp.ones_like(norms))


@jax.custom_jvp
def _with_tangent(value: Array, carrier: Array, scale: Array) -> Array:
    """``value``, which moves as ``scale`` times ``carrier``."""
    return value


@_with_tangent.defjvp
def _with_tangent_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return primals[0], tangents[1] * primals[2]


def _bags(
    name: str, indices: Array, offsets: Int[ArrayLike, "offsets"] | None, include_last_offset: bool
) -> tuple[Array | None, int]:
    """The bag of each index and how many bags there are; no array where the bags are rows."""
    if indices.ndim == 2:
        if offsets is not None:
            raise ArgumentError(f"{name}: offsets must be None beside an input of two axes, whose rows are the bags")
        return None, indices.shape[0]
    if indices.ndim != 1:
        raise ArgumentError(f"{name}: input must have one or two axes, got shape {indices.shape}")
    starts = None if offsets is None else jnp.asarray(offsets)
    if starts is None or starts.ndim != 1:
        found = "None" if starts is None else f"shape {starts.shape}"
        raise ArgumentError(f"{name}: offsets must have one axis beside an input of one, got {found}")
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
        length = rows.shape[0] // count if count else 0
        return jnp.sum(rows.reshape(count, length, rows.shape[-1]), 1)
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
