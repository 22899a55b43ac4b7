"""What a check is given on the command line: weights, inputs, a dtype."""

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from parity import weights
from parity.arrays import to_jax
from parity.checking.evaluation import Subject, as_tensor
from parity.checking.pairing import aliases
from parity.checking.tree import aligned_paths
from parity.targets import TargetError


def carry_over(torch_module: torch.nn.Module, jax_module: Any, arrays: Mapping[str, np.ndarray] | None) -> str:
    """Give both sides the same weights, and say what was done.

    Args:
        torch_module: loaded with ``arrays``, if there are any.
        jax_module: loaded with them too; without, with torch's own, unless the two share numbers already: then the port
            has loaded its weights by itself, and just that is to be checked.
        arrays: from a file.
    """
    if arrays is not None:
        torch_module.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in arrays.items()})
    twins = aliases(torch_module, jax_module, aligned_paths(torch_module, jax_module))
    shared = any(
        pair.theirs.ndim and len(np.unique(pair.theirs)) > 1 and np.array_equal(pair.ours.ravel(), _laid(pair).ravel())
        for pair in twins.values()
    )
    if arrays is None and shared:
        return "weights as both sides have them"
    for pair in twins.values():
        if pair.theirs.size != pair.ours.size:
            raise weights.WeightsError(f"{pair.name} is {pair.theirs.shape} in torch, {pair.ours.shape} in JAX")
        pair.slot.set(_laid(pair))
    return "torch's weights carried over" if arrays is None else "both sides loaded from the file"


def inputs_from(path: Path, torch_subject: Subject) -> tuple[np.ndarray, ...]:
    """The arrays of a ``.npz`` file: in the order of the forward pass's parameters if they are named after
    these, else in the file's."""
    with np.load(path, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    forward = torch_subject.forward if isinstance(torch_subject, torch.nn.Module) else torch_subject
    try:
        known = set(inspect.signature(forward).parameters)
    except ValueError:
        known = set()
    if arrays.keys() <= known:
        return tuple(arrays[name] for name in inspect.signature(forward).parameters if name in arrays)
    return tuple(arrays.values())


def random_inputs(shapes: list[str]) -> tuple[np.ndarray, ...]:
    """Normal random arrays of shapes such as ``1,3,224,224``."""
    rng = np.random.default_rng(0)
    try:
        sizes = [tuple(int(n) for n in shape.split(",")) for shape in shapes]
    except ValueError:
        raise TargetError(f"a shape must be whole numbers such as 1,3,224,224, got {', '.join(shapes)}") from None
    if any(n < 0 for size in sizes for n in size):
        raise TargetError(f"a shape must have no negative sizes, got {', '.join(shapes)}")
    return tuple(rng.standard_normal(size).astype(np.float32) for size in sizes)


def cast(subject: Any, dtype: str) -> Any:
    """A module, or an array, with its floating-point numbers in ``dtype``; anything else as it is."""
    kind = getattr(torch, dtype)
    if isinstance(subject, torch.nn.Module):
        return subject.to(kind)
    if isinstance(subject, nnx.Module):
        for _, variable in nnx.to_flat_state(nnx.state(subject)):
            value = variable.get_value()
            if jnp.issubdtype(value.dtype, jnp.floating):
                variable.set_value(value.astype(to_jax(kind)))
        return subject
    if isinstance(subject, np.ndarray) and subject.dtype.kind == "f":
        return torch.from_numpy(subject).to(kind)
    return subject


def tried(subject: Subject, args: tuple[Any, ...]) -> None:
    """Whether torch takes these inputs at all.

    Raises:
        TargetError: it does not; with torch's reason.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(subject)(*map(as_tensor, args))
        except Exception as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in args)
            raise TargetError(f"torch refuses the inputs {shapes}: {type(error).__name__}: {error}") from error


def _laid(pair: Any) -> np.ndarray:
    return pair.layout.from_torch(pair.theirs)
