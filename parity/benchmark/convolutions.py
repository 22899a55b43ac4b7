"""The ``conv`` suite: convolutions of common networks, against torch and against XLA's own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

from jaxnn import functional
from parity.benchmark.calls import MODES, time_call
from parity.benchmark.contest import Result


@dataclass(frozen=True)
class Case:
    """A convolution.

    Attributes:
        family: ``dense``, ``grouped`` or ``transposed``.
        name: the layer, and the network it is known from.
        images: ``(N, C, *sizes)``.
        kernel: as torch has it.
        stride: the same on every axis, as are padding and dilation.
    """

    family: str
    name: str
    images: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1


def cases() -> Iterator[Case]:
    """Sixteen, and a vocoder's whose kernel is a thousand wide."""
    yield Case("dense", "stem 7x7/2 (ResNet)", (8, 3, 224, 224), (64, 3, 7, 7), 2, 3)
    yield Case("dense", "3x3 of 64 at 56 (ResNet)", (8, 64, 56, 56), (64, 64, 3, 3), 1, 1)
    yield Case("dense", "3x3 of 256 at 14 (ResNet)", (8, 256, 14, 14), (256, 256, 3, 3), 1, 1)
    yield Case("dense", "3x3/2 (ResNet)", (8, 128, 56, 56), (128, 128, 3, 3), 2, 1)
    yield Case("dense", "1x1 (ResNet)", (8, 128, 28, 28), (512, 128, 1, 1))
    yield Case("dense", "1x1/2 (ResNet)", (8, 256, 28, 28), (512, 256, 1, 1), 2)
    yield Case("dense", "3x3 dilated (U-Net)", (4, 64, 32, 32), (64, 64, 3, 3), 1, 2, 2)
    yield Case("dense", "patches 16x16/16 (ViT)", (8, 3, 224, 224), (192, 3, 16, 16), 16)
    yield Case("dense", "1d, dilated (WaveNet)", (4, 64, 4096), (64, 64, 3), 1, 4, 4)
    yield Case("dense", "3d 3x3x3", (1, 16, 16, 32, 32), (16, 16, 3, 3, 3), 1, 1)
    yield Case("grouped", "depthwise 3x3 (MobileNet)", (8, 128, 28, 28), (128, 1, 3, 3), 1, 1, 1, 128)
    yield Case("grouped", "depthwise 3x3/2 (MobileNet)", (8, 96, 56, 56), (96, 1, 3, 3), 2, 1, 1, 96)
    yield Case("grouped", "depthwise 7x7 (ConvNeXt)", (4, 96, 56, 56), (96, 1, 7, 7), 1, 3, 1, 96)
    yield Case("grouped", "3x3 in 32 groups (ResNeXt)", (4, 128, 28, 28), (128, 4, 3, 3), 1, 1, 1, 32)
    yield Case("transposed", "4x4/2 (U-Net)", (8, 64, 28, 28), (64, 64, 4, 4), 2, 1)
    yield Case("transposed", "1d 16/8 (HiFi-GAN)", (4, 128, 256), (128, 64, 16), 8, 4)
    yield Case("vocoder", "transposed 1d 1024/256", (4, 128, 512), (128, 64, 1024), 256)


def run(case: Case, *, modes: Sequence[str] = MODES, seconds: float = 0.3, torch_compile: bool = False) -> list[Result]:
    """Time ``case``, and XLA's own convolution beside it."""
    rank = len(case.kernel) - 2
    transposed = case.family in ("transposed", "vocoder")
    name = f"conv_transpose{rank}d" if transposed else f"conv{rank}d"
    options: dict[str, Any] = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
    options["groups"] = case.groups
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=case.images), rng.normal(size=case.kernel) / np.sqrt(np.prod(case.kernel[1:]))]
    # XLA would take a minute for a step of the vocoder.
    plain = {} if case.family == "vocoder" else {"XLA": _plain(case, rank, transposed=transposed)}
    # Every number of the smaller of input and output meets every number of its group's kernel once.
    extents = [_extent(n, k, case) for n, k in zip(case.images[2:], case.kernel[2:], strict=True)]
    meetings = np.prod(case.images if transposed else (case.images[0], case.kernel[0], *extents))
    products = meetings * np.prod(case.kernel[1:])
    return time_call(
        ("conv", case.family, case.name),
        lambda *x: getattr(torch.nn.functional, name)(*x, **options),
        lambda *x: getattr(functional, name)(*x, **options),
        [x.astype(np.float32) for x in inputs],
        varied=[0, 1],
        modes=modes,
        seconds=seconds,
        torch_compile=torch_compile,
        plain=plain,
        operations=2.0 * float(products),
    )


def _extent(size: int, kernel: int, case: Case) -> int:
    return (size + 2 * case.padding - case.dilation * (kernel - 1) - 1) // case.stride + 1


def _plain(case: Case, rank: int, *, transposed: bool) -> Callable[..., jax.Array]:
    """``lax.conv_general_dilated``."""
    steps: dict[str, Any] = {"rhs_dilation": (case.dilation,) * rank, "feature_group_count": case.groups}

    def forward(x: jax.Array, w: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, w, (case.stride,) * rank, [(case.padding, case.padding)] * rank, **steps)

    def backward(x: jax.Array, w: jax.Array) -> jax.Array:
        pads = [(case.dilation * (k - 1) - case.padding,) * 2 for k in case.kernel[2:]]
        mirrored = jnp.flip(w.swapaxes(0, 1), tuple(range(2, rank + 2)))
        return lax.conv_general_dilated(x, mirrored, (1,) * rank, pads, lhs_dilation=(case.stride,) * rank, **steps)

    return backward if transposed else forward
