"""Torch's clipping of gradients by their norm: it divides by the norm and a millionth, optax by the norm."""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

ADDED = 1e-6
"""What torch adds to a norm before it divides by it."""

SMALL = 1e-4
"""Clipped gradients that differ by no more than this part, only because of that, train alike."""


@dataclass
class Clipped:
    """What was seen of torch's clipping.

    Attributes:
        part: the largest part by which the millionth made clipped gradients smaller; 0 where none were clipped.
    """

    part: float = 0.0

    def __str__(self) -> str:
        return (
            "torch.nn.utils.clip_grad_norm_ divides by the norm + 1e-6, the port, as optax.clip_by_global_norm, by the "
            f"norm alone: gradients differ by up to {self.part:.1e} of their size for that"
        )


@contextmanager
def clipping_noted(exact: bool) -> Iterator[Clipped]:
    """Notes what torch clips within; ``exact`` leaves the millionth out, as optax does."""
    module: Any = importlib.import_module("torch.nn.utils.clip_grad")
    usual, seen = module._clip_grads_with_norm_, Clipped()

    def clip(
        parameters: torch.Tensor | Iterable[torch.Tensor],
        max_norm: float,
        total_norm: torch.Tensor,
        foreach: bool | None = None,
    ) -> None:
        held = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        norm = float(total_norm)
        if norm > max_norm:
            seen.part = max(seen.part, ADDED / norm)
        if not exact:
            usual(held, max_norm, total_norm, foreach)
        elif norm > max_norm:
            for parameter in held:
                if parameter.grad is not None:
                    parameter.grad.mul_(max_norm / total_norm)

    module._clip_grads_with_norm_ = clip
    try:
        yield seen
    finally:
        module._clip_grads_with_norm_ = usual
