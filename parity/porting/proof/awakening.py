"""Weights with which all of a model shows in its results.

Many models begin asleep: a branch is scaled by zero or by 1e-6, a head gives little but its bias, every gain is one and
every shift zero. A port that left such a branch out, or wrote it wrongly, would still give what the model gives, until
trained weights are loaded.
"""

import math

import numpy as np
import torch
from flax import nnx

from jaxnn import nn
from parity.arrays import to_numpy
from parity.checking.perturbation import copied

SLIGHT = 1e-2
"""Weights up to this say little of what they multiply."""

SIZE = 0.1
"""Of the numbers that take their place, as vectors; matrices keep the size of what they are given."""


def awakened(module: torch.nn.Module) -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    """A copy of ``module`` that has its memory, but for slight parameters and such as are one number throughout.

    Returns:
        The copy, and those parameters of it by all their paths.
    """
    subject = copied(module, shared=True)
    generator = torch.Generator().manual_seed(0)
    drawn = {id(x): new for x in subject.parameters() if (new := _drawn(x.detach(), generator)) is not None}
    own = {path: x for path, x in subject.named_parameters(remove_duplicate=False) if id(x) in drawn}
    for x in own.values():
        x.data = drawn[id(x)]
    return subject, {path: to_numpy(x) for path, x in own.items()}


def with_weights(port: nnx.Module, weights: dict[str, np.ndarray]) -> nnx.Module:
    """``port`` with some weights of its own; all others are shared."""
    twin = nnx.merge(*nnx.split(port), copy=True)
    nn.load_state_dict(twin, weights, strict=False)
    return twin


def _drawn(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    """What takes the place of ``x``, of the sign that it has where it has one; None where it may stay."""
    if not x.is_floating_point() or not x.numel():
        return None
    low, high = float(x.min()), float(x.max())
    if low != high and max(-low, high) > SLIGHT:
        return None
    noise = torch.randn(x.shape, generator=generator).to(x.dtype)
    if max(-low, high) > SLIGHT:
        return x * (1 + SIZE * noise)
    if low >= 0 and high > 0:
        noise = noise.abs()
    size = SIZE if x.ndim < 2 else min(SIZE, 1 / math.sqrt(x[0].numel()))
    return x + size * noise
