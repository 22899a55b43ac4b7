"""Matrix products of many groups at once, whose sizes are values: nothing in a shape depends on them."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError, accumulation_dtype, check_same_dtype


def grouped_mm(
    mat_a: Float[ArrayLike, "..."],
    mat_b: Float[ArrayLike, "..."],
    *,
    offs: Int[ArrayLike, " groups"] | None = None,
    bias: Float[ArrayLike, "..."] | None = None,
    out_dtype: DTypeLike | None = None,
) -> Float[Array, "..."]:
    r"""One matrix product for each group of rows, of columns or of contracted elements.

    .. math:: C_{[g]} = A_{[g]} B_{[g]}

    Args:
        mat_a: ``(M, K)`` or ``(G, M, K)``.
        mat_b: ``(K, N)`` or ``(G, K, N)``.
        offs: ``(G,)``, int32, ascending: where each group ends on the axis that is cut. Needed unless both have 3 axes.
        bias: ``None``; torch has no implementation of another.
        out_dtype: ``None`` or the dtype of ``mat_a``.

    Returns:
        ``(M, N)`` for ``(M, K)`` with ``(G, K, N)``, whose rows are cut, and for ``(G, M, K)`` with ``(K, N)``, whose
        columns are; ``(G, M, N)`` for ``(M, K)`` with ``(K, N)``, where K is cut, and for two arrays of 3 axes. Rows
        and columns past the last group are zero. The work is at most twice that of the groups, however they fall.

    Raises:
        ArgumentError: shapes or dtypes that do not fit together, ``offs`` missing or unwanted, or a ``bias``.

    Source: ``torch.nn.functional.grouped_mm``.
    """
    check_same_dtype("grouped_mm", mat_a=mat_a, mat_b=mat_b)
    a, b = jnp.asarray(mat_a), jnp.asarray(mat_b)
    if a.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
        raise ArgumentError(f"grouped_mm: mat_a must be float32, bfloat16 or float16, got {a.dtype}")
    if out_dtype is not None and jnp.dtype(out_dtype) != a.dtype:
        raise ArgumentError(f"grouped_mm: out_dtype must be that of mat_a, {a.dtype}, got {jnp.dtype(out_dtype)}")
    if bias is not None:
        raise ArgumentError(f"grouped_mm: bias must be None, got shape {jnp.shape(bias)}")
    ends = check_groups("grouped_mm", a, b, offs)
    return grouped_product(a, b, ends).astype(a.dtype)


def check_groups(name: str, a: Array, b: Array, offs: ArrayLike | None) -> Array | None:
    """``offs`` as an array, refused where it and the two matrices do not fit together."""
    if a.ndim not in (2, 3) or b.ndim not in (2, 3):
        raise ArgumentError(f"{name}: mat_a and mat_b must have 2 or 3 axes, got {a.shape} and {b.shape}")
    if a.shape[-1] != b.shape[-2]:
        raise ArgumentError(f"{name}: the last axis of mat_a must match mat_b's last but one, got {a.shape}, {b.shape}")
    if a.ndim == b.ndim == 3:
        if offs is not None or a.shape[0] != b.shape[0]:
            raise ArgumentError(
                f"{name}: two arrays of 3 axes must have as many groups, and no offs, got {a.shape}, {b.shape}"
                f"{'' if offs is None else ' and offs'}"
            )
        return None
    if offs is None:
        raise ArgumentError(f"{name}: offs must say where groups end unless both arrays have 3 axes, got None")
    ends = jnp.asarray(offs)
    if ends.ndim != 1 or ends.dtype != jnp.int32 or ends.shape[0] == 0:
        raise ArgumentError(
            f"{name}: offs must be int32 with one axis of groups, got {ends.dtype} of shape {ends.shape}"
        )
    groups = {x.shape[0] for x in (a, b) if x.ndim == 3}
    if groups and groups != {ends.shape[0]}:
        raise ArgumentError(f"{name}: offs must have an element for each of {groups.pop()} groups, got {ends.shape[0]}")
    return ends


def grouped_product(a: Array, b: Array, ends: Array | None) -> Array:
    """The product without checks, in the dtype it is accumulated in."""
    if ends is None:
        return _matmul(a, b)
    if b.ndim == 3:
        return _rows_grouped(a, b, ends)
    if a.ndim == 3:
        return _rows_grouped(b.mT, a.mT, ends).mT
    rows, group_of_block, _ = _blocks(a.shape[1], ends)
    parts = _matmul(_taken(a.mT, rows).mT, _taken(b, rows))
    return jax.ops.segment_sum(parts, group_of_block, num_segments=ends.shape[0])


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=matmul_precision(), preferred_element_type=accumulation_dtype(a.dtype))


def _rows_grouped(a: Float[Array, "rows K"], b: Float[Array, "groups K N"], ends: Int[Array, " groups"]) -> Array:
    rows, group_of_block, place = _blocks(a.shape[0], ends)
    products = _matmul(_taken(a, rows), jnp.take(b, group_of_block, axis=0, mode="clip"))
    return _taken(products.reshape(-1, products.shape[-1]), place)


def _taken(x: Array, index: Int[Array, "..."]) -> Array:
    if x.shape[0] == 0:
        return jnp.zeros((*index.shape, *x.shape[1:]), x.dtype)
    return jnp.take(x, index, axis=0, mode="fill", fill_value=0)


def _blocks(length: int, ends: Int[Array, " groups"]) -> tuple[Array, Array, Array]:
    """Cut ``length`` elements into equal blocks, none of which crosses from one group into the next.

    Returns:
        The elements of each block, the group of each block, and for each element its place among the blocks' elements.
        An index past the end stands for none.
    """
    groups = ends.shape[0]
    size = max(1, -(-length // groups))
    count = -(-length // size) + groups
    starts = jnp.concatenate([jnp.zeros_like(ends[:1]), ends[:-1]])
    block_ends = jnp.cumsum(-((starts - ends) // size), dtype=jnp.int32)
    block_starts = jnp.concatenate([jnp.zeros_like(ends[:1]), block_ends[:-1]])

    block = jnp.arange(count, dtype=jnp.int32)
    group_of_block = jnp.searchsorted(block_ends, block, side="right").astype(jnp.int32)
    known = jnp.minimum(group_of_block, groups - 1)
    rows = (starts[known] + (block - block_starts[known]) * size)[:, None] + jnp.arange(size, dtype=jnp.int32)
    used = (group_of_block < groups)[:, None] & (rows < ends[known][:, None])

    element = jnp.arange(length, dtype=jnp.int32)
    group = jnp.searchsorted(ends, element, side="right").astype(jnp.int32)
    owner = jnp.minimum(group, groups - 1)
    place = block_starts[owner] * size + element - starts[owner]
    return jnp.where(used, rows, length), group_of_block, jnp.where(group < groups, place, count * size)
