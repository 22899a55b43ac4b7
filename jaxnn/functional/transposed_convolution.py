"""Transposed convolutions over one, two and three spatial axes."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Num

from jaxnn._lowering.convolution import image_gradient
from jaxnn._lowering.geometry import Geometry
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
    kernel_size = kernel.shape[2:]
    trimmed, extra = _paddings(name, padding, output_padding, strides, dilations)
    outputs = tuple(
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, s, p, e, d, k in zip(sizes, strides, trimmed, extra, dilations, kernel_size, strict=True)
    )
    if min(outputs) < 1 or 0 in sizes:
        raise ArgumentError(f"{name}: the output must have elements, got {outputs} spatially for input {images.shape}")
    images = images.reshape(math.prod(batch), channels, *sizes)
    # No window reaches the elements that output_padding adds.
    pads = tuple((p, p - e) for p, e in zip(trimmed, extra, strict=True))
    geometry = Geometry(outputs, kernel_size, strides, pads, dilations, groups, matmul_precision())
    output = add_bias(name, image_gradient(images, kernel, geometry), shift)
    return output.reshape(*batch, *output.shape[1:])


def _paddings(
    name: str,
    padding: int | Sequence[int],
    output_padding: int | Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Elements taken off and added on each axis, refused where they cannot be."""
    rank = len(strides)
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
    return trimmed, extra
