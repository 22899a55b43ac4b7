"""Batch normalization by running statistics, folded into the layer before it."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxnn.nn.batch_normalization import _BatchNorm
from jaxnn.nn.convolution import _ConvBase
from jaxnn.nn.linear import Linear
from jaxnn.nn.module import value


def fuse_conv_bn_eval(conv: _ConvBase, bn: _BatchNorm, transpose: bool = False) -> _ConvBase:
    """A copy of ``conv`` that gives what ``bn`` makes of it in evaluation mode.

    Args:
        conv: a convolution.
        bn: a batch normalization of its output, in evaluation mode.
        transpose: whether ``conv`` is a transposed one, whose output channels are the second axis of its weight.

    Raises:
        AssertionError: ``bn`` is in training mode or keeps no running statistics.

    Source: ``torch.nn.utils.fuse_conv_bn_eval``.
    """
    return _fused("fuse_conv_bn_eval", conv, bn, 1 if transpose else 0)


def fuse_linear_bn_eval(linear: Linear, bn: _BatchNorm) -> Linear:
    """A copy of ``linear`` that gives what ``bn`` makes of it in evaluation mode.

    Args:
        linear: a linear layer.
        bn: a batch normalization of its output, in evaluation mode; of as many features, or of one.

    Raises:
        AssertionError: ``bn`` is in training mode, keeps no running statistics or has another number of features.

    Source: ``torch.nn.utils.fuse_linear_bn_eval``.
    """
    if bn.num_features not in (1, linear.out_features):
        raise AssertionError(
            f"fuse_linear_bn_eval: bn must have 1 or {linear.out_features} features, got {bn.num_features}"
        )
    return _fused("fuse_linear_bn_eval", linear, bn, 0)


def _fused(name: str, layer: Any, bn: _BatchNorm, axis: int) -> Any:
    if not bn.use_running_average:
        raise AssertionError(f"{name}: bn must be in evaluation mode, got one in training; see its eval()")
    mean, variance = value(bn.running_mean), value(bn.running_var)
    if mean is None or variance is None:
        raise AssertionError(f"{name}: bn must keep running statistics, got track_running_stats=False")
    gain, shift, bias, weight = value(bn.weight), value(bn.bias), value(layer.bias), layer.weight[...]
    scale = lax.rsqrt(variance + bn.eps) * (1 if gain is None else gain)
    dtype = weight.dtype if bias is None else bias.dtype
    bias = (-mean if bias is None else bias - mean) * scale + (0 if shift is None else shift)
    fused = nnx.clone(layer)
    along = jnp.expand_dims(scale, [i for i in range(weight.ndim) if i != axis])
    fused.weight = nnx.Param((weight * along).astype(weight.dtype))
    fused.bias = nnx.data(nnx.Param(bias.astype(dtype)))  # where there was none, nnx expects none
    return fused
