"""Multi-head attention with its projections, as ``torch.nn.MultiheadAttention`` computes it."""

import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError, accumulation_dtype, promoted
from jaxnn.functional.attention import scaled_dot_product_attention
from jaxnn.functional.dropouts import dropout
from jaxnn.functional.linear_maps import linear
from jaxnn.functional.softmaxes import softmax

Mask = Bool[ArrayLike, "..."] | Float[ArrayLike, "..."]


class ExpectationError(ArgumentError, AssertionError):
    """An argument that cannot be, where torch says so with an ``AssertionError``."""


def multi_head_attention_forward(
    query: Float[ArrayLike, "targets *batch embed"],
    key: Float[ArrayLike, "sources *batch key_embed"],
    value: Float[ArrayLike, "sources *batch value_embed"],
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Float[ArrayLike, "three_embed embed"] | None,
    in_proj_bias: Float[ArrayLike, " three_embed"] | None,
    bias_k: Float[ArrayLike, "*one embed"] | None,
    bias_v: Float[ArrayLike, "*one embed"] | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Float[ArrayLike, "out_embed embed"],
    out_proj_bias: Float[ArrayLike, " out_embed"] | None,
    training: bool = True,
    key_padding_mask: Mask | None = None,
    need_weights: bool = True,
    attn_mask: Mask | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Float[ArrayLike, "embed embed"] | None = None,
    k_proj_weight: Float[ArrayLike, "embed key_embed"] | None = None,
    v_proj_weight: Float[ArrayLike, "embed value_embed"] | None = None,
    static_k: Float[ArrayLike, "heads static_sources head_embed"] | None = None,
    static_v: Float[ArrayLike, "heads static_sources head_embed"] | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    dropout_key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, "targets *batch out_embed"], Float[Array, "..."] | None]:
    r"""Attention of several heads, each on its own projection of queries, keys and values.

    .. math:: \mathrm{concat}(h_1, \dots, h_H)\, W_O^T + b_O, \quad
              h_i = \mathrm{softmax}(Q_i K_i^T / \sqrt{D} + M)\, V_i, \quad D = E / H

    Args:
        query: ``(L, N, E)``, or ``(L, E)`` without a batch.
        key: ``(S, N, Ek)`` or ``(S, Ek)``.
        value: ``(S, N, Ev)`` or ``(S, Ev)``.
        embed_dim_to_check: E.
        num_heads: H, a divisor of E.
        in_proj_weight: ``(3 E, E)``, the projections of query, key and value below one another.
        in_proj_bias: ``(3 E,)``.
        bias_k: ``(1, 1, E)``, a key attached to every sequence; with ``bias_v``.
        bias_v: ``(1, 1, E)``, its value.
        add_zero_attn: attach a key and a value of zeros.
        dropout_p: probability that a weight is zeroed in training.
        out_proj_weight: ``(E, E)``.
        out_proj_bias: ``(E,)``.
        training: without it nothing is dropped.
        key_padding_mask: ``(N, S)`` or ``(S,)``. Boolean: true where a key is hidden. Floating: added to the scores.
        need_weights: return the weights too. Without it the computation is :func:`scaled_dot_product_attention`'s:
            cheaper, and zero instead of NaN for a query whose keys are all hidden.
        attn_mask: ``(L, S)`` or ``(N H, L, S)``; boolean (true hides) or floating.
        use_separate_proj_weight: project with the three weights below instead of ``in_proj_weight``.
        q_proj_weight: ``(E, E)``.
        k_proj_weight: ``(E, Ek)``.
        v_proj_weight: ``(E, Ev)``.
        static_k: ``(N H, S', D)``, in place of the projected keys.
        static_v: ``(N H, S', D)``, in place of the projected values.
        average_attn_weights: return the mean of the weights over the heads.
        is_causal: says that ``attn_mask`` is the causal one, which then need not be read.
        dropout_key: a ``jax.random.key``; needed in training where ``dropout_p`` lies between 0 and 1.

    Returns:
        ``(L, N, E)`` or ``(L, E)``; and the weights, ``(N, L, S)`` averaged or ``(N, H, L, S)``, without N where there
        is no batch; ``None`` without ``need_weights``.

    Raises:
        ArgumentError: shapes, dtypes or options that do not fit; an ``AssertionError`` as well where torch raises one.

    Source: ``torch.nn.functional.multi_head_attention_forward``; Vaswani et al. (2017).
    """
    self_attention, one_memory = query is key and key is value, key is value
    query, key, value = jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
    _check_ranks(query, key, value, key_padding_mask, attn_mask)
    if is_causal and attn_mask is None:
        raise ArgumentError("multi_head_attention_forward: is_causal is a hint on attn_mask, got attn_mask=None")
    batched = query.ndim == 3
    if not batched:
        query, key, value = query[:, None], key[:, None], value[:, None]
    targets, batch, embed = query.shape
    if in_proj_bias is not None and jnp.shape(in_proj_bias) != (3 * embed,):
        raise ArgumentError(
            f"multi_head_attention_forward: in_proj_bias must be {(3 * embed,)}, got {jnp.shape(in_proj_bias)}"
        )
    _check_sizes(query, key, value, embed_dim_to_check, num_heads, use_separate_proj_weight)
    if use_separate_proj_weight:
        weights = {"q_proj_weight": q_proj_weight, "k_proj_weight": k_proj_weight, "v_proj_weight": v_proj_weight}
        q, k, v = _projected_separately(query, key, value, weights, in_proj_bias)
    else:
        q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias, self_attention, one_memory)

    mask = None
    if not (is_causal and key_padding_mask is None and not need_weights):
        mask = _attention_mask(attn_mask, (batch * num_heads, targets, key.shape[0]), query.dtype)
    padding = _additive("key_padding_mask", key_padding_mask, query.dtype)

    if (bias_k is None) != (bias_v is None):
        raise ExpectationError(
            "multi_head_attention_forward: bias_k and bias_v must be given together, got one of them"
        )
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise ExpectationError("multi_head_attention_forward: bias_k cannot join static_k or static_v, got both")
        k, v = _attached("bias_k", bias_k, k), _attached("bias_v", bias_v, v)
    q, k, v = (x.reshape(len(x), batch, num_heads, embed // num_heads).transpose(1, 2, 0, 3) for x in (q, k, v))
    k, v = _static("static_k", static_k, k), _static("static_v", static_v, v)
    if k.shape[2] != v.shape[2]:
        raise ArgumentError(
            f"multi_head_attention_forward: keys and values must be as many, got {k.shape[2]} and {v.shape[2]}; "
            "give static_k and static_v together"
        )
    if add_zero_attn:
        k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0))) for x in (k, v))
    # The attached keys are never hidden.
    attached = (bias_k is not None) + add_zero_attn
    mask = _merged(mask, padding, (batch, num_heads, targets, k.shape[2]), attached)

    drop = dropout_p if training else 0.0
    attention = None
    if need_weights:
        attention = dropout(_weights(q, k, mask), drop, key=dropout_key)
        attended = jnp.matmul(attention, v, precision=matmul_precision())
    else:
        # A hint of causality holds no longer once padding was merged in; without padding the mask was never made.
        causal = is_causal and mask is None
        attended = scaled_dot_product_attention(q, k, v, mask, drop, causal, dropout_key=dropout_key)
    output = linear(attended.transpose(2, 0, 1, 3).reshape(targets, batch, embed), out_proj_weight, out_proj_bias)
    if attention is not None and average_attn_weights:
        attention = jnp.mean(attention, axis=1)
    if batched:
        return output, attention
    return output[:, 0], None if attention is None else attention[0]


