"""What a convolution is, its channels apart."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


class Geometry(NamedTuple):
    """Sizes and steps on each spatial axis.

    Attributes:
        sizes: of the images.
        kernel_size: of the kernel.
        strides: how far the kernel moves for the next output.
        pads: zeros before and after the images; negative where the images are cropped.
        dilations: the distance of the kernel's elements.
        groups: how many blocks the channels fall into.
        precision: of the products.
    """

    sizes: tuple[int, ...]
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    groups: int = 1
    precision: lax.Precision | None = None

    @property
    def outputs(self) -> tuple[int, ...]:
        """The spatial sizes of the result."""
        return tuple(
            (size + sum(pad) - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                self.sizes, self.kernel_size, self.strides, self.pads, self.dilations, strict=True
            )
        )

    @property
    def transposed_pads(self) -> tuple[tuple[int, int], ...]:
        """Zeros around the outputs, with ``stride - 1`` between them, so that a mirrored kernel gives the images."""
        each = zip(self.sizes, self.outputs, self.kernel_size, self.strides, self.pads, self.dilations, strict=True)
        return tuple(
            (dilation * (kernel - 1) - before, size - (outputs - 1) * stride - 1 + before)
            for size, outputs, kernel, stride, (before, _), dilation in each
        )


def mirrored(w: Array, groups: int) -> Array:
    """The kernel of the transposed convolution: input and output channels exchanged, every axis reversed."""
    blocks = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)
    return jnp.flip(blocks.reshape(-1, *blocks.shape[2:]), tuple(range(2, w.ndim)))
