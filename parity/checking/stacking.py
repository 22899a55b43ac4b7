"""Layers of a port whose arrays are those of several of torch's, stacked: one block that is scanned over all."""

from typing import Any

import jax.numpy as jnp
import torch
from flax import nnx

from jaxnn.nn.state import split_arrays


def stacked_paths(torch_module: torch.nn.Module, layers: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """From the path of a stacked layer in JAX to those of torch's in it, in order.

    ``layers.fc1`` stands for ``layers.0.fc1``, ``layers.1.fc1`` and so on where torch has a list, or a sequence, and
    the port one block with an axis more to its parameters, as ``nnx.scan`` and ``nnx.vmap`` make it.

    Args:
        torch_module: the reference.
        layers: those of the port, by path.
    """
    theirs = dict(torch_module.named_modules())
    found: dict[str, tuple[str, ...]] = {}
    for root, block in layers.items():
        parts = theirs.get(root)
        if not (root and isinstance(parts, torch.nn.ModuleList | torch.nn.Sequential) and len(parts)):
            continue
        if not _is_stacked(block, [list(part.parameters()) for part in parts]):
            continue
        for path in layers:
            rest = path.removeprefix(root)
            there = tuple(f"{root}.{i}{rest}" for i in range(len(parts)))
            if (path == root or path.startswith(f"{root}.")) and all(each in theirs for each in there):
                found[path] = there
    return found


def _is_stacked(block: Any, parts: list[list[torch.nn.Parameter]]) -> bool:
    """Whether ``block``, which is no list itself, may hold the parameters of all ``parts`` along its first axis.

    The parts are alike then, and it has no more arrays than one of them: else they stand in it side by side.
    """
    if not isinstance(block, nnx.Module) or isinstance(block, nnx.List | nnx.Sequential) or hasattr(block, "0"):
        return False
    _, params, others = split_arrays(block)
    arrays = [x for x in (params.arrays | others.arrays).values() if jnp.issubdtype(x.dtype, jnp.inexact)]
    if not arrays or not all(x.ndim and x.shape[0] == len(parts) for x in arrays):
        return False
    alike = len({tuple(x.shape for x in part) for part in parts}) == 1
    return alike and len(params.arrays) <= len(parts[0])
