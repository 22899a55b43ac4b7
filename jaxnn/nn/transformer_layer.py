"""One layer of a transformer's encoder and decoder."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.nn.attention import MultiheadAttention
from jaxnn.nn.dropout import Dropout
from jaxnn.nn.linear import Linear
from jaxnn.nn.module import Module
from jaxnn.nn.normalization import LayerNorm

Sequence = Float[ArrayLike, "..."]
Mask = Bool[ArrayLike, "..."] | Float[ArrayLike, "..."]
Activation = str | Callable[[Any], Any]


class _TransformerLayer(Module):
    """Attention and a feed-forward network, each beside a residual connection and a layer norm.

    The shapes of sequences are those of :class:`MultiheadAttention`. In training each dropout draws from ``rngs``.
    """

    norm1: LayerNorm
    norm2: LayerNorm
    dropout1: Dropout
    dropout2: Dropout

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = functional.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        sublayers = 3 if isinstance(self, TransformerDecoderLayer) else 2

        def attention() -> MultiheadAttention:
            return MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, device=device, dtype=dtype, rngs=rngs
            )

        self.self_attn = attention()
        if sublayers == 3:
            self.multihead_attn = attention()
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype, rngs=rngs)
        self.norm_first = norm_first
        for i in range(1, sublayers + 1):
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
            setattr(self, f"norm{i}", norm)
        for i in range(1, sublayers + 1):
            setattr(self, f"dropout{i}", Dropout(dropout, rngs=rngs))
        self.activation = _activation(type(self).__name__, activation)

    def _attend(self, x: Any, mask: Any, padding: Any, is_causal: bool) -> Array:
        attended, _ = self.self_attn(x, x, x, padding, False, mask, is_causal=is_causal)
        return self.dropout1(attended)

    def _feed_forward(self, x: Any, last: Dropout) -> Array:
        return last(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoderLayer(_TransformerLayer):
    """Self-attention and a feed-forward network.

    In evaluation it computes what torch computes while gradients are on; torch's fast path, taken without gradients,
    is the same but for positions that are padding.

    Source: ``torch.nn.TransformerEncoderLayer``; Vaswani et al. (2017), Xiong et al. (2020) for ``norm_first``.
    """

    def __call__(
        self,
        src: Sequence,
        src_mask: Mask | None = None,
        src_key_padding_mask: Mask | None = None,
        is_causal: bool = False,
    ) -> Float[Array, "..."]:
        """The shape of ``src``, ``(S, N, d_model)``, ``(N, S, d_model)`` with ``batch_first``, or ``(S, d_model)``.

        Args:
            src: the sequence.
            src_mask: ``(S, S)`` or ``(N nhead, S, S)``; boolean (true hides) or added to the scores.
            src_key_padding_mask: ``(N, S)`` or ``(S,)``.
            is_causal: says that ``src_mask`` is the causal one.
        """
        x: Any = src
        if self.norm_first:
            x = x + self._attend(self.norm1(x), src_mask, src_key_padding_mask, is_causal)
            return x + self._feed_forward(self.norm2(x), self.dropout2)
        x = self.norm1(x + self._attend(x, src_mask, src_key_padding_mask, is_causal))
        return self.norm2(x + self._feed_forward(x, self.dropout2))


class TransformerDecoderLayer(_TransformerLayer):
    """Self-attention, attention to the encoder's output, and a feed-forward network.

    Source: ``torch.nn.TransformerDecoderLayer``; Vaswani et al. (2017), Xiong et al. (2020) for ``norm_first``.
    """

    norm3: LayerNorm
    dropout3: Dropout

    def __call__(
        self,
        tgt: Sequence,
        memory: Sequence,
        tgt_mask: Mask | None = None,
        memory_mask: Mask | None = None,
        tgt_key_padding_mask: Mask | None = None,
        memory_key_padding_mask: Mask | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Float[Array, "..."]:
        """The shape of ``tgt``, ``(T, N, d_model)``, ``(N, T, d_model)`` with ``batch_first``, or ``(T, d_model)``.

        Args:
            tgt: the sequence.
            memory: what the encoder put out, ``(S, N, d_model)`` and so on.
            tgt_mask: ``(T, T)`` or ``(N nhead, T, T)``; boolean (true hides) or added to the scores.
            memory_mask: ``(T, S)`` or ``(N nhead, T, S)``.
            tgt_key_padding_mask: ``(N, T)`` or ``(T,)``.
            memory_key_padding_mask: ``(N, S)`` or ``(S,)``.
            tgt_is_causal: says that ``tgt_mask`` is the causal one.
            memory_is_causal: says that ``memory_mask`` is the causal one.
        """

        def look(x: Any) -> Array:
            found, _ = self.multihead_attn(
                x, memory, memory, memory_key_padding_mask, False, memory_mask, is_causal=memory_is_causal
            )
            return self.dropout2(found)

        x: Any = tgt
        if self.norm_first:
            x = x + self._attend(self.norm1(x), tgt_mask, tgt_key_padding_mask, tgt_is_causal)
            x = x + look(self.norm2(x))
            return x + self._feed_forward(self.norm3(x), self.dropout3)
        x = self.norm1(x + self._attend(x, tgt_mask, tgt_key_padding_mask, tgt_is_causal))
        x = self.norm2(x + look(x))
        return self.norm3(x + self._feed_forward(x, self.dropout3))


def _activation(name: str, activation: Activation) -> Callable[[Any], Any]:
    if callable(activation):
        return activation
    if activation not in ("relu", "gelu"):
        raise ArgumentError(f"{name}: activation must be 'relu', 'gelu' or a function, got {activation!r}")
    return functional.relu if activation == "relu" else functional.gelu
