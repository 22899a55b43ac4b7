"""Sliding blocks of an image as columns, and columns summed back into an image."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Shaped

from jaxnn.functional._argument import ArgumentError, accumulation_dtype
from jaxnn.functional._windows import check_not_empty, exact_tuple


class Blocks(NamedTuple):
    """Blocks along one axis: element ``j`` of block ``i`` is element ``i * stride - padding + j * dilation``."""

    size: int
    kernel: int
    dilation: int
    padding: int
    stride: int

    @property
    def number(self) -> int:
        """How many blocks fit."""
        return (self.size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1


def unfold(
    input: Shaped[ArrayLike, "*batch channels height width"],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Shaped[Array, "*batch values blocks"]:
    r"""The sliding blocks of an image, one a column.

    .. math:: y_{(c, a, b), (i, j)} = x_{c,\; s i - p + d a,\; s j - p + d b}, \quad 0 \text{ outside the image}

    Args:
        input: ``(batch, channels, height, width)`` or without batch; not of integers.
        kernel_size: rows and columns of a block.
        dilation: pixels from one of a block to its next.
        padding: zeros on every side.
        stride: pixels from one block to the next.

    Returns:
        ``(batch, channels * kernel_height * kernel_width, blocks)``.

    Raises:
        ArgumentError: ``input`` has neither 3 nor 4 axes or an empty one other than the batch, an argument is out of
            its range, or no block fits.
        NotImplementedError: ``input`` holds integers.

    Source: ``torch.nn.functional.unfold``.
    """
    input = jnp.asarray(input)
    _check_dtype("unfold", input)
    if input.ndim not in (3, 4):
        raise ArgumentError(
            f"unfold: input must be (batch, channels, height, width) or without batch, got shape {input.shape}"
        )
    check_not_empty("unfold", input.shape, (-3, -2, -1))
    rows, columns = _blocks("unfold", input.shape[-2:], kernel_size, dilation, padding, stride)
    if min(rows.number, columns.number) < 1:
        raise ArgumentError(
            f"unfold: no block of kernel_size={(rows.kernel, columns.kernel)} and "
            f"dilation={(rows.dilation, columns.dilation)} fits input of shape {input.shape} with "
            f"padding={(rows.padding, columns.padding)}"
        )
    # One axis after the other: as many slices as the kernel has rows and columns, not as it has pixels.
    by_row = _unfolded(input, rows, input.ndim - 2, input.ndim - 2)
    by_pixel = _unfolded(by_row, columns, by_row.ndim - 1, by_row.ndim - 2)
    values = input.shape[-3] * rows.kernel * columns.kernel
    return by_pixel.reshape(*input.shape[:-3], values, rows.number * columns.number)


def fold(
    input: Shaped[ArrayLike, "*batch values blocks"],
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Shaped[Array, "*batch channels height width"]:
    r"""The image whose every pixel is the sum of the column entries that :func:`unfold` would fill with it.

    .. math:: x_{c, u, v} = \sum y_{(c, a, b), (i, j)} \text{ over } s i - p + d a = u,\; s j - p + d b = v

    Args:
        input: ``(batch, channels * kernel_height * kernel_width, blocks)`` or without batch; not of integers.
        output_size: height and width of the image.
        kernel_size: rows and columns of a block.
        dilation: pixels from one of a block to its next.
        padding: pixels around the image that blocks reach and that are dropped.
        stride: pixels from one block to the next.

    Returns:
        ``(batch, channels, *output_size)``.

    Raises:
        ArgumentError: ``input`` has neither 2 nor 3 axes or an empty one other than the batch, an argument is out of
            its range, or ``input`` has another number of values or of blocks than the arguments make.
        NotImplementedError: ``input`` holds integers.

    Source: ``torch.nn.functional.fold``.
    """
    input = jnp.asarray(input)
    _check_dtype("fold", input)
    if input.ndim not in (2, 3):
        raise ArgumentError(f"fold: input must be (batch, values, blocks) or without batch, got shape {input.shape}")
    check_not_empty("fold", input.shape, (-2, -1))
    rows, columns = _blocks(
        "fold", exact_tuple(output_size, 2, "fold: output_size"), kernel_size, dilation, padding, stride
    )
    pixels = rows.kernel * columns.kernel
    if input.shape[-2] % pixels:
        raise ArgumentError(
            f"fold: the values of input must be a multiple of the {pixels} pixels of "
            f"kernel_size={(rows.kernel, columns.kernel)}, got input of shape {input.shape}"
        )
    if min(rows.number, columns.number) < 1 or input.shape[-1] != rows.number * columns.number:
        raise ArgumentError(
            f"fold: output_size={(rows.size, columns.size)} holds {rows.number} x {columns.number} blocks of "
            f"kernel_size={(rows.kernel, columns.kernel)}, got input of shape {input.shape}"
        )
    split = (input.shape[-2] // pixels, rows.kernel, columns.kernel, rows.number, columns.number)
    blocks = input.astype(accumulation_dtype(input.dtype)).reshape(*input.shape[:-2], *split)
    by_row = _folded(blocks, columns, blocks.ndim - 1, blocks.ndim - 3)
    return _folded(by_row, rows, by_row.ndim - 2, by_row.ndim - 3).astype(input.dtype)


def _check_dtype(name: str, input: Array) -> None:
    if jnp.issubdtype(input.dtype, jnp.integer):
        raise NotImplementedError(f"{name}: input must not hold integers, got {input.dtype}")


def _blocks(
    name: str,
    sizes: Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int],
    padding: int | Sequence[int],
    stride: int | Sequence[int],
) -> tuple[Blocks, Blocks]:
    """The blocks along the rows and along the columns."""
    kernels = exact_tuple(kernel_size, 2, f"{name}: kernel_size")
    dilations = exact_tuple(dilation, 2, f"{name}: dilation")
    paddings = exact_tuple(padding, 2, f"{name}: padding")
    strides = exact_tuple(stride, 2, f"{name}: stride")
    for argument, values in (("kernel_size", kernels), ("dilation", dilations), ("stride", strides)):
        if min(values) <= 0:
            raise ArgumentError(f"{name}: {argument} must be positive, got {values}")
    if min(paddings) < 0:
        raise ArgumentError(f"{name}: padding must not be negative, got {paddings}")
    rows, columns = (Blocks(*each) for each in zip(sizes, kernels, dilations, paddings, strides, strict=True))
    return rows, columns


def _unfolded(input: Array, blocks: Blocks, axis: int, new_axis: int) -> Array:
    """``axis`` over the blocks, ``new_axis`` over the elements of each."""
    padded = lax.pad(
        input,
        jnp.zeros((), input.dtype),
        [(blocks.padding, blocks.padding, 0) if i == axis else (0, 0, 0) for i in range(input.ndim)],
    )
    last = (blocks.number - 1) * blocks.stride
    elements = [
        lax.slice_in_dim(padded, start, start + last + 1, blocks.stride, axis)
        for start in range(0, blocks.kernel * blocks.dilation, blocks.dilation)
    ]
    return jnp.stack(elements, new_axis)


def _folded(blocks: Array, along: Blocks, axis: int, kernel_axis: int) -> Array:
    """The transpose of :func:`_unfolded`: each element's blocks spread by the stride, moved to their place, summed."""
    spread = (along.number - 1) * along.stride + 1
    zero = jnp.zeros((), blocks.dtype)

    def placed(element: int) -> Array:
        low = element * along.dilation - along.padding
        taken = lax.index_in_dim(blocks, element, kernel_axis, keepdims=False)
        place = axis - (kernel_axis < axis)
        widths = [(0, 0, 0)] * taken.ndim
        widths[place] = (low, along.size - low - spread, along.stride - 1)
        return lax.pad(taken, zero, widths)

    return sum(map(placed, range(1, along.kernel)), placed(0))
