"""Modules and functions named on the command line."""

import importlib
import importlib.util
import inspect
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flax import nnx


class TargetError(ValueError):
    """A name that leads to nothing that can be run."""


def load_target(name: str) -> Any:
    """What ``package.module:callable`` or ``path/file.py:callable`` names; that module alone is imported.

    Raises:
        TargetError: there is no such file, module or attribute, or importing it fails.
    """
    source, colon, attribute = name.rpartition(":")
    if not colon or not source or not attribute:
        raise TargetError(f"{name!r} must be package.module:callable or path/file.py:callable")
    try:
        module = _from_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except Exception as error:
        raise TargetError(f"importing {source} fails: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(module, part):
            raise TargetError(f"{source} has no {attribute!r}")
        module = getattr(module, part)
    if not callable(module):
        raise TargetError(f"{name} is {type(module).__name__}, which cannot be called")
    return module


def built(subject: Any, name: str) -> Any:
    """A module: ``subject`` itself, or what it makes when called without arguments (or with ``rngs`` alone).

    A function that needs arguments is the subject itself.
    """
    if isinstance(subject, torch.nn.Module | nnx.Module):
        return subject
    try:
        # Of a class of nnx's, inspect would see the metaclass.
        called = partial(subject.__init__, None) if isinstance(subject, type) else subject  # type: ignore[misc]
        parameters = inspect.signature(called).parameters.values()
    except ValueError:
        return subject
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if set(needed) - {"rngs"}:
        if isinstance(subject, type):
            raise TargetError(f"{name} needs arguments {', '.join(needed)}; name a function that makes the module")
        return subject
    try:
        return subject(**({"rngs": nnx.Rngs(0)} if any(p.name == "rngs" for p in parameters) else {}))
    except Exception as error:
        raise TargetError(f"calling {name} fails: {type(error).__name__}: {error}") from error


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
