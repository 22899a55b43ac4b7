"""Layers that map the last axis."""

import math

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Inexact

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.nn.module import Module, uniform_parameter


class Linear(Module):
    r"""Affine map of the last axis, :math:`y = x A^T + b`.

    Both parameters start uniform on :math:`\pm 1/\sqrt{\text{in\_features}}`.

    Attributes:
        weight: ``(out_features, in_features)``.
        bias: ``(out_features,)``, or None.

    Source: ``torch.nn.Linear``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if in_features < 0 or out_features < 0:
            raise ArgumentError(
                f"Linear: sizes cannot be negative, got in_features={in_features}, out_features={out_features}"
            )
        self.in_features = in_features
        self.out_features = out_features
        bound = 1.0 / math.sqrt(in_features) if in_features else 0.0
        self.weight = uniform_parameter(rngs, (out_features, in_features), bound, device, dtype)
        self.bias = uniform_parameter(rngs, (out_features,), bound, device, dtype) if bias else None

    def __call__(self, input: Inexact[ArrayLike, "*batch in_features"]) -> Inexact[Array, "*batch out_features"]:
        return functional.linear(input, self.weight[...], None if self.bias is None else self.bias[...])

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
