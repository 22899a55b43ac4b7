"""Normalization with running statistics."""

import warnings
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Inexact

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.nn.module import Module, value
from jaxnn.nn.normalization import constant

Input = Inexact[ArrayLike, "*shape"]
Output = Inexact[Array, "*shape"]


class _NormBase(Module):
    """Scale, shift and running statistics of channels.

    Attributes:
        weight: ``(num_features,)``, starting at one; None without ``affine``.
        bias: ``(num_features,)``, starting at zero; None also without ``bias``.
        running_mean: ``(num_features,)``, starting at zero; None without ``track_running_stats``.
        running_var: ``(num_features,)``, starting at one, unbiased; None without ``track_running_stats``.
        num_batches_tracked: a count.
        use_running_average: true in evaluation; ``train()`` and ``eval()`` set it.
    """

    ranks: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.use_running_average = False
        self.weight = constant((num_features,), 1, device, dtype) if affine else None
        self.bias = constant((num_features,), 0, device, dtype) if affine and bias else None

        def statistic(start: Array) -> nnx.BatchStat | None:
            return nnx.BatchStat(start) if track_running_stats else None

        # One assignment each: nnx decides at the first whether an attribute holds data.
        self.running_mean = statistic(jnp.zeros(num_features, dtype or jnp.float32, device=device))
        self.running_var = statistic(jnp.ones(num_features, dtype or jnp.float32, device=device))
        self.num_batches_tracked = statistic(jnp.zeros((), int, device=device))

    def _check_rank(self, input: ArrayLike) -> None:
        if jnp.ndim(input) not in self.ranks:
            raise ArgumentError(
                f"{type(self).__name__}: input must have {' or '.join(map(str, self.ranks))} axes, "
                f"got shape {jnp.shape(input)}"
            )

    def _store(self, mean: Array | None, var: Array | None) -> None:
        for variable, new in ((self.running_mean, mean), (self.running_var, var)):
            if variable is not None and new is not None:
                variable.set_value(new)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_NormBase):
    def __call__(self, input: Input) -> Output:
        self._check_rank(input)
        weight, bias = value(self.weight), value(self.bias)
        mean, var = value(self.running_mean), value(self.running_var)
        if self.use_running_average or mean is None or self.num_batches_tracked is None:
            return functional.batch_norm(input, mean, var, weight, bias, mean is None, 0.0, self.eps)
        count = self.num_batches_tracked.get_value() + 1
        # Without a momentum the running statistics are the mean over all batches.
        momentum = 1.0 / count.astype(mean.dtype) if self.momentum is None else self.momentum
        output, mean, var = functional.batch_norm_with_stats(input, mean, var, weight, bias, True, momentum, self.eps)
        self.num_batches_tracked.set_value(count)
        self._store(mean, var)
        return output


class BatchNorm1d(_BatchNorm):
    """Over ``(N, C)`` or ``(N, C, L)``. Source: ``torch.nn.BatchNorm1d``; see :func:`jaxnn.functional.batch_norm`."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Over ``(N, C, H, W)``. Source: ``torch.nn.BatchNorm2d``; see :func:`jaxnn.functional.batch_norm`."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Over ``(N, C, D, H, W)``. Source: ``torch.nn.BatchNorm3d``; see :func:`jaxnn.functional.batch_norm`."""

    ranks = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch normalization over all devices: under ``jit`` with a sharded batch that is what every batch norm does here.

    ``process_group`` is accepted and has no effect.

    Source: ``torch.nn.SyncBatchNorm``.
    """

    ranks = (2, 3, 4, 5)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: object = None,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)


class _InstanceNorm(_NormBase):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def __call__(self, input: Input) -> Output:
        self._check_rank(input)
        batched = jnp.asarray(input)
        unbatched = batched.ndim == self.ranks[0]
        if unbatched:
            batched = batched[None]
        if batched.shape[1] != self.num_features:
            said = f"{type(self).__name__}: input must have num_features={self.num_features} channels"
            if self.affine:
                raise ArgumentError(f"{said}, got {batched.shape[1]}")
            warnings.warn(f"{said}, got {batched.shape[1]}; without affine parameters this has no effect", stacklevel=2)
        output = self._normalized(batched)
        return output[0] if unbatched else output

    def _normalized(self, input: Array) -> Array:
        weight, bias = value(self.weight), value(self.bias)
        mean, var = value(self.running_mean), value(self.running_var)
        momentum = 0.0 if self.momentum is None else self.momentum
        training = not self.use_running_average
        if mean is None or not training:
            use_input = training or not self.track_running_stats
            return functional.instance_norm(input, mean, var, weight, bias, use_input, momentum, self.eps)
        output, mean, var = functional.instance_norm_with_stats(
            input, mean, var, weight, bias, True, momentum, self.eps
        )
        self._store(mean, var)
        return output


class InstanceNorm1d(_InstanceNorm):
    """Over ``(N, C, L)`` or ``(C, L)``. Source: ``torch.nn.InstanceNorm1d``."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Over ``(N, C, H, W)`` or ``(C, H, W)``. Source: ``torch.nn.InstanceNorm2d``."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Over ``(N, C, D, H, W)`` or ``(C, D, H, W)``. Source: ``torch.nn.InstanceNorm3d``."""

    ranks = (4, 5)
