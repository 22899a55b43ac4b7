"""Where torch runs, and how its work is waited for."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from parity.arrays import viewed


def torch_device() -> torch.device:
    """The GPU where JAX has one and torch can use it, else the CPU."""
    return torch.device("cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu")


def tensor(x: np.ndarray) -> torch.Tensor:
    """A copy of ``x`` where torch runs."""
    return torch.from_numpy(np.array(x)).to(torch_device())


def awaited(call: Callable[[], Any]) -> Callable[[], Any]:
    """``call`` that returns when its work is done: a GPU's is only queued by then."""
    if torch_device().type == "cpu":
        return call

    def run() -> Any:
        result = call()
        torch.cuda.synchronize()
        return result

    return run


def to_numbers(x: Any) -> np.ndarray:
    """Any contender's result, in float64."""
    return np.asarray(viewed(x) if isinstance(x, torch.Tensor) else x, np.float64)
