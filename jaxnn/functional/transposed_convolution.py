"""Transposed convolutions over one, two and three spatial axes."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Num

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError, n_tuple
from jaxnn.functional.convolution import add_bias, check_operands, check_steps


def conv_transpose1d(
    input: Num[ArrayLike, "*batch in_channels width"],
    weight: Num[ArrayLike, "in_channels out_channels_per_group kernel_width"],
    bias: Num[ArrayLike, " out_channels"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Num[Array, "*batch out_channels width_out"]:
    r"""The transpose (not the inverse) of :func:`conv1d` in its input.

    .. math:: y_{n,o,k} = b_o + \sum_{c,i,j \,:\, s i + d j - p = k} w_{c,o,j} \, x_{n,c,i}

    Args:
        input: ``(N, in_channels, W)`` or ``(in_channels, W)``.
        weight: ``(in_channels, out_channels / groups, kernel_width)``.
        bias: ``(out_channels,)``.
        stride: step of the window in the output, in elements.
        padding: elements taken off both ends of the output.
        output_padding: elements added to its right end; fewer than ``stride`` or ``dilation``.
        groups: how many blocks the channels fall into, each convolved by itself.
        dilation: distance between kernel elements.

    Returns:
        ``(N, out_channels, (W - 1) stride - 2 padding + dilation (kernel_width - 1) + output_padding + 1)``.

    Raises:
        ArgumentError: shapes, dtypes or hyperparameters that do not fit together, or an output of no elements.
        NotImplementedError: the arrays are boolean or integers of fewer than 32 bits.

    Source: ``torch.nn.functional.conv_transpose1d``; Zeiler et al. (2010).
    """
    return _transposed("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Num[ArrayLike, "*batch in_channels height width"],
    weight: Num[ArrayLike, "in_channels out_channels_per_group kernel_height kernel_width"],
    bias: Num[ArrayLike, " out_channels"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Num[Array, "*batch out_channels height_out width_out"]:
    """The transpose of :func:`conv2d` in its input.

    Args, formula and errors are those of :func:`conv_transpose1d` with two spatial axes.

    Source: ``torch.nn.functional.conv_transpose2d``.
    """
    return _transposed("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Num[ArrayLike, "*batch in_channels depth height width"],
    weight: Num[ArrayLike, "in_channels out_channels_per_group kernel_depth kernel_height kernel_width"],
    bias: Num[ArrayLike, " out_channels"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Num[Array, "*batch out_channels depth_out height_out width_out"]:
    """The transpose of :func:`conv3d` in its input.

    Args, formula and errors are those of :func:`conv_transpose1d` with three spatial axes.

    Source: ``torch.nn.functional.conv_transpose3d``.
    """
    return _transposed("conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _transposed(
    name: str,
    rank: int,
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    output_padding: int | Sequence[int],
    groups: int,
    dilation: int | Sequence[int],
) -> Array:
    """Check everything torch checks, then convolve transposed; ``rank`` counts the spatial axes."""
    images, kernel, shift = check_operands(name, rank, input, weight, bias, groups)
    if not jnp.issubdtype(kernel.dtype, jnp.inexact) and kernel.dtype.itemsize < 4:
        raise NotImplementedError(f"{name}: takes floats, complex numbers and wide integers, got {kernel.dtype}")
    batch, channels, sizes = images.shape[: -rank - 1], images.shape[-rank - 1], images.shape[-rank:]
    if channels != kernel.shape[0] or kernel.shape[1] == 0:
        raise ArgumentError(
            f"{name}: weight must be (in_channels, out_channels / groups, ...) with output channels and the "
            f"{channels} channels of input {images.shape}, got {kernel.shape}"
        )
    strides, dilations = check_steps(name, rank, stride, dilation)
    pads = _padding_pairs(name, padding, output_padding, strides, dilations, kernel.shape[2:])
    outputs = tuple(
        (size - 1) * s + sum(pair) - d * (k - 1) + 1
        for size, s, pair, d, k in zip(sizes, strides, pads, dilations, kernel.shape[2:], strict=True)
    )
    if min(outputs) < 1 or 0 in sizes:
        raise ArgumentError(f"{name}: the output must have elements, got {outputs} spatially for input {images.shape}")
    images = images.reshape(math.prod(batch), channels, *sizes)
    output = add_bias(name, _convolve_transposed(images, kernel, strides, pads, dilations, groups), shift)
    return output.reshape(*batch, *output.shape[1:])


def _padding_pairs(
    name: str,
    padding: int | Sequence[int],
    output_padding: int | Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    kernel_size: Sequence[int],
) -> list[tuple[int, int]]:
    """Zeros before and after on each axis of the input, once ``stride - 1`` zeros stand between its elements."""
    rank = len(kernel_size)
    if isinstance(padding, str):
        raise TypeError(f"{name}: padding must be an integer or a sequence of {rank}, got {padding!r}")
    trimmed, extra = (
        n_tuple(padding, rank, f"{name}: padding"),
        n_tuple(output_padding, rank, f"{name}: output_padding"),
    )
    for what, values in (("padding", trimmed), ("output_padding", extra)):
        if min(values) < 0:
            raise ArgumentError(f"{name}: {what} must not be negative, got {values}")
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise ArgumentError(
            f"{name}: output_padding must be smaller than stride or dilation, got {extra} beside stride {strides} and "
            f"dilation {dilations}"
        )
    spans = [d * (k - 1) for d, k in zip(dilations, kernel_size, strict=True)]
    return [(span - p, span - p + e) for span, p, e in zip(spans, trimmed, extra, strict=True)]


def _convolve_transposed(
    images: Array,
    kernel: Array,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilations: Sequence[int],
    groups: int,
) -> Array:
    channels, per_group, *kernel_size = kernel.shape
    blocks = kernel.reshape(groups, channels // groups, per_group, *kernel_size).swapaxes(1, 2)
    mirrored = jnp.flip(blocks, tuple(range(3, blocks.ndim)))
    return lax.conv_general_dilated(
        images,
        mirrored.reshape(groups * per_group, channels // groups, *kernel_size),
        [1] * len(strides),
        pads,
        lhs_dilation=strides,
        rhs_dilation=dilations,
        feature_group_count=groups,
        precision=matmul_precision(),
    )
