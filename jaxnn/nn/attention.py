"""Attention of several heads."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from jaxnn import functional, init
from jaxnn.functional import ArgumentError
from jaxnn.functional.multi_head_attention import ExpectationError
from jaxnn.nn.linear import Linear
from jaxnn.nn.module import RandomModule
from jaxnn.nn.module import value as _value

Mask = Bool[ArrayLike, "..."] | Float[ArrayLike, "..."]


class NonDynamicallyQuantizableLinear(Linear):
    """:class:`Linear`, under the name by which torch prints attention's last map."""


class MultiheadAttention(RandomModule):
    """Attention of several heads with its projections; the formula stands at
    :func:`jaxnn.functional.multi_head_attention_forward`.

    The projections of query, key and value start Xavier-uniform, ``out_proj`` as :class:`Linear` does, all biases at
    zero, ``bias_k`` and ``bias_v`` Xavier-normal.

    Attributes:
        in_proj_weight: ``(3 embed_dim, embed_dim)``, those of query, key and value below one another; None where
            ``kdim`` or ``vdim`` differs from ``embed_dim``. Then there are ``q_proj_weight``, ``k_proj_weight`` and
            ``v_proj_weight``, ``(embed_dim, embed_dim)``, ``(embed_dim, kdim)`` and ``(embed_dim, vdim)``.
        in_proj_bias: ``(3 embed_dim,)``, or None.
        bias_k: ``(1, 1, embed_dim)``, a key joined to every sequence, and ``bias_v``, its value; or None.
        out_proj: the linear map of the heads' results.

    Source: ``torch.nn.MultiheadAttention``; Vaswani et al. (2017).
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ArgumentError(
                f"MultiheadAttention: sizes must be positive, got embed_dim={embed_dim}, num_heads={num_heads}"
            )
        if embed_dim % num_heads:
            raise ExpectationError(
                f"MultiheadAttention: embed_dim must be a multiple of num_heads={num_heads}, got {embed_dim}"
            )
        super().__init__(rngs if dropout else None)
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        dtype = jnp.dtype(dtype or jnp.float32)

        def parameter(array: Array) -> nnx.Param:
            return nnx.Param(jax.device_put(array, device))

        def drawn(*shape: int) -> nnx.Param:
            return parameter(init.xavier_uniform(rngs.params(), shape, dtype=dtype))

        self.packed = self.kdim == self.vdim == embed_dim
        self.in_proj_weight = drawn(3 * embed_dim, embed_dim) if self.packed else None
        self.q_proj_weight = None if self.packed else drawn(embed_dim, embed_dim)
        self.k_proj_weight = None if self.packed else drawn(embed_dim, self.kdim)
        self.v_proj_weight = None if self.packed else drawn(embed_dim, self.vdim)
        self.in_proj_bias = parameter(jnp.zeros(3 * embed_dim, dtype)) if bias else None
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, device, dtype, rngs=rngs)
        if self.out_proj.bias is not None:
            self.out_proj.bias.set_value(jnp.zeros_like(self.out_proj.bias[...]))

        def joined() -> nnx.Param | None:
            drawn = init.xavier_normal(rngs.params(), (1, 1, embed_dim), dtype=dtype) if add_bias_kv else None
            return None if drawn is None else parameter(drawn)

        self.bias_k = joined()
        self.bias_v = joined()

    def __call__(
        self,
        query: Float[ArrayLike, "..."],
        key: Float[ArrayLike, "..."],
        value: Float[ArrayLike, "..."],
        key_padding_mask: Mask | None = None,
        need_weights: bool = True,
        attn_mask: Mask | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "..."], Float[Array, "..."] | None]:
        """What the queries find, and with which weights.

        Args:
            query: ``(L, N, E)``, ``(N, L, E)`` with ``batch_first``, or ``(L, E)``.
            key: ``(S, N, kdim)``, ``(N, S, kdim)`` or ``(S, kdim)``.
            value: ``(S, N, vdim)``, ``(N, S, vdim)`` or ``(S, vdim)``.
            key_padding_mask: ``(N, S)`` or ``(S,)``; boolean (true hides a key) or added to the scores.
            need_weights: return the weights too; without them it is cheaper.
            attn_mask: ``(L, S)`` or ``(N num_heads, L, S)``; boolean (true hides) or added to the scores.
            average_attn_weights: return the mean of the weights over the heads.
            is_causal: says that ``attn_mask`` is the causal one, which then need not be read.
            dropout_key: a ``jax.random.key`` for training with dropout, in place of the layer's own.

        Returns:
            The shape of ``query``; and the weights, ``(N, L, S)`` averaged or ``(N, num_heads, L, S)``, without N where
            there is no batch; None without ``need_weights``.

        Raises:
            ArgumentError: shapes, dtypes or options that do not fit.
        """
        q, k, v = self._sequence_first(query, key, value)
        output, weights = functional.multi_head_attention_forward(
            q,
            k,
            v,
            self.embed_dim,
            self.num_heads,
            _value(self.in_proj_weight),
            _value(self.in_proj_bias),
            _value(self.bias_k),
            _value(self.bias_v),
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight[...],
            _value(self.out_proj.bias),
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=not self.packed,
            q_proj_weight=_value(self.q_proj_weight),
            k_proj_weight=_value(self.k_proj_weight),
            v_proj_weight=_value(self.v_proj_weight),
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            dropout_key=self.drawn(dropout_key) if self.dropout else None,
        )
        return output.swapaxes(0, 1) if self.batch_first and output.ndim == 3 else output, weights

    def _sequence_first(self, query: Any, key: Any, value: Any) -> tuple[Array, Array, Array]:
        """The arguments with the sequence first; what was one array stays one, for then one product projects all."""
        turned: dict[int, Array] = {}
        for x in (query, key, value):
            if id(x) not in turned:
                array = jnp.asarray(x)
                turned[id(x)] = array.swapaxes(0, 1) if self.batch_first and array.ndim == 3 else array
        return turned[id(query)], turned[id(key)], turned[id(value)]
