"""Pooling layers; the formulas stand with their functions in ``jaxnn.functional``."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from flax import nnx
from jaxtyping import Array, ArrayLike, Int, Key, Num

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.functional._argument import n_tuple
from jaxnn.nn.module import Module, RandomModule, optional_buffer, static, value

Input = Num[ArrayLike, "..."]
Output = Num[Array, "..."]
Size = int | Sequence[int]


class _MaxPoolNd(Module):
    pool: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = static(kernel_size)
        self.stride = self.kernel_size if stride is None else static(stride)
        self.padding = static(padding)
        self.dilation = static(dilation)
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def __call__(self, input: Input) -> Output | tuple[Output, Int[Array, "..."]]:
        return type(self).pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class _AvgPoolNd(Module):
    pool: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self.kernel_size = static(kernel_size)
        self.stride = self.kernel_size if stride is None else static(stride)
        self.padding = static(padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def __call__(self, input: Input) -> Output:
        return type(self).pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxUnpoolNd(Module):
    spatial: ClassVar[int]
    unpool: ClassVar[Callable[..., Any]]

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        self.kernel_size = n_tuple(kernel_size, self.spatial, "kernel_size")
        self.stride = n_tuple(kernel_size if stride is None else stride, self.spatial, "stride")
        self.padding = n_tuple(padding, self.spatial, "padding")

    def __call__(self, input: Input, indices: Int[ArrayLike, "..."], output_size: Any = None) -> Output:
        return type(self).unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _LPPoolNd(Module):
    pool: ClassVar[Callable[..., Any]]

    def __init__(
        self, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
    ) -> None:
        self.norm_type = norm_type
        self.kernel_size = static(kernel_size)
        self.stride = None if stride is None else static(stride)
        self.ceil_mode = ceil_mode

    def __call__(self, input: Input) -> Output:
        return type(self).pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class _AdaptiveAvgPoolNd(Module):
    pool: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: Any) -> None:
        self.output_size = static(output_size)

    def __call__(self, input: Input) -> Output:
        return type(self).pool(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveMaxPoolNd(Module):
    pool: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        self.output_size = static(output_size)
        self.return_indices = return_indices

    def __call__(self, input: Input) -> Output | tuple[Output, Int[Array, "..."]]:
        return type(self).pool(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _FractionalMaxPoolNd(RandomModule):
    spatial: ClassVar[int]
    pool: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: Size,
        output_size: Size | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: Num[ArrayLike, "..."] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        super().__init__(rngs)
        name, n = type(self).__name__, self.spatial
        if (output_size is None) == (output_ratio is None):
            raise ArgumentError(
                f"{name}: exactly one of output_size and output_ratio must be given, "
                f"got output_size={output_size} and output_ratio={output_ratio}"
            )
        self.kernel_size = n_tuple(kernel_size, n, "kernel_size")
        self.output_size = None if output_size is None else n_tuple(output_size, n, "output_size")
        self.output_ratio = None if output_ratio is None else _ratios(name, output_ratio, n)
        self.return_indices = return_indices
        self._random_samples = optional_buffer(_random_samples)

    def __call__(self, input: Input, *, key: Key[Array, ""] | None = None) -> Output | tuple[Output, Int[Array, "..."]]:
        if key is None and self.rngs is not None:
            key = self.rngs()  # the windows are drawn in evaluation too
        return type(self).pool(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            _random_samples=value(self._random_samples),
            key=key,
        )


class MaxPool1d(_MaxPoolNd):
    """Over one spatial axis, ``(N, C, L)`` or ``(C, L)``.

    Source: ``torch.nn.MaxPool1d``; see :func:`jaxnn.functional.max_pool1d`.
    """

    pool = staticmethod(functional.max_pool1d)


class MaxPool2d(_MaxPoolNd):
    """Over two spatial axes, ``(N, C, H, W)`` or ``(C, H, W)``.

    Source: ``torch.nn.MaxPool2d``; see :func:`jaxnn.functional.max_pool2d`.
    """

    pool = staticmethod(functional.max_pool2d)


class MaxPool3d(_MaxPoolNd):
    """Over three spatial axes, ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: ``torch.nn.MaxPool3d``; see :func:`jaxnn.functional.max_pool3d`.
    """

    pool = staticmethod(functional.max_pool3d)


class AvgPool1d(_AvgPoolNd):
    """Over one spatial axis, ``(N, C, L)`` or ``(C, L)``. Source: ``torch.nn.AvgPool1d``."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(
            n_tuple(kernel_size, 1, "kernel_size"),
            None if stride is None else n_tuple(stride, 1, "stride"),
            n_tuple(padding, 1, "padding"),
            ceil_mode,
            count_include_pad,
        )

    def __call__(self, input: Input) -> Output:
        return functional.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )


class AvgPool2d(_AvgPoolNd):
    """Over two spatial axes, ``(N, C, H, W)`` or ``(C, H, W)``.

    Source: ``torch.nn.AvgPool2d``; see :func:`jaxnn.functional.avg_pool2d`.
    """

    pool = staticmethod(functional.avg_pool2d)


