"""Convolution layers."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Inexact

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.functional._argument import n_tuple
from jaxnn.nn.module import Module, uniform_parameter

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class _ConvNd(Module):
    spatial: ClassVar[int]
    convolve: ClassVar[Callable[..., Array]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Literal["same", "valid"] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        name, n = type(self).__name__, self.spatial
        if groups <= 0:
            raise ArgumentError(f"{name}: groups must be positive, got {groups}")
        for label, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ArgumentError(f"{name}: {label} must be divisible by groups={groups}, got {channels}")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ArgumentError(f"{name}: padding must be 'same', 'valid' or integers, got {padding!r}")
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ArgumentError(
                f"{name}: padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', got {padding_mode!r}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = n_tuple(kernel_size, n, "kernel_size")
        self.stride = n_tuple(stride, n, "stride")
        self.padding = padding if isinstance(padding, str) else n_tuple(padding, n, "padding")
        self.dilation = n_tuple(dilation, n, "dilation")
        self.groups = groups
        self.padding_mode = padding_mode
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ArgumentError(f"{name}: padding='same' needs stride 1, got {self.stride}")
        fan_in = in_channels // groups * math.prod(self.kernel_size)
        bound = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = uniform_parameter(rngs, shape, bound, device, dtype)
        self.bias = uniform_parameter(rngs, (out_channels,), bound, device, dtype) if bias else None

    def __call__(self, input: Inexact[ArrayLike, "..."]) -> Inexact[Array, "..."]:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = functional.pad(input, self._border(), mode=self.padding_mode)
            padding = 0
        bias = None if self.bias is None else self.bias[...]
        return type(self).convolve(input, self.weight[...], bias, self.stride, padding, self.dilation, self.groups)

    def _border(self) -> list[int]:
        """``padding`` in the order of ``functional.pad``: last axis first, a pair an axis."""
        if self.padding == "valid":
            return [0, 0] * self.spatial
        if self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        return [side for p in reversed(self.padding) for side in (int(p), int(p))]

    def extra_repr(self) -> str:
        n = self.spatial
        parts = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        if self.padding != (0,) * n:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * n:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class Conv1d(_ConvNd):
    """Cross-correlation over one spatial axis, ``(N, C, L)`` or ``(C, L)``.

    Attributes:
        weight: ``(out_channels, in_channels / groups, kernel)``.
        bias: ``(out_channels,)``, or None.

    Source: ``torch.nn.Conv1d``.
    """

    spatial = 1
    convolve = staticmethod(functional.conv1d)


class Conv2d(_ConvNd):
    """Cross-correlation over two spatial axes, ``(N, C, H, W)`` or ``(C, H, W)``.

    Attributes:
        weight: ``(out_channels, in_channels / groups, kernel, kernel)``.
        bias: ``(out_channels,)``, or None.

    Source: ``torch.nn.Conv2d``.
    """

    spatial = 2
    convolve = staticmethod(functional.conv2d)


class Conv3d(_ConvNd):
    """Cross-correlation over three spatial axes, ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Attributes:
        weight: ``(out_channels, in_channels / groups, kernel, kernel, kernel)``.
        bias: ``(out_channels,)``, or None.

    Source: ``torch.nn.Conv3d``.
    """

    spatial = 3
    convolve = staticmethod(functional.conv3d)
