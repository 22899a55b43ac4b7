"""Tables of vectors looked up by index."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Inexact, Int, Num

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.nn.module import Module


class _Table(Module):
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        weight: Num[ArrayLike, "..."] | None,
        device: jax.Device | None,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs | None,
    ) -> None:
        name = type(self).__name__
        if num_embeddings < 0 or embedding_dim < 0:
            raise ArgumentError(
                f"{name}: sizes cannot be negative, got num_embeddings={num_embeddings}, embedding_dim={embedding_dim}"
            )
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                # torch asserts here.
                raise AssertionError(
                    f"{name}: padding_idx must lie within num_embeddings={num_embeddings}, got {padding_idx}"
                )
            padding_idx %= num_embeddings
        if weight is None:
            if rngs is None:
                raise ArgumentError(f"{name}: needs rngs to draw its weight, or _weight; got neither")
            drawn = jax.random.normal(rngs.params(), (num_embeddings, embedding_dim), dtype or jnp.float32)
            table = drawn if padding_idx is None else drawn.at[padding_idx].set(0)
        else:
            table = jnp.array(weight)
            if table.shape != (num_embeddings, embedding_dim):
                raise AssertionError(
                    f"{name}: _weight must have shape {(num_embeddings, embedding_dim)}, got {table.shape}"
                )
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        self.weight = nnx.Param(jax.device_put(table, device))

    def _options(self) -> list[str]:
        parts = []
        if self.max_norm is not None:
            parts.append(f"max_norm={self.max_norm}")
        if self.norm_type != 2:
            parts.append(f"norm_type={self.norm_type}")
        if self.scale_grad_by_freq:
            parts.append(f"scale_grad_by_freq={self.scale_grad_by_freq}")
        return parts

    def _looked_up(self, plain: Callable[..., Any], renormed: Callable[..., Any], *args: Any) -> Any:
        """With ``max_norm`` torch renorms the looked-up rows of the table itself: so does the layer."""
        if self.max_norm is None:
            return plain(*args)
        output, table = renormed(*args)
        self.weight.set_value(jax.lax.stop_gradient(table))
        return output


class Embedding(_Table):
    """A row of the table for each index.

    Attributes:
        weight: ``(num_embeddings, embedding_dim)``, starting standard normal, zero at ``padding_idx``.

    Source: ``torch.nn.Embedding``; see :func:`jaxnn.functional.embedding`.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Num[ArrayLike, "..."] | None = None,
        _freeze: bool = False,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            device,
            dtype,
            rngs,
        )
        self._freeze = _freeze

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Num[ArrayLike, "num_embeddings embedding_dim"],
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> "Embedding":
        """A layer whose table is ``embeddings``; with ``freeze`` its gradient is zero."""
        rows, columns = jnp.shape(embeddings)
        return cls(
            rows, columns, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings, _freeze=freeze
        )

    def __call__(self, input: Int[ArrayLike, "*shape"]) -> Inexact[Array, "*shape embedding_dim"]:
        table = self.weight[...]
        if self._freeze:
            table = jax.lax.stop_gradient(table)
        return self._looked_up(
            functional.embedding,
            functional.embedding_with_renorm,
            input,
            table,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )

    def extra_repr(self) -> str:
        parts = [f"{self.num_embeddings}, {self.embedding_dim}"]
        if self.padding_idx is not None:
            parts.append(f"padding_idx={self.padding_idx}")
        parts += self._options()
        if self.sparse:
            parts.append("sparse=True")
        return ", ".join(parts)


class EmbeddingBag(_Table):
    """Sums, means or maxima of bags of rows of the table.

    Attributes:
        weight: ``(num_embeddings, embedding_dim)``, starting standard normal, zero at ``padding_idx``.

    Source: ``torch.nn.EmbeddingBag``; see :func:`jaxnn.functional.embedding_bag`.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Num[ArrayLike, "..."] | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            device,
            dtype,
            rngs,
        )
        self.mode = mode
        self.include_last_offset = include_last_offset

    def __call__(
        self,
        input: Int[ArrayLike, "..."],
        offsets: Int[ArrayLike, "..."] | None = None,
        per_sample_weights: Float[ArrayLike, "..."] | None = None,
    ) -> Inexact[Array, "bags embedding_dim"]:
        return self._looked_up(
            functional.embedding_bag,
            functional.embedding_bag_with_renorm,
            input,
            self.weight[...],
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    def extra_repr(self) -> str:
        parts = [f"{self.num_embeddings}, {self.embedding_dim}", *self._options(), f"mode={self.mode!r}"]
        if self.padding_idx is not None:
            parts.append(f"padding_idx={self.padding_idx}")
        return ", ".join(parts)