class AvgPool3d(_AvgPoolNd):
    """Over three spatial axes, ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: ``torch.nn.AvgPool3d``; see :func:`jaxnn.functional.avg_pool3d`.
    """

    pool = staticmethod(functional.avg_pool3d)


class MaxUnpool1d(_MaxUnpoolNd):
    """Over one spatial axis, ``(N, C, L)`` or ``(C, L)``.

    Source: ``torch.nn.MaxUnpool1d``; see :func:`jaxnn.functional.max_unpool1d`.
    """

    spatial = 1
    unpool = staticmethod(functional.max_unpool1d)


class MaxUnpool2d(_MaxUnpoolNd):
    """Over two spatial axes, ``(N, C, H, W)`` or ``(C, H, W)``.

    Source: ``torch.nn.MaxUnpool2d``; see :func:`jaxnn.functional.max_unpool2d`.
    """

    spatial = 2
    unpool = staticmethod(functional.max_unpool2d)


class MaxUnpool3d(_MaxUnpoolNd):
    """Over three spatial axes, ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: ``torch.nn.MaxUnpool3d``; see :func:`jaxnn.functional.max_unpool3d`.
    """

    spatial = 3
    unpool = staticmethod(functional.max_unpool3d)


class LPPool1d(_LPPoolNd):
    """Over one spatial axis, ``(N, C, L)`` or ``(C, L)``.

    Source: ``torch.nn.LPPool1d``; see :func:`jaxnn.functional.lp_pool1d`.
    """

    pool = staticmethod(functional.lp_pool1d)


class LPPool2d(_LPPoolNd):
    """Over two spatial axes, ``(N, C, H, W)`` or ``(C, H, W)``.

    Source: ``torch.nn.LPPool2d``; see :func:`jaxnn.functional.lp_pool2d`.
    """

    pool = staticmethod(functional.lp_pool2d)


class LPPool3d(_LPPoolNd):
    """Over three spatial axes, ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: ``torch.nn.LPPool3d``; see :func:`jaxnn.functional.lp_pool3d`.
    """

    pool = staticmethod(functional.lp_pool3d)


class AdaptiveAvgPool1d(_AdaptiveAvgPoolNd):
    """Over one spatial axis, ``(N, C, L)`` or ``(C, L)``.

    Source: ``torch.nn.AdaptiveAvgPool1d``; see :func:`jaxnn.functional.adaptive_avg_pool1d`.
    """

    pool = staticmethod(functional.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    """Over two spatial axes, ``(N, C, H, W)`` or ``(C, H, W)``.

    Source: ``torch.nn.AdaptiveAvgPool2d``; see :func:`jaxnn.functional.adaptive_avg_pool2d`.
    """

    pool = staticmethod(functional.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPoolNd):
    """Over three spatial axes, ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: ``torch.nn.AdaptiveAvgPool3d``; see :func:`jaxnn.functional.adaptive_avg_pool3d`.
    """

    pool = staticmethod(functional.adaptive_avg_pool3d)


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    """Over one spatial axis, ``(N, C, L)`` or ``(C, L)``.

    Source: ``torch.nn.AdaptiveMaxPool1d``; see :func:`jaxnn.functional.adaptive_max_pool1d`.
    """

    pool = staticmethod(functional.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    """Over two spatial axes, ``(N, C, H, W)`` or ``(C, H, W)``.

    Source: ``torch.nn.AdaptiveMaxPool2d``; see :func:`jaxnn.functional.adaptive_max_pool2d`.
    """

    pool = staticmethod(functional.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    """Over three spatial axes, ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: ``torch.nn.AdaptiveMaxPool3d``; see :func:`jaxnn.functional.adaptive_max_pool3d`.
    """

    pool = staticmethod(functional.adaptive_max_pool3d)


class FractionalMaxPool2d(_FractionalMaxPoolNd):
    """Over two spatial axes, ``(N, C, H, W)`` or ``(C, H, W)``.

    Source: ``torch.nn.FractionalMaxPool2d``; see :func:`jaxnn.functional.fractional_max_pool2d`.
    """

    spatial = 2
    pool = staticmethod(functional.fractional_max_pool2d)


class FractionalMaxPool3d(_FractionalMaxPoolNd):
    """Over three spatial axes, ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: ``torch.nn.FractionalMaxPool3d``; see :func:`jaxnn.functional.fractional_max_pool3d`.
    """

    spatial = 3
    pool = staticmethod(functional.fractional_max_pool3d)


def _ratios(name: str, output_ratio: float | Sequence[float], n: int) -> tuple[float, ...]:
    ratios = tuple(output_ratio) if isinstance(output_ratio, Sequence) else (output_ratio,) * n
    if len(ratios) != n or not all(0 < ratio < 1 for ratio in ratios):
        raise ArgumentError(f"{name}: output_ratio must lie between 0 and 1, one or {n} of them, got {output_ratio}")
    return ratios
