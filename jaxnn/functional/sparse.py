"""Class indices as vectors: ones among zeros, and rows of a table."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Int, Shaped

from jaxnn.functional._argument import ArgumentError, concrete
from jaxnn.functional._table import check_indices, index_array, looked_up, renormed, with_gradient_of


def one_hot(input: Int[ArrayLike, "*shape"], num_classes: int = -1) -> Int[Array, "*shape classes"]:
    """A one at the index, zeros elsewhere, along a new last axis.

    Args:
        input: class indices, any shape.
        num_classes: how many there are; -1 for one more than the largest index, which needs its value.

    Raises:
        ArgumentError: ``input`` is neither int32 nor int64, an index is no class (under ``jit`` its row is all
            zeros), or ``num_classes`` is to be found under ``jit``, or in an empty array.

    Source: ``torch.nn.functional.one_hot``.
    """
    indices = index_array("one_hot", "input", input)
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
    return (indices[..., None] == jnp.arange(num_classes, dtype=indices.dtype)).astype(int)


def embedding(
    input: Int[ArrayLike, "*shape"],
    weight: Shaped[ArrayLike, "rows columns"],
    padding_idx: int | None = None,
    max_norm: int | float | None = None,
    norm_type: int | float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Shaped[Array, "*shape columns"]:
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
        ArgumentError: ``weight`` does not have two axes, ``input`` is neither int32 nor int64, or ``max_norm`` is given
            for a table of integers.
        AssertionError: ``padding_idx`` is no row.
        IndexError: an index is no row. Under ``jit`` its result is NaN, the least number in a table of integers.

    Source: ``torch.nn.functional.embedding``.
    """
    indices, table = index_array("embedding", "input", input), jnp.asarray(weight)
    if table.ndim != 2:
        raise ArgumentError(f"embedding: weight must have two axes, (rows, columns), got shape {table.shape}")
    if padding_idx is not None:
        if not -table.shape[0] <= padding_idx < table.shape[0]:
            raise AssertionError(f"embedding: padding_idx must be a row of {table.shape}, got {padding_idx}")
        padding_idx %= table.shape[0]
    check_indices("embedding", indices, table, IndexError)
    rows = looked_up("embedding", table, indices, max_norm, norm_type)
    return with_gradient_of(rows, table, indices, padding_idx, scale_grad_by_freq)


def embedding_with_renorm(
    input: Int[ArrayLike, "*shape"],
    weight: Shaped[ArrayLike, "rows columns"],
    padding_idx: int | None = None,
    max_norm: int | float | None = None,
    norm_type: int | float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> tuple[Shaped[Array, "*shape columns"], Shaped[Array, "rows columns"]]:
    """:func:`embedding`, and the table as torch would have left it."""
    output = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    return output, renormed("embedding", weight, input, max_norm, norm_type)
