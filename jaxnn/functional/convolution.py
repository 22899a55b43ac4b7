"""Convolutions over one, two and three spatial axes."""

import math
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Num

from jaxnn._lowering.convolution import convolution
from jaxnn._lowering.geometry import Geometry
from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError, check_same_dtype, n_tuple
from jaxnn.functional._bias import biased

Padding = int | Sequence[int] | Literal["same", "valid"]


def conv1d(
    input: Num[ArrayLike, "*batch in_channels width"],
    weight: Num[ArrayLike, "out_channels channels_per_group kernel_width"],
    bias: Num[ArrayLike, " out_channels"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Num[Array, "*batch out width_out"]:
    r"""Cross-correlation over one spatial axis.

    .. math:: y_{n,o,i} = b_o + \sum_{c,j} w_{o,c,j} \, x_{n,\,c,\,s i + d j - p}

    Args:
        input: ``(N, in_channels, W)`` or ``(in_channels, W)``.
        weight: ``(out_channels, in_channels / groups, kernel_width)``.
        bias: ``(out_channels,)``.
        stride: step of the window, in elements.
        padding: zeros on both sides, in elements; ``"valid"`` for none, ``"same"`` for as many as keep the width (where
            that is an odd number, one more on the right; stride 1 only).
        dilation: distance between kernel elements.
        groups: how many blocks the channels fall into, each convolved by itself.

    Returns:
        ``(N, out_channels, floor((W + 2 padding - dilation (kernel_width - 1) - 1) / stride) + 1)``.

    Raises:
        ArgumentError: shapes, dtypes or hyperparameters that do not fit, or a kernel wider than the padded input.
        NotImplementedError: the arrays are boolean.

    Source: ``torch.nn.functional.conv1d``.
    """
    return _convolution("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Num[ArrayLike, "*batch in_channels height width"],
    weight: Num[ArrayLike, "out_channels channels_per_group kernel_height kernel_width"],
    bias: Num[ArrayLike, " out_channels"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Num[Array, "*batch out height_out width_out"]:
    """Cross-correlation over two spatial axes.

    Args, formula and errors are those of :func:`conv1d`, with ``(N, C, H, W)`` or ``(C, H, W)`` for the input and
    ``(out_channels, in_channels / groups, kernel_height, kernel_width)`` for the weight; ``stride``, ``padding`` and
    ``dilation`` may be pairs.

    Source: ``torch.nn.functional.conv2d``.
    """
    return _convolution("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Num[ArrayLike, "*batch in_channels depth height width"],
    weight: Num[ArrayLike, "out_channels channels_per_group kernel_depth kernel_height kernel_width"],
    bias: Num[ArrayLike, " out_channels"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Num[Array, "*batch out depth_out height_out width_out"]:
    """Cross-correlation over three spatial axes.

    Args, formula and errors are those of :func:`conv1d`, with ``(N, C, D, H, W)`` or ``(C, D, H, W)`` for the input and
    ``(out_channels, in_channels / groups, *kernel_size)`` for the weight; ``stride``, ``padding`` and ``dilation`` may
    be triples.

    Source: ``torch.nn.functional.conv3d``.
    """
    return _convolution("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_tbc(
    input: Num[ArrayLike, "time batch in_channels"],
    weight: Num[ArrayLike, "kernel_width in_channels out_channels"],
    bias: Num[ArrayLike, " out_channels"],
    pad: int = 0,
) -> Num[Array, "time_out batch out_channels"]:
    r"""Cross-correlation over the first axis of a sequence laid out (time, batch, channels).

    .. math:: y_{t,n,o} = b_o + \sum_{c,j} w_{j,c,o} \, x_{t + j - p,\,n,\,c}

    Args:
        input: ``(T, N, in_channels)``.
        weight: ``(kernel_width, in_channels, out_channels)``.
        bias: ``(out_channels,)``; not optional.
        pad: zeros before and after, in time steps; a negative number takes steps away.

    Returns:
        ``(T + 2 pad - kernel_width + 1, N, out_channels)``, which may be empty.

    Raises:
        ArgumentError: shapes or dtypes that do not fit together, an empty kernel, or a length below zero.
        NotImplementedError: the arrays are boolean.
        TypeError: no bias.

    Source: ``torch.nn.functional.conv_tbc``.
    """
    if bias is None:
        raise TypeError("conv_tbc: bias must be an array of shape (out_channels,), got None")
    check_same_dtype("conv_tbc", input=input, weight=weight, bias=bias)
    input, weight, bias = jnp.asarray(input), jnp.asarray(weight), jnp.asarray(bias)
    if weight.dtype == bool:
        raise NotImplementedError("conv_tbc: boolean arrays are not convolved, got input and weight of dtype bool")
    if input.ndim != 3 or weight.ndim != 3 or input.shape[2] != weight.shape[1] or bias.shape != weight.shape[2:]:
        raise ArgumentError(
            "conv_tbc: expected input (time, batch, in_channels), weight (kernel_width, in_channels, out_channels) and "
            f"bias (out_channels,), got {input.shape}, {weight.shape} and {bias.shape}"
        )
    steps = input.shape[0] + 2 * pad - weight.shape[0] + 1
    if steps < 0 or weight.shape[0] == 0:
        raise ArgumentError(
            f"conv_tbc: weight must have a kernel of 1 to {input.shape[0] + 2 * pad + 1} steps beside input "
            f"{input.shape} with pad={pad}, got {weight.shape[0]}"
        )
    geometry = Geometry(input.shape[:1], weight.shape[:1], (1,), ((pad, pad),), (1,), 1, matmul_precision())
    output = convolution(input.transpose(1, 2, 0), weight.transpose(2, 1, 0), geometry)
    return biased(output.transpose(2, 0, 1), bias)


def check_operands(
    name: str, rank: int, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, groups: int
) -> tuple[Array, Array, Array | None]:
    """The three as arrays, refused where rank, dtype or groups cannot be; ``rank`` counts the spatial axes."""
    check_same_dtype(name, input=input, weight=weight, bias=bias)
    input, weight = jnp.asarray(input), jnp.asarray(weight)
    if weight.ndim != rank + 2 or 0 in weight.shape[2:]:
        raise ArgumentError(f"{name}: weight must have {rank + 2} axes, {rank} of them a kernel, got {weight.shape}")
    if input.ndim not in (rank + 1, rank + 2):
        raise ArgumentError(
            f"{name}: input must have {rank + 2} axes (a batch of images) or {rank + 1} (one image), got {input.shape}"
        )
    if groups < 1 or weight.shape[0] < groups or weight.shape[0] % groups:
        raise ArgumentError(
            f"{name}: groups must be positive and divide the first axis of weight {weight.shape}, got {groups}"
        )
    return input, weight, None if bias is None else jnp.asarray(bias)


def check_steps(
    name: str, rank: int, stride: int | Sequence[int], dilation: int | Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Stride and dilation for each of ``rank`` axes, refused where not positive."""
    strides, dilations = n_tuple(stride, rank, f"{name}: stride"), n_tuple(dilation, rank, f"{name}: dilation")
    for what, values in (("stride", strides), ("dilation", dilations)):
        if min(values) < 1:
            raise ArgumentError(f"{name}: {what} must be positive, got {values}")
    return strides, dilations


def add_bias(name: str, output: Num[Array, "batch channels *spatial"], bias: Array | None) -> Num[Array, "..."]:
    """``output`` with one number of ``bias`` added to each channel."""
    if bias is None:
        return output
    if bias.shape != output.shape[1:2]:
        raise ArgumentError(
            f"{name}: bias must have one element per output channel, ({output.shape[1]},), got {bias.shape}"
        )
    return biased(output, bias.reshape(-1, *[1] * (output.ndim - 2)))


def _convolution(
    name: str,
    rank: int,
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    groups: int,
) -> Array:
    """Check everything torch checks, then convolve; ``rank`` counts the spatial axes."""
    images, kernel, shift = check_operands(name, rank, input, weight, bias, groups)
    if kernel.dtype == bool:
        raise NotImplementedError(f"{name}: boolean arrays are not convolved, got input and weight of dtype bool")
    batch, channels, sizes = images.shape[: -rank - 1], images.shape[-rank - 1], images.shape[-rank:]
    if channels != kernel.shape[1] * groups:
        raise ArgumentError(
            f"{name}: input must have {kernel.shape[1] * groups} channels beside weight {kernel.shape} and "
            f"groups={groups}, got {channels} (input of shape {images.shape})"
        )
    strides, dilations = check_steps(name, rank, stride, dilation)
    spans = [d * (k - 1) for d, k in zip(dilations, kernel.shape[2:], strict=True)]
    pads = _padding_pairs(name, padding, spans, strides)
    padded = tuple(size + sum(pair) for size, pair in zip(sizes, pads, strict=True))
    if 0 in sizes or any(size <= span for size, span in zip(padded, spans, strict=True)):
        raise ArgumentError(
            f"{name}: the kernel must fit into the padded input, got kernel {kernel.shape[2:]} with dilation "
            f"{dilations} for input {images.shape} padded to {padded}"
        )
    images = images.reshape(math.prod(batch), channels, *sizes)
    geometry = Geometry(sizes, kernel.shape[2:], strides, pads, dilations, groups, matmul_precision())
    output = add_bias(name, convolution(images, kernel, geometry), shift)
    if channels == 0:
        # Torch's result for no input channels: no output channels either.
        output = output[:, :0]
    return output.reshape(*batch, *output.shape[1:])


def _padding_pairs(
    name: str, padding: Padding, spans: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Zeros before and after on each axis; ``spans`` are the kernel's extents less one."""
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ArgumentError(f"{name}: padding must be integers, 'same' or 'valid', got {padding!r}")
        if padding == "valid":
            return ((0, 0),) * len(spans)
        if max(strides) > 1:
            raise ArgumentError(f"{name}: padding='same' needs stride 1, got {tuple(strides)}")
        return tuple((span // 2, span - span // 2) for span in spans)
    pads = n_tuple(padding, len(spans), f"{name}: padding")
    if min(pads) < 0:
        raise ArgumentError(f"{name}: padding must not be negative, got {pads}")
    return tuple((p, p) for p in pads)