def _check_ranks(query: Array, key: Array, value: Array, padding: ArrayLike | None, mask: ArrayLike | None) -> None:
    ranks = (query.ndim, key.ndim, value.ndim)
    if ranks not in ((2, 2, 2), (3, 3, 3)):
        raise ExpectationError(
            "multi_head_attention_forward: query, key and value must have 3 axes (sequence, batch, features) or 2 "
            f"(without batch), got {query.shape}, {key.shape} and {value.shape}"
        )
    if padding is not None and jnp.ndim(padding) != query.ndim - 1:
        raise ExpectationError(
            f"multi_head_attention_forward: key_padding_mask must have {query.ndim - 1} axes beside query "
            f"{query.shape}, got shape {jnp.shape(padding)}"
        )
    if mask is not None and jnp.ndim(mask) not in (2, 3):
        raise ExpectationError(
            f"multi_head_attention_forward: attn_mask must be (L, S) or (N * num_heads, L, S), got {jnp.shape(mask)}"
        )


def _check_sizes(query: Array, key: Array, value: Array, embed_dim: int, num_heads: int, separate: bool) -> None:
    if query.shape[2] != embed_dim or embed_dim % num_heads:
        raise ExpectationError(
            f"multi_head_attention_forward: query must have {embed_dim} features, a multiple of num_heads={num_heads}, "
            f"got {query.shape[2]}"
        )
    if key.shape[: 2 if separate else 3] != value.shape[: 2 if separate else 3]:
        raise ExpectationError(
            f"multi_head_attention_forward: key and value must have one shape (their features may differ where the "
            f"projections are separate), got {key.shape} and {value.shape}"
        )
    if query.shape[1] != key.shape[1]:
        raise ArgumentError(
            f"multi_head_attention_forward: query and key must have one batch size, got {query.shape} and {key.shape}"
        )


def _projected(
    query: Array, key: Array, value: Array, weight: ArrayLike | None, bias: ArrayLike | None, whole: bool, memory: bool
) -> list[Array]:
    """Packed projections: one product where the three are one (``whole``), two where key is value (``memory``)."""
    if weight is None:
        raise ExpectationError("multi_head_attention_forward: in_proj_weight must be an array, got None")
    embed = query.shape[-1]
    weight = jnp.asarray(weight)
    if weight.shape != (3 * embed, embed):
        raise ArgumentError(
            f"multi_head_attention_forward: in_proj_weight must be {(3 * embed, embed)}, got {weight.shape}"
        )
    if whole:
        return jnp.split(linear(query, weight, bias), 3, axis=-1)
    biases = [None] * 3 if bias is None else jnp.split(jnp.asarray(bias), 3)
    if memory:
        joint = None if bias is None else jnp.asarray(bias)[embed:]
        return [linear(query, weight[:embed], biases[0]), *jnp.split(linear(key, weight[embed:], joint), 2, axis=-1)]
    return [linear(x, w, b) for x, w, b in zip((query, key, value), jnp.split(weight, 3), biases, strict=True)]


