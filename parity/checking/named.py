"""The subjects of a check by name, as the command line gives them."""

import copy
import importlib
import importlib.util
import inspect
import sys
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


class SubjectError(ValueError):
    """A name that leads to nothing that can be checked."""


def found(name: str) -> Any:
    """What ``package.module:callable`` or ``path/file.py:callable`` names; that module alone is imported.

    Raises:
        SubjectError: there is no such file, module or attribute, or importing it fails.
    """
    source, colon, attribute = name.rpartition(":")
    if not colon or not source or not attribute:
        raise SubjectError(f"{name!r} must be package.module:callable or path/file.py:callable")
    try:
        module = _from_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except Exception as error:
        raise SubjectError(f"importing {source} fails: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(module, part):
            raise SubjectError(f"{source} has no {attribute!r}")
        module = getattr(module, part)
    if not callable(module):
        raise SubjectError(f"{name} is {type(module).__name__}, which cannot be called")
    return module


def built(subject: Any, name: str) -> Subject:
    """A module: ``subject`` itself, or what it makes when called without arguments (or with ``rngs`` alone).

    A function that needs arguments is the subject itself.
    """
    if isinstance(subject, torch.nn.Module | nnx.Module):
        return subject
    try:
        parameters = inspect.signature(subject).parameters.values()
    except ValueError:
        return subject
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if set(needed) - {"rngs"}:
        if isinstance(subject, type):
            raise SubjectError(f"{name} needs arguments {', '.join(needed)}; name a function that makes the module")
        return subject
    try:
        return subject(**({"rngs": nnx.Rngs(0)} if any(p.name == "rngs" for p in parameters) else {}))
    except Exception as error:
        raise SubjectError(f"calling {name} fails: {type(error).__name__}: {error}") from error


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
        raise SubjectError(f"a shape must be whole numbers such as 1,3,224,224, got {', '.join(shapes)}") from None
    if any(n < 0 for size in sizes for n in size):
        raise SubjectError(f"a shape must have no negative sizes, got {', '.join(shapes)}")
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
        SubjectError: it does not; with torch's reason.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(subject)(*map(as_tensor, args))
        except Exception as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in args)
            raise SubjectError(f"torch refuses the inputs {shapes}: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _laid(pair: Any) -> np.ndarray:
    return pair.layout.from_torch(pair.theirs)
