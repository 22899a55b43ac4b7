"""Normalization over features and groups."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Inexact

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.nn.module import Module, value

Input = Inexact[ArrayLike, "*shape"]
Output = Inexact[Array, "*shape"]


class LayerNorm(Module):
    """Normalization over the last axes.

    Attributes:
        weight: ``normalized_shape``, starting at one; None without ``elementwise_affine``.
        bias: ``normalized_shape``, starting at zero; None also without ``bias``.

    Source: ``torch.nn.LayerNorm``; see :func:`jaxnn.functional.layer_norm`.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight = constant(self.normalized_shape, 1, device, dtype) if elementwise_affine else None
        self.bias = constant(self.normalized_shape, 0, device, dtype) if elementwise_affine and bias else None

    def __call__(self, input: Input) -> Output:
        return functional.layer_norm(input, self.normalized_shape, value(self.weight), value(self.bias), self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """Division by the root mean square of the last axes.

    Attributes:
        weight: ``normalized_shape``, starting at one; None without ``elementwise_affine``.

    Source: ``torch.nn.RMSNorm``; see :func:`jaxnn.functional.rms_norm`.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight = constant(self.normalized_shape, 1, device, dtype) if elementwise_affine else None

    def __call__(self, x: Input) -> Output:
        return functional.rms_norm(x, self.normalized_shape, value(self.weight), self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Normalization over groups of channels.

    Attributes:
        weight: ``(num_channels,)``, starting at one; None without ``affine``.
        bias: ``(num_channels,)``, starting at zero; None also without ``bias``.

    Source: ``torch.nn.GroupNorm``; see :func:`jaxnn.functional.group_norm`.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        if num_groups <= 0 or num_channels % num_groups:
            raise ArgumentError(f"GroupNorm: num_channels={num_channels} must be divisible by num_groups={num_groups}")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.weight = constant((num_channels,), 1, device, dtype) if affine else None
        self.bias = constant((num_channels,), 0, device, dtype) if affine and bias else None

    def __call__(self, input: Input) -> Output:
        return functional.group_norm(input, self.num_groups, value(self.weight), value(self.bias), self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """Source: ``torch.nn.LocalResponseNorm``; see :func:`jaxnn.functional.local_response_norm`."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def __call__(self, input: Input) -> Output:
        return functional.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(LocalResponseNorm):
    """Local response normalization over channels of ``(N, C, H, W)``. Source: ``torch.nn.CrossMapLRN2d``."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__(size, alpha, beta, k)


def constant(shape: tuple[int, ...], fill: float, device: jax.Device | None, dtype: DTypeLike | None) -> nnx.Param:
    """A parameter that starts at ``fill``."""
    return nnx.Param(jnp.full(shape, fill, dtype or jnp.float32, device=device))


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
