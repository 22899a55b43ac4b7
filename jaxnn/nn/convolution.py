"""Convolution layers."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Inexact

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.functional._argument import n_tuple
from jaxnn.nn.module import Module, uniform_parameter, value

Size = int | Sequence[int]
Padding = Size | Literal["same", "valid"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class _ConvBase(Module):
    """Hyperparameters and parameters of a convolution in either direction."""

    spatial: ClassVar[int]
    convolve: ClassVar[Callable[..., Array]]
    padding: str | tuple[int, ...]

    def _build(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Padding,
        dilation: Size,
        groups: int,
        bias: bool,
        padding_mode: str,
        weight_channels: tuple[int, int],
        device: jax.Device | None,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> None:
        name, n = type(self).__name__, self.spatial
        if groups <= 0:
            raise ArgumentError(f"{name}: groups must be positive, got {groups}")
        for label, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ArgumentError(f"{name}: {label} must be divisible by groups={groups}, got {channels}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = n_tuple(kernel_size, n, "kernel_size")
        self.stride = n_tuple(stride, n, "stride")
        self.padding = padding if isinstance(padding, str) else n_tuple(padding, n, "padding")
        self.dilation = n_tuple(dilation, n, "dilation")
        self.groups = groups
        self.padding_mode = padding_mode
        rows, columns = weight_channels
        fan_in = columns // groups * math.prod(self.kernel_size)
        bound = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
        self.weight = uniform_parameter(rngs, (rows, columns // groups, *self.kernel_size), bound, device, dtype)
        self.bias = uniform_parameter(rngs, (out_channels,), bound, device, dtype) if bias else None

    def extra_repr(self) -> str:
        n = self.spatial
        parts = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        if self.padding != (0,) * n:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * n:
            parts.append(f"dilation={self.dilation}")
        output_padding = getattr(self, "output_padding", (0,) * n)
        if output_padding != (0,) * n:
            parts.append(f"output_padding={output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _ConvNd(_ConvBase):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        name = type(self).__name__
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ArgumentError(f"{name}: padding must be 'same', 'valid' or integers, got {padding!r}")
        if padding == "same" and any(s != 1 for s in n_tuple(stride, self.spatial, "stride")):
            raise ArgumentError(f"{name}: padding='same' needs stride 1, got {stride}")
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ArgumentError(
                f"{name}: padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', got {padding_mode!r}"
            )
        self._build(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            (out_channels, in_channels),
            device,
            dtype,
            rngs,
        )

    def __call__(self, input: Inexact[ArrayLike, "..."]) -> Inexact[Array, "..."]:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = functional.pad(input, self._border(), mode=self.padding_mode)
            padding = (0,) * self.spatial
        return type(self).convolve(
            input, self.weight[...], value(self.bias), self.stride, padding, self.dilation, self.groups
        )

    def _border(self) -> list[int]:
        """``padding`` in the order of ``functional.pad``: last axis first, a pair an axis."""
        if self.padding == "valid":
            return [0, 0] * self.spatial
        if isinstance(self.padding, str):
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        return [side for p in reversed(self.padding) for side in (p, p)]


class _ConvTransposeNd(_ConvBase):
    padding: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: Literal["zeros"] = "zeros",
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if padding_mode != "zeros":
            raise ArgumentError(f"{type(self).__name__}: padding_mode must be 'zeros', got {padding_mode!r}")
        self.output_padding = n_tuple(output_padding, self.spatial, "output_padding")
        self._build(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            (in_channels, out_channels),
            device,
            dtype,
            rngs,
        )

    def __call__(
        self, input: Inexact[ArrayLike, "..."], output_size: Sequence[int] | None = None
    ) -> Inexact[Array, "..."]:
        """``output_size`` picks one of the sizes that the stride makes alike; it stands for ``output_padding``."""
        output_padding = self.output_padding
        if output_size is not None:
            output_padding = self._missing(jnp.shape(input), tuple(output_size))
        return type(self).convolve(
            input,
            self.weight[...],
            value(self.bias),
            self.stride,
            self.padding,
            output_padding,
            self.groups,
            self.dilation,
        )

    def _missing(self, shape: tuple[int, ...], output_size: tuple[int, ...]) -> tuple[int, ...]:
        """How far ``output_size`` goes beyond the least size that the input gives."""
        name, n = type(self).__name__, self.spatial
        if len(output_size) == len(shape):
            output_size = output_size[-n:]
        if len(output_size) != n:
            raise ArgumentError(f"{name}: output_size must hold {n} or {len(shape)} integers, got {output_size}")
        least = tuple(
            (size - 1) * s - 2 * p + d * (k - 1) + 1
            for size, s, p, d, k in zip(
                shape[-n:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        )
        missing = tuple(size - low for size, low in zip(output_size, least, strict=True))
        if not all(0 <= extra < s for extra, s in zip(missing, self.stride, strict=True)):
            most = tuple(low + s - 1 for low, s in zip(least, self.stride, strict=True))
            raise ArgumentError(f"{name}: output_size must lie between {least} and {most}, got {output_size}")
        return missing


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


class ConvTranspose1d(_ConvTransposeNd):
    """The transpose of a convolution over one spatial axis, ``(N, C, L)`` or ``(C, L)``.

    Attributes:
        weight: ``(in_channels, out_channels / groups, kernel)``.
        bias: ``(out_channels,)``, or None.

    Source: ``torch.nn.ConvTranspose1d``; see :func:`jaxnn.functional.conv_transpose1d`.
    """

    spatial = 1
    convolve = staticmethod(functional.conv_transpose1d)


class ConvTranspose2d(_ConvTransposeNd):
    """The transpose of a convolution over two spatial axes, ``(N, C, H, W)`` or ``(C, H, W)``.

    Attributes:
        weight: ``(in_channels, out_channels / groups, kernel, kernel)``.
        bias: ``(out_channels,)``, or None.

    Source: ``torch.nn.ConvTranspose2d``; see :func:`jaxnn.functional.conv_transpose2d`.
    """

    spatial = 2
    convolve = staticmethod(functional.conv_transpose2d)


class ConvTranspose3d(_ConvTransposeNd):
    """The transpose of a convolution over three spatial axes, ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Attributes:
        weight: ``(in_channels, out_channels / groups, kernel, kernel, kernel)``.
        bias: ``(out_channels,)``, or None.

    Source: ``torch.nn.ConvTranspose3d``; see :func:`jaxnn.functional.conv_transpose3d`.
    """

    spatial = 3
    convolve = staticmethod(functional.conv_transpose3d)
