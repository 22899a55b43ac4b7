"""The leaves of arguments and results of either side, by one order and one kind of name."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch.utils import _pytree as torch_tree


def flattened(tree: Any) -> tuple[list[str], list[Any], Callable[[list[Any]], Any]]:
    """Names and leaves, dicts in their own order, and what puts leaves together again.

    ``jax.tree`` would sort the keys of dicts, torch does not; containers that only JAX knows are opened too. A name is
    the way to the leaf without its punctuation, so that a dict and a dataclass of the same entries agree.
    """
    if isinstance(tree, _ARRAYS):
        return [""], [tree], lambda new: new[0]
    if type(tree) is tuple and len(tree) == 2 and type(tree[1]) is dict and not tree[1] and _is_row(tree[0]):
        return [f"0.{i}" for i in range(len(tree[0]))], list(tree[0]), lambda new: (tuple(new), {})
    outer, spec = torch_tree.tree_flatten_with_path(tree)
    names: list[str] = []
    leaves: list[Any] = []
    inner: list[tuple[Any, int]] = []
    for path, part in outer:
        found, inner_spec = jax.tree_util.tree_flatten_with_path(part)
        inner.append((inner_spec, len(found)))
        names += [plain(torch_tree.keystr(path) + jax.tree_util.keystr(rest)) for rest, _ in found]
        leaves += [leaf for _, leaf in found]

    def rebuilt(new: list[Any]) -> Any:
        remaining = iter(new)
        parts = [inner_spec.unflatten([next(remaining) for _ in range(count)]) for inner_spec, count in inner]
        return torch_tree.tree_unflatten(parts, spec)

    return names, leaves, rebuilt


_ARRAYS = (torch.Tensor, jax.Array, np.ndarray)


def _is_row(x: Any) -> bool:
    return type(x) is tuple and all(isinstance(each, _ARRAYS) for each in x)


def parameter_names(function: Callable[..., Any], names: list[str]) -> list[str]:
    """``names`` of the leaves of ``(args, kwargs)`` by the parameters of ``function`` that they are given to."""
    parameters = _positional(getattr(function, "__func__", function))[inspect.ismethod(function) :]

    def renamed(name: str) -> str:
        side, *rest = name.split(".")
        if side == "0" and int(rest[0]) < len(parameters):
            rest[0] = parameters[int(rest[0])]
        return "_".join(rest)

    return [renamed(name) for name in names]


@functools.lru_cache(maxsize=256)
def _positional(function: Callable[..., Any]) -> list[str]:
    try:
        return [p.name for p in inspect.signature(function).parameters.values() if p.kind in _POSITIONAL]
    except (TypeError, ValueError):
        return []


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def by_name(names: list[str], leaves: list[Any], wanted: list[str]) -> list[Any]:
    """``leaves`` in the order of ``wanted`` where their names are the same, else as they are."""
    if len(set(names)) != len(names) or set(names) != set(wanted):
        return leaves
    return [leaves[names.index(name)] for name in wanted]


def with_paths(output: Any) -> list[tuple[Any, Any]]:
    """What a result holds, each with its path; by number where a class is registered without names of its parts."""
    try:
        return torch_tree.tree_flatten_with_path(output)[0]
    except ValueError:
        return [((torch_tree.SequenceKey(i),), x) for i, x in enumerate(torch_tree.tree_leaves(output))]


def plain(path: str) -> str:
    """The way to a leaf without punctuation: ``logits.0`` for ``['logits'][0]``."""
    return ".".join(re.findall(r"\w+", path))
