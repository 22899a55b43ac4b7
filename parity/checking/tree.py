"""The layers of a port by dotted path, and which of torch's each stands for."""

import copy
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import torch
from flax import nnx

from jaxnn.nn.module import children as nnx_children
from parity.checking.stacking import stacked_paths

TAG = "parity_tag"

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Tag:
    """A layer's path in torch, or those of the layers that are stacked in it.

    No two are equal, so that what was compiled with others is traced anew, and seen.
    """

    paths: tuple[str, ...]


def by_class(test: Callable[[Any], T]) -> Callable[[Any], T]:
    """What is said of classes, asked once of each."""
    return functools.lru_cache(maxsize=1024)(test)


def jax_layers(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every callable layer under ``module`` with its dotted path, outer before inner, each object once.

    A layer is an ``nnx.Module``, or an object of a class of the user's own that can be called.
    """
    seen: set[int] = set()

    def walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
        if id(node) in seen:
            return
        seen.add(id(node))
        if _is_layer(node):
            yield path, node
        for name, child in children(node):
            yield from walk(child, f"{path}.{name}" if path else name)

    yield from walk(module, prefix)


def aligned_paths(torch_module: torch.nn.Module, jax_module: Any) -> dict[str, str]:
    """From the path of a layer in JAX to that of its twin in torch.

    Equal paths belong together; what is left over, if its path differs in case and punctuation only
    (``blocks_0.Conv1`` for ``blocks.0.conv1``), or in the name of the list that flax's own sequence keeps its layers in
    (``body.layers.0`` for ``body.0``).
    """
    modules = dict(torch_module.named_modules())
    theirs = [*modules]
    layers = dict(jax_layers(jax_module))
    stacked = stacked_paths(torch_module, layers)
    ours = [path for path in layers if path not in stacked]
    pairs = {path: path for path in ours if path in set(theirs)}
    rest: dict[str, list[str]] = {}
    for path in theirs:
        if path not in pairs:
            rest.setdefault(_plain(path), []).append(path)
    sequences = [
        path
        for path, layer in layers.items()
        if isinstance(layer, nnx.Sequential)
        and path in modules
        and len([*modules[path].children()]) == len(layer.layers)
    ]
    for path in ours:
        shown = path
        for sequence in reversed(sequences):
            shown = re.sub(rf"^{re.escape(sequence)}\.?layers\.", f"{sequence}.", shown)
        candidates = rest.get(_plain(shown), [])
        if path not in pairs and len(candidates) == 1 and candidates[0] not in pairs.values():
            pairs[path] = candidates[0]
    return pairs


def copy_of(module: Any) -> Any:
    """A copy that keeps its own statistics."""
    return nnx.clone(module) if isinstance(module, nnx.Module) else copy.deepcopy(module)


def tagged(module: Any, pairs: dict[str, str], stacked: dict[str, tuple[str, ...]] | None = None) -> Any:
    """A copy of ``module`` in which every layer that has a twin knows its path in torch.

    The tag is part of the graph, so that it outlives ``nnx.split`` and ``nnx.merge`` in the user's own code.
    """
    module = copy_of(module)
    paths = {path: (theirs,) for path, theirs in pairs.items()} | (stacked or {})
    for path, layer in list(jax_layers(module)):
        if path in paths:
            object.__setattr__(layer, TAG, Tag(paths[path]))
    return module


@contextmanager
def tagging(layers: list[tuple[str, Any]], pairs: dict[str, str]) -> Iterator[None]:
    """Within it these layers themselves, and what is cloned from them, are tagged."""
    tags = [(layer, Tag((pairs[path],))) for path, layer in layers if path in pairs]
    for layer, tag in tags:
        object.__setattr__(layer, TAG, tag)
    try:
        yield
    finally:
        for layer, _ in tags:
            object.__delattr__(layer, TAG)


def submodule(module: Any, path: str) -> Any:
    """The part of ``module`` at ``path``, or None where there is none."""
    for name in path.split(".") if path else ():
        module = dict(children(module)).get(name)
        if module is None:
            return None
    return module


def _is_layer(node: Any) -> bool:
    return _is_kind_of_layer(type(node))


@by_class
def _is_kind_of_layer(kind: Any) -> bool:
    called = any("__call__" in vars(base) for base in kind.__mro__)
    if issubclass(kind, nnx.Module):
        return called
    return called and not _of_library(kind) and not issubclass(kind, type | nnx.Variable | nnx.Rngs | jax.Array)


def children(node: Any) -> Iterator[tuple[str, Any]]:
    """What ``node`` holds that may be a layer or hold layers, by name."""
    if _is_of_nnx(type(node)):
        yield from nnx_children(node)
        members = vars(node)
    elif isinstance(node, list | tuple):
        members = {str(i): value for i, value in enumerate(node)}
    elif isinstance(node, dict):
        members = node
    elif is_own(type(node)):
        members = vars(node)
    else:
        return
    for name, value in members.items():
        if _may_hold(type(value)):
            yield str(name), value


@by_class
def _is_of_nnx(kind: Any) -> bool:
    return issubclass(kind, nnx.Module | nnx.List | nnx.Dict)


@by_class
def _may_hold(kind: Any) -> bool:
    return issubclass(kind, list | tuple | dict) or is_own(kind)


@by_class
def is_own(kind: Any) -> bool:
    """Whether ``kind`` is a class written in Python whose instances may hold layers."""
    own = "__call__" in vars(kind) and not _of_library(kind) and not issubclass(kind, nnx.Module)
    return bool(kind.__dictoffset__) and own


def _of_library(kind: Any) -> bool:
    """Whether instances of ``kind`` are what others made: a function, one that is compiled, an array."""
    return kind.__module__.split(".")[0] in ("jax", "jaxlib", "flax", "numpy", "builtins", "functools", "optax")


def _plain(path: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", path.lower())
