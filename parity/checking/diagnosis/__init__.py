"""Why a layer is wrong: the mistake that explains what the port puts out."""

from parity.checking.diagnosis import (
    attention,
    convolution,
    elementwise,
    losses,
    masks,
    normalization,
    pooling,
    products,
    rearrangement,
    recurrence,
    sums,
    windows,
)
from parity.checking.diagnosis.explain import explain as explain

__all__ = [
    "attention",
    "convolution",
    "elementwise",
    "explain",
    "losses",
    "masks",
    "normalization",
    "pooling",
    "products",
    "rearrangement",
    "recurrence",
    "sums",
    "windows",
]
