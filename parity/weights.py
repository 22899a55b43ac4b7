"""Weights between torch and JAX: a flat dict of arrays by dotted path, read from and written to modules and files."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from flax import nnx

from jaxnn import nn
from parity.arrays import to_numpy, to_tensor

Arrays = dict[str, np.ndarray]
TORCH_SUFFIXES = (".pt", ".pth", ".bin")


class WeightsError(ValueError):
    """A file or an object that cannot be read as weights."""


def load(
    source: torch.nn.Module | nnx.Module | Mapping[str, Any] | str | os.PathLike[str], *, key: str | None = None
) -> Arrays:
    """The weights of ``source`` as arrays of their own, by dotted path, in the order they are stored.

    Args:
        source: a torch module, an NNX module, a ``state_dict``, or the path of a ``.pt`` / ``.pth`` / ``.bin`` or
            ``.safetensors`` file. A torch file is read with ``weights_only=True``: it can hold data only, and code in
            it is refused, not run.
        key: where a torch file holds more than weights, the entry that holds them (``"state_dict"``, say).

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is truncated, corrupt or of another kind, or holds something that is not an array.
    """
    if isinstance(source, torch.nn.Module):
        # What a module says of itself beside its tensors is no weight.
        tensors = {path: x for path, x in source.state_dict().items() if isinstance(x, torch.Tensor)}
        return _to_numpy(tensors, type(source).__name__)
    if isinstance(source, nnx.Module):
        return {path: np.array(array) for path, array in nn.state_dict(source).items()}
    if isinstance(source, Mapping):
        return _to_numpy(source, "the mapping")
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"weights.load: no file at {path}")
    if path.suffix == ".safetensors":
        try:
            return _to_numpy(safetensors.torch.load_file(path), str(path))
        except (safetensors.SafetensorError, OSError) as error:
            raise WeightsError(f"weights.load: {path} is not a whole .safetensors file: {error}") from error
    if path.suffix not in TORCH_SUFFIXES:
        raise WeightsError(f"weights.load: {path} must end in .safetensors, {' or '.join(TORCH_SUFFIXES)}")
    return _to_numpy(_selected(_read_torch(path), key, path), str(path))


def save(source: torch.nn.Module | nnx.Module | Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the weights of ``source`` to a ``.pt`` (``.pth``, ``.bin``) or ``.safetensors`` file, as torch would load
    them.

    The file appears whole or not at all.

    Raises:
        WeightsError: the name of ``path`` ends otherwise, or ``source`` holds something that is not an array.
    """
    path = Path(path)
    if path.suffix not in (*TORCH_SUFFIXES, ".safetensors"):
        raise WeightsError(f"weights.save: {path} must end in .safetensors, {' or '.join(TORCH_SUFFIXES)}")
    tensors = {name: to_tensor(array) for name, array in load(source).items()}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    os.close(descriptor)
    try:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(tensors, temporary)
        else:
            torch.save(tensors, temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _to_numpy(mapping: Mapping[str, Any], origin: str) -> Arrays:
    arrays = {}
    for name, value in mapping.items():
        if isinstance(value, torch.Tensor):
            arrays[name] = to_numpy(value)
        elif hasattr(value, "__array__"):
            arrays[name] = np.array(value)
        else:
            raise WeightsError(
                f"weights.load: {origin} must hold arrays by name, but {name!r} is of type {type(value).__name__}; "
                f"if the weights are under one of {sorted(map(str, mapping))}, say which with key="
            )
    return arrays


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways: zip, pickle, end of file, plain RuntimeError
        reason = str(error).split("\n")[0][:300] or type(error).__name__
        raise WeightsError(f"weights.load: {path} is not a file of weights alone, or is damaged: {reason}") from error


def _selected(content: Any, key: str | None, path: Path) -> Mapping[str, Any]:
    if key is not None and isinstance(content, Mapping):
        if key not in content:
            raise WeightsError(f"weights.load: {path} has no entry {key!r}, only {sorted(map(str, content))}")
        content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsError(f"weights.load: {path} must hold a dict of tensors, got {type(content).__name__}")
    return content


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
