"""Layers that move pixels: folding, shuffling, resizing."""

from collections.abc import Sequence

from jaxtyping import Array, ArrayLike, Num

from jaxnn import functional
from jaxnn.nn.module import Module, static

Input = Num[ArrayLike, "..."]
Output = Num[Array, "..."]
Size = int | Sequence[int]


class Unfold(Module):
    """Source: ``torch.nn.Unfold``; see :func:`jaxnn.functional.unfold`."""

    def __init__(self, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> None:
        self.kernel_size = static(kernel_size)
        self.dilation = static(dilation)
        self.padding = static(padding)
        self.stride = static(stride)

    def __call__(self, input: Input) -> Output:
        return functional.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Unfold):
    """Source: ``torch.nn.Fold``; see :func:`jaxnn.functional.fold`."""

    def __init__(
        self, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = static(output_size)

    def __call__(self, input: Input) -> Output:
        return functional.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, {super().extra_repr()}"


class PixelShuffle(Module):
    """Source: ``torch.nn.PixelShuffle``; see :func:`jaxnn.functional.pixel_shuffle`."""

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = upscale_factor

    def __call__(self, input: Input) -> Output:
        return functional.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Source: ``torch.nn.PixelUnshuffle``; see :func:`jaxnn.functional.pixel_unshuffle`."""

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = downscale_factor

    def __call__(self, input: Input) -> Output:
        return functional.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Source: ``torch.nn.ChannelShuffle``; see :func:`jaxnn.functional.channel_shuffle`."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def __call__(self, input: Input) -> Output:
        return functional.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class Upsample(Module):
    """Source: ``torch.nn.Upsample``; see :func:`jaxnn.functional.interpolate`."""

    def __init__(
        self,
        size: Size | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        self.size = static(size)
        self.scale_factor = (
            tuple(float(factor) for factor in scale_factor)
            if isinstance(scale_factor, Sequence)
            else float(scale_factor)
            if scale_factor
            else None
        )
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def __call__(self, input: Input) -> Output:
        return functional.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        what = f"size={self.size!r}" if self.scale_factor is None else f"scale_factor={self.scale_factor!r}"
        return f"{what}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Source: ``torch.nn.UpsamplingNearest2d``; see :func:`jaxnn.functional.interpolate`."""

    def __init__(self, size: Size | None = None, scale_factor: float | Sequence[float] | None = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """With aligned corners. Source: ``torch.nn.UpsamplingBilinear2d``; see :func:`jaxnn.functional.interpolate`."""

    def __init__(self, size: Size | None = None, scale_factor: float | Sequence[float] | None = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)
