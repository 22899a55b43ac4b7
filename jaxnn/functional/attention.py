"""Scaled dot-product attention, whole for short sequences and block by block for long ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError, accumulation_dtype, check_same_dtype
from jaxnn.functional.dropouts import check_probability, dropout
from jaxnn.functional.softmaxes import softmax_tangent

BLOCKWISE_FROM = 2**16
"""Scores of one head (queries times keys) from which attention runs block by block."""

BLOCK_SCORES = 2**20
"""Scores of one head held at a time then: 4 MiB in float32, which a CPU's cache takes."""

CAUSAL_RANGES = 4
"""Ranges of queries that see only the keys they need; more would save little and compile longer."""


def scaled_dot_product_attention(
    query: Float[ArrayLike, "... targets embed"],
    key: Float[ArrayLike, "... sources embed"],
    value: Float[ArrayLike, "... sources value_embed"],
    attn_mask: Bool[ArrayLike, "..."] | Float[ArrayLike, "..."] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "... targets value_embed"]:
    r"""Average of the values, weighted by how well each query matches each key.

    .. math:: \mathrm{softmax}(s\, Q K^T + M)\, V

    A query whose keys are all masked attends to nothing: its result and its gradient are zero. For long sequences the
    weights are never held whole, forward or backward, so that memory grows linearly in either length; with dropout they
    are, since the draw is.

    Args:
        query: ``(..., L, E)``; the leading axes of the three broadcast.
        key: ``(..., S, E)``.
        value: ``(..., S, Ev)``.
        attn_mask: broadcasts to ``(..., L, S)``. Boolean: true where a query may look at a key. Floating: added to the
            scores, in the dtype of ``query`` or float32.
        dropout_p: probability that a weight is zeroed, in [0, 1]; applied whenever it is positive.
        is_causal: query i sees keys 0 to i, also where L and S differ; without ``attn_mask``.
        scale: factor of the scores; ``None`` for :math:`1/\sqrt{E}`.
        enable_gqa: ``key`` and ``value`` may have fewer heads (axis -3) than ``query``, a divisor of its number.
        dropout_key: a ``jax.random.key``; needed where ``dropout_p`` lies between 0 and 1 (``key`` being taken).

    Returns:
        ``(..., L, Ev)``, in the dtype of ``query``; half precision is accumulated in float32.

    Raises:
        ArgumentError: shapes or dtypes that do not fit together, a mask beside ``is_causal``, ``dropout_p`` outside
            [0, 1], or a key that is needed and missing.
        IndexError: ``enable_gqa`` without an axis of heads.
        NotImplementedError: complex arrays.

    Source: ``torch.nn.functional.scaled_dot_product_attention``; Vaswani et al. (2017); block by block: Rabe and Staats
    (2021).
    """
    name = "scaled_dot_product_attention"
    check_same_dtype(name, query=query, key=key, value=value)
    check_probability(name, dropout_p)
    query, key, value = jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
    _check_operands(name, query, key, value)
    if enable_gqa:
        key, value = (_repeated_heads(name, query, x) for x in (key, value))
    try:
        batch = jnp.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        jnp.broadcast_shapes(batch, value.shape[:-2])
    except ValueError:
        raise ArgumentError(
            f"{name}: the leading axes must broadcast, got query {query.shape}, key {key.shape}, value {value.shape}"
        ) from None
    mask = None if attn_mask is None else jnp.asarray(attn_mask)
    if mask is not None:
        _check_mask(name, mask, is_causal, query.dtype, (*batch, query.shape[-2], key.shape[-2]))
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1]) if query.shape[-1] else 1.0
    if dropout_p == 0.0 and query.shape[-2] * key.shape[-2] >= BLOCKWISE_FROM:
        return _blockwise(query, key, value, mask, is_causal, scale)
    scores = _scores(query, key, mask, scale, 0 if is_causal else None)
    noise = dropout(jnp.ones_like(scores), dropout_p, key=dropout_key) if dropout_p else None
    return _averaged(scores, value, noise)


