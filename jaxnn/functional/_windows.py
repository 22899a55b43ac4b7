"""Where the windows of a pooling lie: the arithmetic and the refusals that max and average pooling share."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnn.functional._argument import ArgumentError, n_tuple


class Window(NamedTuple):
    """Windows along one axis: window ``i`` holds the elements ``i * stride - padding + dilation * (0 ... kernel - 1)``.

    Attributes:
        size: elements on the axis.
        kernel: elements in a window.
        stride: elements from one window to the next.
        padding: elements before the first and after the last.
        dilation: elements from one of a window to its next.
        output: windows on the axis.
    """

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    output: int

    @property
    def extent(self) -> int:
        """Elements from the first of a window to its last."""
        return (self.kernel - 1) * self.dilation + 1


def windows(
    name: str,
    shape: tuple[int, ...],
    n: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> tuple[Window, ...]:
    """The windows along each of the last ``n`` axes of ``shape``.

    Raises:
        ArgumentError: ``shape`` has neither ``n + 1`` nor ``n + 2`` axes or an empty one other than the batch, an
            argument is out of its range, padding exceeds half the kernel, or no window fits.
    """
    kernels = n_tuple(kernel_size, n, f"{name}: kernel_size")
    unset = stride is None or (isinstance(stride, Sequence) and not stride)
    strides = kernels if stride is None or unset else n_tuple(stride, n, f"{name}: stride")
    paddings = n_tuple(padding, n, f"{name}: padding")
    dilations = n_tuple(dilation, n, f"{name}: dilation")
    check_axes(name, shape, n)
    check_not_empty(name, shape, range(len(shape) - n - 1, len(shape)))
    for argument, values in (("kernel_size", kernels), ("stride", strides), ("dilation", dilations)):
        if min(values) <= 0:
            raise ArgumentError(f"{name}: {argument} must be positive, got {values}")
    found = []
    for size, kernel, step, pad, spread in zip(shape[-n:], kernels, strides, paddings, dilations, strict=True):
        if not 0 <= pad <= kernel // 2:
            raise ArgumentError(
                f"{name}: padding must lie between 0 and half of kernel_size={kernels}, got padding={paddings}"
            )
        reach = size + 2 * pad - spread * (kernel - 1) - 1
        output = -(-reach // step) + 1 if ceil_mode else reach // step + 1
        # The last window must start inside the input or the padding before it.
        if ceil_mode and (output - 1) * step >= size + pad:
            output -= 1
        if output < 1:
            raise ArgumentError(
                f"{name}: output size is too small: input of shape {shape} with kernel_size={kernels}, "
                f"padding={paddings} and dilation={dilations} leaves {output} windows on an axis of {size}"
            )
        found.append(Window(size, kernel, step, pad, spread, output))
    return tuple(found)


def evenly(size: int, output: int) -> Window:
    """``output`` windows side by side that fill an axis of a multiple of as many elements."""
    return Window(size, size // output, size // output, 0, 1, output)


def check_axes(name: str, shape: tuple[int, ...], n: int) -> None:
    """Refuse what is neither ``(channels, *spatial)`` nor ``(batch, channels, *spatial)`` of ``n`` spatial axes."""
    if len(shape) not in (n + 1, n + 2):
        raise ArgumentError(f"{name}: input must have {n + 1} or {n + 2} axes, got shape {shape}")


def check_not_empty(name: str, shape: tuple[int, ...], axes: Sequence[int]) -> None:
    """Refuse a ``shape`` that is empty on one of ``axes``."""
    for axis in axes:
        if shape[axis] == 0:
            raise ArgumentError(f"{name}: input must have elements on every axis but the batch, got shape {shape}")


def check_floating(name: str, input: Array) -> None:
    """Refuse integers, booleans and complex numbers."""
    if not jnp.issubdtype(input.dtype, jnp.floating):
        raise NotImplementedError(f"{name}: input must be of a real floating-point dtype, got {input.dtype}")


def exact_tuple(value: int | Sequence[int], n: int, name: str) -> tuple[int, ...]:
    """As :func:`n_tuple`, but a sequence of one does not stand for ``n``."""
    if isinstance(value, Sequence) and len(value) != n:
        raise ArgumentError(f"{name} must be an integer or a sequence of {n}, got {value!r}")
    return n_tuple(value, n, name)


def default_integer() -> jnp.dtype:
    """The dtype of an index, torch's int64: int32 where JAX has no int64."""
    return jax.dtypes.canonicalize_dtype(jnp.int64)
