"""Transformers: stacks of encoder and decoder layers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxnn import functional, init
from jaxnn.functional import ArgumentError
from jaxnn.functional._argument import concrete
from jaxnn.nn.container import ModuleList
from jaxnn.nn.module import Module
from jaxnn.nn.normalization import LayerNorm
from jaxnn.nn.state import named_parameters
from jaxnn.nn.transformer_layer import (
    Activation,
    Mask,
    Sequence,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)


class TransformerEncoder(Module):
    """Copies of a layer, one after the other, and a norm behind them.

    The copies start with the same weights, as in torch, and with dropout streams of their own. They are not stacked for
    a ``lax.scan``: the copy of all weights makes a call up to three times slower, and compiles no faster.

    Attributes:
        layers: the copies.
        norm: applied last, or None.

    Source: ``torch.nn.TransformerEncoder``.
    """

    def __init__(
        self,
        encoder_layer: nnx.Module,
        num_layers: int,
        norm: nnx.Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        # Torch's nested tensors skip padding; they have no effect here.
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check

    def __call__(
        self,
        src: Sequence,
        mask: Mask | None = None,
        src_key_padding_mask: Mask | None = None,
        is_causal: bool | None = None,
    ) -> Float[Array, "..."]:
        """``src`` through all layers; the arguments are :class:`TransformerEncoderLayer`'s.

        ``is_causal=None`` looks whether ``mask`` is the causal one, where its values are known.
        """
        causal = _is_causal(mask, is_causal)
        x = jnp.asarray(src)
        for layer in self.layers:
            x = layer(x, mask, src_key_padding_mask, causal)
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(Module):
    """Copies of a layer, one after the other, and a norm behind them; see :class:`TransformerEncoder`.

    Attributes:
        layers: the copies.
        norm: applied last, or None.

    Source: ``torch.nn.TransformerDecoder``.
    """

    def __init__(self, decoder_layer: nnx.Module, num_layers: int, norm: nnx.Module | None = None) -> None:
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def __call__(
        self,
        tgt: Sequence,
        memory: Sequence,
        tgt_mask: Mask | None = None,
        memory_mask: Mask | None = None,
        tgt_key_padding_mask: Mask | None = None,
        memory_key_padding_mask: Mask | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Float[Array, "..."]:
        """``tgt`` through all layers; the arguments are :class:`TransformerDecoderLayer`'s.

        ``tgt_is_causal=None`` looks whether ``tgt_mask`` is the causal one, where its values are known.
        """
        causal = _is_causal(tgt_mask, tgt_is_causal)
        masks = tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, causal, memory_is_causal
        x = jnp.asarray(tgt)
        for layer in self.layers:
            x = layer(x, memory, *masks)
        return x if self.norm is None else self.norm(x)


class Transformer(Module):
    """An encoder, and a decoder that attends to it. Matrices start Xavier-uniform.

    Source: ``torch.nn.Transformer``; Vaswani et al. (2017).
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = functional.relu,
        custom_encoder: Any | None = None,
        custom_decoder: Any | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        options: dict[str, Any] = {
            "dim_feedforward": dim_feedforward,
            "dropout": dropout,
            "activation": activation,
            "layer_norm_eps": layer_norm_eps,
            "batch_first": batch_first,
            "norm_first": norm_first,
            "bias": bias,
            "device": device,
            "dtype": dtype,
        }

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)

        if custom_encoder is None:
            encoder_layer = TransformerEncoderLayer(d_model, nhead, **options, rngs=rngs)
            custom_encoder = TransformerEncoder(encoder_layer, num_encoder_layers, norm())
        self.encoder = custom_encoder
        if custom_decoder is None:
            decoder_layer = TransformerDecoderLayer(d_model, nhead, **options, rngs=rngs)
            custom_decoder = TransformerDecoder(decoder_layer, num_decoder_layers, norm())
        self.decoder = custom_decoder
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        for _, parameter in named_parameters(self):
            array = parameter.get_value()
            if array.ndim > 1:
                drawn = init.xavier_uniform(rngs.params(), array.shape, dtype=array.dtype)
                parameter.set_value(jax.device_put(drawn, device))

    def __call__(
        self,
        src: Sequence,
        tgt: Sequence,
        src_mask: Mask | None = None,
        tgt_mask: Mask | None = None,
        memory_mask: Mask | None = None,
        src_key_padding_mask: Mask | None = None,
        tgt_key_padding_mask: Mask | None = None,
        memory_key_padding_mask: Mask | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Float[Array, "..."]:
        """The decoder's output on ``tgt`` beside the encoder's on ``src``.

        The arguments are those of :class:`TransformerEncoder` and :class:`TransformerDecoder`.

        Raises:
            ArgumentError: the batches differ, or the features are not ``d_model``.
        """
        sizes = jnp.shape(src), jnp.shape(tgt)
        axis = 0 if self.batch_first else 1
        if len(sizes[0]) == 3 and sizes[0][axis] != sizes[1][axis]:
            raise ArgumentError(f"Transformer: src and tgt must have one batch size, got {sizes[0]} and {sizes[1]}")
        if any(size[-1] != self.d_model for size in sizes):
            raise ArgumentError(
                f"Transformer: src and tgt must have d_model={self.d_model} features, got {sizes[0]} and {sizes[1]}"
            )
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        padding = tgt_key_padding_mask, memory_key_padding_mask
        return self.decoder(tgt, memory, tgt_mask, memory_mask, *padding, tgt_is_causal, memory_is_causal)

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: jax.Device | None = None, dtype: DTypeLike | None = None
    ) -> Float[Array, "sz sz"]:
        """A causal mask to add to the scores: minus infinity above the diagonal, zero elsewhere."""
        mask = jnp.triu(jnp.full((sz, sz), -jnp.inf, dtype or jnp.float32), 1)
        return jax.device_put(mask, device)


def _copies(layer: nnx.Module, count: int) -> ModuleList:
    """``layer`` copied ``count`` times; in each copy the streams of keys go on from keys of their own."""
    copies = ModuleList([nnx.clone(layer) for _ in range(count)])
    for index, copy in enumerate(copies):
        for _, node in nnx.iter_graph(copy):
            if isinstance(node, nnx.RngStream):
                node.key.set_value(jax.random.fold_in(node.key.get_value(), index))
    return copies


def _is_causal(mask: Mask | None, hint: bool | None) -> bool:
    if hint is not None or mask is None:
        return bool(hint)
    known = concrete(mask)
    if known is None or known.shape[-2:] != (known.shape[-1],) * 2:
        return False
    above = np.triu(np.ones(known.shape[-2:], bool), 1)
    return bool((known == (above if known.dtype == bool else np.where(above, -np.inf, 0.0))).all())
