"""Layers that take their number of channels from the first input."""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Inexact

from jaxnn.functional import ArgumentError
from jaxnn.nn.batch_normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from jaxnn.nn.convolution import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Padding,
    PaddingMode,
    Size,
)
from jaxnn.nn.linear import Linear
from jaxnn.nn.module import Module, static


class _Lazy(Module):
    """Stands for a layer until the first input, which makes that layer of it.

    Its parameters come into being in that call, which therefore cannot be made under a transform such as ``jit``, and
    comes before an optimizer's state and before ``load_state_dict``.

    Attributes:
        cls_to_become: the class of the layer.
        axis: of the input, where its channels are.
    """

    cls_to_become: ClassVar[type[Module]]
    axis: ClassVar[int]

    def _wait(self, **arguments: Any) -> None:
        if "rngs" in arguments:
            self.rngs = arguments.pop("rngs").fork()
        self._arguments = tuple((name, x if isinstance(x, str) else static(x)) for name, x in arguments.items())
        self._construct(0)

    def _construct(self, channels: int) -> None:
        rngs = {"rngs": self.rngs} if hasattr(self, "rngs") else {}
        self.cls_to_become.__init__(self, channels, **dict(self._arguments), **rngs)  # type: ignore[call-arg]

    def __call__(self, input: Inexact[ArrayLike, "..."], *args: Any, **kwargs: Any) -> Inexact[Array, "..."]:
        self.initialize_parameters(input)
        return self(input, *args, **kwargs)

    def initialize_parameters(self, input: Inexact[ArrayLike, "..."]) -> None:
        """Become the layer that takes ``input``.

        Raises:
            ArgumentError: ``input`` has the wrong number of axes, or is traced.
        """
        name, shape = type(self).__name__, jnp.shape(input)
        if isinstance(input, jax.core.Tracer):
            raise ArgumentError(f"{name}: the first input sets the number of channels; give one outside of transforms")
        ranks = getattr(self, "ranks", (len(shape),))  # how many axes an input of convolutions and norms may have
        if len(shape) not in ranks:
            raise ArgumentError(f"{name}: input must have {' or '.join(map(str, ranks))} axes, got shape {shape}")
        evaluating = getattr(self, "use_running_average", False)
        self._construct(shape[self.axis])
        if evaluating:
            self.use_running_average = True
        for done in ("rngs", "_arguments"):
            if hasattr(self, done):
                delattr(self, done)
        object.__setattr__(self, "__class__", self.cls_to_become)


class LazyLinear(_Lazy, Linear):
    """A :class:`Linear` that takes ``in_features`` from an input. Source: ``torch.nn.LazyLinear``."""

    cls_to_become = Linear
    axis = -1

    def __init__(
        self,
        out_features: int,
        bias: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self._wait(out_features=out_features, bias=bias, device=device, dtype=dtype, rngs=rngs)


class _LazyConvNd(_Lazy):
    def __init__(
        self,
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
        self._wait(
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
            rngs=rngs,
        )


class _LazyConvTransposeNd(_Lazy):
    def __init__(
        self,
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
        self._wait(
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            bias=bias,
            dilation=dilation,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
            rngs=rngs,
        )


class _LazyNorm(_Lazy):
    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        self._wait(
            eps=eps,
            momentum=momentum,
            affine=affine,
            track_running_stats=track_running_stats,
            device=device,
            dtype=dtype,
            bias=bias,
        )


class LazyConv1d(_LazyConvNd, Conv1d):
    """A :class:`Conv1d` that takes ``in_channels`` from an input. Source: ``torch.nn.LazyConv1d``."""

    cls_to_become = Conv1d
    axis = -2
    ranks = (2, 3)


class LazyConv2d(_LazyConvNd, Conv2d):
    """A :class:`Conv2d` that takes ``in_channels`` from an input. Source: ``torch.nn.LazyConv2d``."""

    cls_to_become = Conv2d
    axis = -3
    ranks = (3, 4)


class LazyConv3d(_LazyConvNd, Conv3d):
    """A :class:`Conv3d` that takes ``in_channels`` from an input. Source: ``torch.nn.LazyConv3d``."""

    cls_to_become = Conv3d
    axis = -4
    ranks = (4, 5)


class LazyConvTranspose1d(_LazyConvTransposeNd, ConvTranspose1d):
    """:class:`ConvTranspose1d` that takes ``in_channels`` from an input. Source: ``torch.nn.LazyConvTranspose1d``."""

    cls_to_become = ConvTranspose1d
    axis = -2
    ranks = (2, 3)


class LazyConvTranspose2d(_LazyConvTransposeNd, ConvTranspose2d):
    """:class:`ConvTranspose2d` that takes ``in_channels`` from an input. Source: ``torch.nn.LazyConvTranspose2d``."""

    cls_to_become = ConvTranspose2d
    axis = -3
    ranks = (3, 4)


class LazyConvTranspose3d(_LazyConvTransposeNd, ConvTranspose3d):
    """:class:`ConvTranspose3d` that takes ``in_channels`` from an input. Source: ``torch.nn.LazyConvTranspose3d``."""

    cls_to_become = ConvTranspose3d
    axis = -4
    ranks = (4, 5)


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """A :class:`BatchNorm1d` that takes ``num_features`` from an input. Source: ``torch.nn.LazyBatchNorm1d``."""

    cls_to_become = BatchNorm1d
    axis = 1


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """A :class:`BatchNorm2d` that takes ``num_features`` from an input. Source: ``torch.nn.LazyBatchNorm2d``."""

    cls_to_become = BatchNorm2d
    axis = 1


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """A :class:`BatchNorm3d` that takes ``num_features`` from an input. Source: ``torch.nn.LazyBatchNorm3d``."""

    cls_to_become = BatchNorm3d
    axis = 1


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """A :class:`InstanceNorm1d` that takes ``num_features`` from an input. Source: ``torch.nn.LazyInstanceNorm1d``."""

    cls_to_become = InstanceNorm1d
    axis = -2


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """A :class:`InstanceNorm2d` that takes ``num_features`` from an input. Source: ``torch.nn.LazyInstanceNorm2d``."""

    cls_to_become = InstanceNorm2d
    axis = -3


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """A :class:`InstanceNorm3d` that takes ``num_features`` from an input. Source: ``torch.nn.LazyInstanceNorm3d``."""

    cls_to_become = InstanceNorm3d
    axis = -4