def _check_operands(name: str, query: Array, key: Array, value: Array) -> None:
    if jnp.issubdtype(query.dtype, jnp.complexfloating):
        raise NotImplementedError(f"{name}: complex scores have no softmax, got {query.dtype}")
    if not jnp.issubdtype(query.dtype, jnp.floating):
        raise ArgumentError(f"{name}: query, key and value must be floating, got {query.dtype}")
    if (
        min(query.ndim, key.ndim, value.ndim) < 2
        or query.shape[-1] != key.shape[-1]
        or key.shape[-2] != value.shape[-2]
    ):
        raise ArgumentError(
            f"{name}: expected query (..., L, E), key (..., S, E) and value (..., S, Ev), "
            f"got {query.shape}, {key.shape} and {value.shape}"
        )


def _repeated_heads(name: str, query: Array, x: Array) -> Array:
    if min(query.ndim, x.ndim) < 3:
        raise IndexError(f"{name}: enable_gqa needs an axis of heads, -3, got shapes {query.shape} and {x.shape}")
    heads = query.shape[-3]
    if x.shape[-3] == 0 or heads % x.shape[-3]:
        raise ArgumentError(f"{name}: the heads of key and value must divide query's {heads}, got {x.shape[-3]}")
    return jnp.repeat(x, heads // x.shape[-3], axis=-3)


def _check_mask(name: str, mask: Array, is_causal: bool, dtype: jnp.dtype, shape: tuple[int, ...]) -> None:
    if is_causal:
        raise ArgumentError(f"{name}: attn_mask must be None where is_causal=True, got shape {mask.shape}")
    if mask.dtype not in (bool, jnp.float32, dtype):
        raise ArgumentError(f"{name}: attn_mask must be bool, float32 or {dtype} like query, got {mask.dtype}")
    if mask.ndim > len(shape) or any(m not in (1, n) for m, n in zip(mask.shape[::-1], shape[::-1], strict=False)):
        raise ArgumentError(f"{name}: attn_mask must broadcast to the scores' shape {shape}, got {mask.shape}")


def _scores(
    query: Float[Array, "... targets embed"],
    key: Float[Array, "... sources embed"],
    mask: Bool[Array, "..."] | Float[Array, "..."] | None,
    scale: float,
    first: int | Int[Array, ""] | None,
) -> Float[Array, "... targets sources"]:
    """Scaled and masked scores; ``first`` is the first query's position where the mask is causal, else ``None``."""
    dtype = accumulation_dtype(query.dtype)
    scores = scale * jnp.matmul(query, key.mT, precision=matmul_precision(), preferred_element_type=dtype)
    if first is not None:
        targets, sources = scores.shape[-2:]
        mask = first + jnp.arange(targets)[:, None] >= jnp.arange(sources)
    if mask is None:
        return scores
    # Added, not selected, so that NaN and infinity come through a mask as they do in torch.
    return scores + (jnp.where(mask, 0.0, -jnp.inf).astype(dtype) if mask.dtype == bool else mask.astype(dtype))


def _powers(scores: Float[Array, "... sources"]) -> tuple[Float[Array, "... sources"], Float[Array, "... 1"]]:
    """Numerators and denominator of the softmax; 0 and 1 where all scores of a row are minus infinity."""
    peak = jnp.max(scores, axis=-1, keepdims=True, initial=-jnp.inf)
    powers = jnp.exp(scores - jnp.where(peak == -jnp.inf, 0.0, peak).astype(scores.dtype))
    total = jnp.sum(powers, axis=-1, keepdims=True)
    return powers, jnp.where(total == 0, 1.0, total).astype(scores.dtype)


@jax.custom_jvp
def _softmax(scores: Float[Array, "... sources"]) -> Float[Array, "... sources"]:
    powers, total = _powers(scores)
    return powers / total


@_softmax.defjvp
def _softmax_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    weights = _softmax(*primals)
    return weights, softmax_tangent(weights, *tangents, -1)


@jax.custom_jvp
def _averaged(
    scores: Float[Array, "... targets sources"],
    value: Float[Array, "... sources value_embed"],
    noise: Float[Array, "... targets sources"] | None,
) -> Float[Array, "... targets value_embed"]:
    """The values averaged with the softmax of the scores, times dropout's noise."""
    powers, total = _powers(scores)
    # Normalized last: one division for each output, not for each weight.
    return (_products(powers, value, noise) / total).astype(value.dtype)


@_averaged.defjvp
def _averaged_jvp(
    primals: tuple[Array, Array, Array | None], tangents: tuple[Array, Array, Array | None]
) -> tuple[Array, Array]:
    (scores, value, noise), (d_scores, d_value, _) = primals, tangents
    weights, d_weights = jax.jvp(_softmax, (scores,), (d_scores,))
    tangent = _products(d_weights, value, noise) + _products(weights, d_value, noise)
    return _averaged(scores, value, noise), tangent.astype(value.dtype)


def _products(
    weights: Float[Array, "... targets sources"],
    value: Float[Array, "... sources value_embed"],
    noise: Float[Array, "... targets sources"] | None,
) -> Float[Array, "... targets value_embed"]:
    kept = weights if noise is None else weights * noise
    precision, dtype = matmul_precision(), weights.dtype
    return jnp.matmul(kept.astype(value.dtype), value, precision=precision, preferred_element_type=dtype)


def _blockwise(
    query: Float[Array, "... targets embed"],
    key: Float[Array, "... sources embed"],
    value: Float[Array, "... sources value_embed"],
    mask: Bool[Array, "..."] | Float[Array, "..."] | None,
    is_causal: bool,
    scale: float,
) -> Float[Array, "... targets value_embed"]:
    """Attention with one block of queries at a time, their weights computed anew in the backward pass."""
    batch = jnp.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    count = math.prod(batch)
    heads = (jnp.broadcast_to(x, (*batch, *x.shape[-2:])).reshape(count, *x.shape[-2:]) for x in (query, key, value))
    masks = None if mask is None else jnp.atleast_2d(mask)
    # Which of the masks, flattened, belongs to which head: they are not copied for the heads that share one.
    which = np.zeros(batch, np.int32)
    if masks is not None:
        which += np.arange(math.prod(masks.shape[:-2]), dtype=np.int32).reshape(masks.shape[:-2])
        masks = masks.reshape(-1, *masks.shape[-2:])

    def one_head(operands: tuple[Array, Array, Array, Array]) -> Array:
        q, k, v, index = operands
        return _one_head(q, k, v, None if masks is None else masks[index], is_causal, scale)

    # One head after the other keeps a CPU in its cache; an accelerator wants them all at once.
    over_heads = lax.map if jax.default_backend() == "cpu" else lambda f, xs: jax.vmap(f)(xs)
    return over_heads(one_head, (*heads, jnp.asarray(which.ravel()))).reshape(*batch, query.shape[-2], value.shape[-1])


def _one_head(
    query: Float[Array, "targets embed"],
    key: Float[Array, "sources embed"],
    value: Float[Array, "sources value_embed"],
    mask: Bool[Array, "..."] | Float[Array, "..."] | None,
    is_causal: bool,
    scale: float,
) -> Float[Array, "targets value_embed"]:
    targets, sources = query.shape[0], key.shape[0]
    count = -(-targets * sources // BLOCK_SCORES)
    size = -(-targets // count)

    def blocks(x: Array) -> Array:
        return jnp.pad(x, ((0, count * size - targets), (0, 0))).reshape(count, size, x.shape[1])

    row_masks = None if mask is None or mask.shape[0] == 1 else blocks(mask)
    operands = (jnp.arange(count) * size, blocks(query), row_masks)

    def attended(start: int, stop: int, seen: int) -> Array:
        """The blocks from ``start`` to ``stop``, looking at the first ``seen`` keys."""

        def block(operands: tuple[Array, Array, Array | None]) -> Array:
            first, rows, row_mask = operands
            scores = _scores(
                rows, key[:seen], mask if row_mask is None else row_mask, scale, first if is_causal else None
            )
            return _averaged(scores, value[:seen], None)

        return lax.map(jax.checkpoint(block), jax.tree.map(lambda x: x[start:stop], operands))

    step = -(-count // CAUSAL_RANGES) if is_causal else count
    ranges = [(start, min(start + step, count)) for start in range(0, count, step)]
    outputs = [attended(start, stop, min(stop * size, sources) if is_causal else sources) for start, stop in ranges]
    return jnp.concatenate(outputs).reshape(count * size, value.shape[1])[:targets]