def _projected_separately(
    query: Array, key: Array, value: Array, weights: dict[str, ArrayLike | None], bias: ArrayLike | None
) -> list[Array]:
    biases = [None] * 3 if bias is None else jnp.split(jnp.asarray(bias), 3)
    projected = []
    for x, (name, weight), b in zip((query, key, value), weights.items(), biases, strict=True):
        expected = (query.shape[-1], x.shape[-1])
        if weight is None or jnp.shape(weight) != expected:
            found = "None" if weight is None else jnp.shape(weight)
            raise ExpectationError(f"multi_head_attention_forward: {name} must have shape {expected}, got {found}")
        projected.append(linear(x, weight, b))
    return projected


def _additive(name: str, mask: ArrayLike | None, dtype: jnp.dtype) -> Array | None:
    """The mask as numbers to add: minus infinity where a boolean mask hides."""
    if mask is None:
        return None
    mask = jnp.asarray(mask)
    if mask.dtype == bool:
        return jnp.where(mask, -jnp.inf, 0.0).astype(dtype)
    if not jnp.issubdtype(mask.dtype, jnp.floating):
        raise ExpectationError(f"multi_head_attention_forward: {name} must be boolean or floating, got {mask.dtype}")
    return mask


def _attention_mask(mask: ArrayLike | None, shape: tuple[int, int, int], dtype: jnp.dtype) -> Array | None:
    added = _additive("attn_mask", mask, dtype)
    if added is not None and added.shape not in (shape, shape[1:]):
        raise ArgumentError(
            f"multi_head_attention_forward: attn_mask must be (L, S) = {shape[1:]} or (N * num_heads, L, S) = {shape}, "
            f"got {added.shape}"
        )
    return added


def _attached(name: str, bias: ArrayLike, projected: Array) -> Array:
    bias, embed = jnp.asarray(bias), projected.shape[2]
    if bias.shape not in ((embed,), (1, embed), (1, 1, embed)):
        raise ArgumentError(f"multi_head_attention_forward: {name} must be {(1, 1, embed)}, got {bias.shape}")
    return jnp.concatenate([projected, jnp.broadcast_to(bias, (1, *projected.shape[1:]))])


def _static(name: str, static: ArrayLike | None, projected: Array) -> Array:
    if static is None:
        return projected
    static = jnp.asarray(static)
    batch, heads, _, features = projected.shape
    if static.ndim != 3 or static.shape[0] != batch * heads or static.shape[2] != features:
        raise ExpectationError(
            f"multi_head_attention_forward: {name} must be (N * num_heads, S, head_dim) = "
            f"({batch * heads}, S, {features}), got {static.shape}"
        )
    return static.reshape(batch, heads, *static.shape[1:])


def _merged(mask: Array | None, padding: Array | None, shape: tuple[int, int, int, int], attached: int) -> Array | None:
    """Both masks as one that broadcasts to ``shape``, (N, H, L, S), with zeros for the ``attached`` last keys."""
    batch, heads, _, sources = shape
    parts = []
    if mask is not None:
        parts.append(mask if mask.ndim == 2 else mask.reshape(batch, heads, *mask.shape[1:]))
    if padding is not None:
        if padding.size != batch * padding.shape[-1]:
            raise ExpectationError(
                f"multi_head_attention_forward: key_padding_mask must hold {batch} sequences, got shape {padding.shape}"
            )
        parts.append(padding.reshape(batch, 1, 1, padding.shape[-1]))
    if any(part.shape[-1] + attached != sources for part in parts):
        raise ExpectationError(
            f"multi_head_attention_forward: attn_mask and key_padding_mask must cover {sources - attached} keys, "
            f"got {' and '.join(str(part.shape[-1]) for part in parts)}"
        )
    if not parts:
        return None
    first, *others = promoted(*parts)
    merged = sum(others, start=first)
    return jnp.pad(merged, [(0, 0)] * (merged.ndim - 1) + [(0, attached)])


def _weights(q: Array, k: Array, mask: Array | None) -> Array:
    dtype = accumulation_dtype(q.dtype)
    scaled = q.astype(dtype) * math.sqrt(1.0 / q.shape[-1])
    scores = jnp.matmul(scaled, k.astype(dtype).mT, precision=matmul_precision())
    if mask is not None:
        if mask.dtype != q.dtype:
            raise ArgumentError(f"multi_head_attention_forward: masks must be boolean or {q.dtype}, got {mask.dtype}")
        scores = scores + mask.astype(dtype)
    return softmax(scores, -1).astype(q.dtype)
