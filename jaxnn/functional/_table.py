"""Looking up rows of a table: what embeddings and bags of them share."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Int, Shaped

from jaxnn.functional._argument import ArgumentError, concrete
from jaxnn.functional._input import widened
from jaxnn.functional._tangents import with_tangent
from jaxnn.functional.tensors import vector_norm


def index_array(name: str, argument: str, array: Shaped[ArrayLike, "..."]) -> Int[Array, "..."]:
    """``array`` of the dtypes torch takes for indices."""
    indices = jnp.asarray(array)
    if indices.dtype not in (jnp.int32, jnp.int64):
        raise ArgumentError(f"{name}: {argument} must be int32 or int64, got {indices.dtype}")
    return indices


def check_indices(name: str, indices: Array, table: Array, error: type[Exception]) -> None:
    """Refuse an index that is no row, where its value is known."""
    known, rows = concrete(indices), table.shape[0]
    if known is not None and (wrong := known[(known < 0) | (known >= rows)]).size:
        raise error(f"{name}: index {wrong[0]} is not a row of weight, which has {rows}")


def looked_up(
    name: str, table: Array, indices: Array, max_norm: int | float | None, norm_type: int | float
) -> Shaped[Array, "..."]:
    """The rows at ``indices``, at most ``max_norm`` long; their gradient passes as if they had not been shortened."""
    rows = table.at[_inside(indices, table)].get(mode="fill")
    if max_norm is None:
        return rows
    if not jnp.issubdtype(table.dtype, jnp.inexact):
        raise ArgumentError(f"{name}: max_norm needs a weight of floating point, got {table.dtype}")
    norms = widened(vector_norm(rows, norm_type, -1, keepdim=True))
    scale = (max_norm / (norms + 1e-7)).astype(widened(rows).dtype)
    short = jnp.where(norms > max_norm, (widened(rows) * scale).astype(rows.dtype), rows)
    return with_tangent(lax.stop_gradient(short), rows)


def _inside(indices: Array, table: Array) -> Array:
    """``indices`` with the one behind the last row in place of all that are no row: JAX counts negative ones back."""
    return jnp.where((indices >= 0) & (indices < table.shape[0]), indices, table.shape[0])


def renormed(
    name: str,
    weight: Shaped[ArrayLike, "..."],
    input: Shaped[ArrayLike, "..."],
    max_norm: int | float | None,
    norm_type: int | float,
) -> Shaped[Array, "rows columns"]:
    """The whole table as torch leaves it: the rows looked up are at most ``max_norm`` long."""
    table, indices = jnp.asarray(weight), jnp.asarray(input)
    if max_norm is None:
        return table
    rows = lax.stop_gradient(looked_up(name, table, indices, max_norm, norm_type))
    return lax.stop_gradient(table).at[_inside(indices, table)].set(rows, mode="drop")


def with_gradient_of(
    rows: Array, table: Array, indices: Array, padding_idx: int | None, scale_grad_by_freq: bool
) -> Shaped[Array, "..."]:
    """``rows``, of no gradient at ``padding_idx``, divided elsewhere by how often the row is looked up if so asked."""
    if scale_grad_by_freq:
        index = _inside(indices, table)
        often = jnp.zeros(table.shape[0], jnp.int32).at[index].add(1, mode="drop")
        times = often.at[index].get(mode="fill", fill_value=1)[..., None]
        rows = with_tangent(rows, rows / times.astype(rows.dtype))
    if padding_idx is not None:
        rows = with_tangent(rows, jnp.where((indices == padding_idx)[..., None], 0, rows))
    return rows
