"""Torch's random draws, recorded and carried over, so that random operators compare exactly."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from jax.typing import DTypeLike
from torch.utils._python_dispatch import TorchDispatchMode


class ReplayError(RuntimeError):
    """The two sides do not draw the same random tensors in the same order."""


class Draws(TorchDispatchMode):
    """While active, notes every random tensor torch draws; given ``recorded`` ones, hands those out instead.

    Attributes:
        recorded: the draws in order, as torch made them (a dropout's as its mask).
    """

    def __init__(self, recorded: list[torch.Tensor] | None = None) -> None:
        super().__init__()
        self.recorded: list[torch.Tensor] = [] if recorded is None else recorded
        self._replayed: Iterator[torch.Tensor] | None = None if recorded is None else iter(recorded)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator call: drawn and noted, replayed, or passed on where it is not random."""
        kwargs = kwargs or {}
        kind = func._schema.name
        if kind in ("aten::bernoulli_", "aten::uniform_", "aten::exponential_"):
            if self._replayed is not None:
                return args[0].copy_(next(self._replayed))
            return self._noted(func(*args, **kwargs))
        if kind in ("aten::rand", "aten::rand_like", "aten::bernoulli"):
            drawn = func(*args, **kwargs)
            return drawn.copy_(next(self._replayed)) if self._replayed is not None else self._noted(drawn)
        if kind == "aten::native_dropout" and args[2]:
            if self._replayed is not None:
                mask = next(self._replayed).bool()
                return args[0] * mask / (1 - args[1]), mask
            output, mask = func(*args, **kwargs)
            self._noted(mask)
            return output, mask
        if kind == "aten::rrelu_with_noise" and args[4]:
            if self._replayed is not None:
                noise = args[1].copy_(next(self._replayed))
                return torch.where(args[0] <= 0, args[0] * noise, args[0])
            output = func(*args, **kwargs)
            self._noted(args[1])
            return output
        return func(*args, **kwargs)

    def _noted(self, drawn: torch.Tensor) -> torch.Tensor:
        self.recorded.append(drawn.detach().clone())
        return drawn


@contextmanager
def replayed(recorded: list[torch.Tensor]) -> Iterator[None]:
    """Within it jaxnn's random operators take torch's ``recorded`` draws in place of their keys'.

    Raises:
        ReplayError: a draw has another shape than torch's in its place, or torch drew more or fewer.
    """
    draws = iter(recorded)
    taken = 0

    def taken_next(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        nonlocal taken
        drawn = next(draws, None)
        if drawn is None:
            raise ReplayError(f"JAX draws a random tensor of shape {shape} after torch's {len(recorded)} are used up")
        taken += 1
        if drawn.numel() != int(np.prod(shape)):
            raise ReplayError(f"random tensor {taken} has shape {shape}, torch's has {tuple(drawn.shape)}")
        return jnp.asarray(drawn.float().numpy().reshape(shape)).astype(dtype)

    with mock.patch.multiple(
        "jaxnn.functional._random",
        bernoulli=lambda key, p, shape: taken_next(shape, bool),
        uniform=lambda key, shape, dtype, low=0.0, high=1.0: taken_next(shape, dtype),
        exponential=lambda key, shape, dtype: taken_next(shape, dtype),
    ):
        yield
    if taken < len(recorded):
        raise ReplayError(f"torch drew {len(recorded)} random tensors, JAX only {taken}")
