"""Layers that map the last axis."""

import math
from typing import Any

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Inexact

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.nn.module import Module, uniform_parameter, value


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
        return functional.linear(input, self.weight[...], value(self.bias))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """Its input. Arguments are accepted and ignored. Source: ``torch.nn.Identity``."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, input: Any) -> Any:
        return input


class Bilinear(Module):
    r"""Bilinear map of two inputs, :math:`y_k = x_1^T A_k x_2 + b_k`.

    Both parameters start uniform on :math:`\pm 1/\sqrt{\text{in1\_features}}`.

    Attributes:
        weight: ``(out_features, in1_features, in2_features)``.
        bias: ``(out_features,)``, or None.

    Source: ``torch.nn.Bilinear``; see :func:`jaxnn.functional.bilinear`.
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if in1_features <= 0:
            raise ArgumentError(f"Bilinear: in1_features must be positive, got {in1_features}")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        bound = 1.0 / math.sqrt(in1_features)
        self.weight = uniform_parameter(rngs, (out_features, in1_features, in2_features), bound, device, dtype)
        self.bias = uniform_parameter(rngs, (out_features,), bound, device, dtype) if bias else None

    def __call__(
        self, input1: Inexact[ArrayLike, "*batch in1_features"], input2: Inexact[ArrayLike, "*batch in2_features"]
    ) -> Inexact[Array, "*batch out_features"]:
        return functional.bilinear(input1, input2, self.weight[...], value(self.bias))

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
