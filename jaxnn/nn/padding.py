"""Layers that extend the borders."""

from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Num

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.functional._argument import n_tuple
from jaxnn.nn.module import Module

Pads = int | Sequence[int]


class _PadNd(Module):
    """``padding`` holds a pair (before, after) for each spatial axis, the last axis first; one integer is for all."""

    spatial: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Pads) -> None:
        self.padding = n_tuple(padding, 2 * self.spatial, "padding")

    def __call__(self, input: Num[ArrayLike, "..."]) -> Num[Array, "..."]:
        return functional.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return str(self.padding)


class _CircularPadNd(_PadNd):
    mode = "circular"

    def __call__(self, input: Num[ArrayLike, "..."]) -> Num[Array, "..."]:
        if jnp.ndim(input) not in (self.spatial + 1, self.spatial + 2):
            raise ArgumentError(
                f"{type(self).__name__}: input must have {self.spatial + 1} or {self.spatial + 2} axes, "
                f"got shape {jnp.shape(input)}"
            )
        return super().__call__(input)


class _ConstantPadNd(_PadNd):
    mode = "constant"

    def __init__(self, padding: Pads, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def __call__(self, input: Num[ArrayLike, "..."]) -> Num[Array, "..."]:
        return functional.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPadNd(_PadNd):
    mode = "constant"


class ReflectionPad1d(_PadNd):
    """Over one spatial axis. Source: ``torch.nn.ReflectionPad1d``; see :func:`jaxnn.functional.pad`."""

    spatial = 1
    mode = "reflect"


class ReflectionPad2d(_PadNd):
    """Over two spatial axes. Source: ``torch.nn.ReflectionPad2d``; see :func:`jaxnn.functional.pad`."""

    spatial = 2
    mode = "reflect"


class ReflectionPad3d(_PadNd):
    """Over three spatial axes. Source: ``torch.nn.ReflectionPad3d``; see :func:`jaxnn.functional.pad`."""

    spatial = 3
    mode = "reflect"


class ReplicationPad1d(_PadNd):
    """Over one spatial axis. Source: ``torch.nn.ReplicationPad1d``; see :func:`jaxnn.functional.pad`."""

    spatial = 1
    mode = "replicate"


class ReplicationPad2d(_PadNd):
    """Over two spatial axes. Source: ``torch.nn.ReplicationPad2d``; see :func:`jaxnn.functional.pad`."""

    spatial = 2
    mode = "replicate"


class ReplicationPad3d(_PadNd):
    """Over three spatial axes. Source: ``torch.nn.ReplicationPad3d``; see :func:`jaxnn.functional.pad`."""

    spatial = 3
    mode = "replicate"


class CircularPad1d(_CircularPadNd):
    """Over one spatial axis. Source: ``torch.nn.CircularPad1d``; see :func:`jaxnn.functional.pad`."""

    spatial = 1


class CircularPad2d(_CircularPadNd):
    """Over two spatial axes. Source: ``torch.nn.CircularPad2d``; see :func:`jaxnn.functional.pad`."""

    spatial = 2


class CircularPad3d(_CircularPadNd):
    """Over three spatial axes. Source: ``torch.nn.CircularPad3d``; see :func:`jaxnn.functional.pad`."""

    spatial = 3


class ConstantPad1d(_ConstantPadNd):
    """Over one spatial axis. Source: ``torch.nn.ConstantPad1d``; see :func:`jaxnn.functional.pad`."""

    spatial = 1


class ConstantPad2d(_ConstantPadNd):
    """Over two spatial axes. Source: ``torch.nn.ConstantPad2d``; see :func:`jaxnn.functional.pad`."""

    spatial = 2


class ConstantPad3d(_ConstantPadNd):
    """Over three spatial axes. Source: ``torch.nn.ConstantPad3d``; see :func:`jaxnn.functional.pad`."""

    spatial = 3


class ZeroPad1d(_ZeroPadNd):
    """Over one spatial axis. Source: ``torch.nn.ZeroPad1d``; see :func:`jaxnn.functional.pad`."""

    spatial = 1


class ZeroPad2d(_ZeroPadNd):
    """Over two spatial axes. Source: ``torch.nn.ZeroPad2d``; see :func:`jaxnn.functional.pad`."""

    spatial = 2


class ZeroPad3d(_ZeroPadNd):
    """Over three spatial axes. Source: ``torch.nn.ZeroPad3d``; see :func:`jaxnn.functional.pad`."""

    spatial = 3
