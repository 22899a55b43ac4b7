"""Arrays between torch, numpy and JAX, each with memory of its own unless it says otherwise."""

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """``tensor`` as an array with memory of its own; bfloat16 as ``ml_dtypes.bfloat16``."""
    return viewed(tensor).copy()


def viewed(tensor: torch.Tensor) -> np.ndarray:
    """``tensor`` as an array, of the same memory where that is possible."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_tensor(array: Any) -> torch.Tensor:
    """``array`` as a tensor with memory of its own; ``ml_dtypes.bfloat16`` as bfloat16."""
    array = np.array(array, order="C")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_jax(x: Any) -> Any:
    """A tensor or numpy array as a JAX array, a torch dtype as JAX's, anything else as it is."""
    if isinstance(x, torch.Tensor):
        return jnp.array(viewed(x))
    if isinstance(x, np.ndarray):
        return jnp.array(x)
    if isinstance(x, torch.dtype):
        return jnp.dtype(str(x).removeprefix("torch."))
    return x
