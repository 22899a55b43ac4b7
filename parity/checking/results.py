"""Results that are objects of the model's own, as containers of the arrays that they hold.

Neither torch nor JAX looks into an object whose class is not registered with it, such as a cache of keys and values.
"""

import dataclasses
import keyword
from collections import deque, namedtuple
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import jax
import numpy as np
import torch
from torch.utils import _pytree as torch_tree

_ARRAYS = (torch.Tensor, jax.Array, np.ndarray)
_SCALARS = (bool, int, float, complex, str, torch.SymInt, torch.SymFloat, torch.SymBool)
_LEAVES = (*_ARRAYS, *_SCALARS)
_CLOSED = (*_LEAVES, type, ModuleType, torch.nn.Module)


def contained(output: Any, met: dict[str, bool] | None = None) -> Any:
    """``output`` with named tuples for its objects: of those of their attributes that hold arrays.

    One that holds none is None. Objects whose classes have one name have the same fields.

    Args:
        output: what a model of either side returned.
        met: what is told the names of their classes, and whether they hold any array.
    """
    if all(_is_known(x) for x in torch_tree.tree_leaves(output)):
        return output
    fields: dict[str, dict[str, None]] = {}
    for x in torch_tree.tree_leaves(output):
        if not _holds(x, fields, ()) and met is not None and not isinstance(x, (*_LEAVES, type(None))):
            met[type(x).__name__] = False
    if met is not None:
        met |= dict.fromkeys(fields, True)
    return _written(output, {name: _maker(name, list(attributes)) for name, attributes in fields.items()}, ())


def _is_known(part: Any) -> bool:
    """Whether ``part`` is a leaf, or a container that JAX takes apart."""
    if part is None or isinstance(part, _LEAVES):
        return True
    return all(isinstance(x, (jax.Array, np.ndarray, *_SCALARS)) for x in jax.tree.leaves(part))


@contextmanager
def containing(module: torch.nn.Module, met: dict[str, bool]) -> Iterator[None]:
    """Lets ``module`` return no objects; ``met`` as above, and of the classes that torch knows how to take apart."""

    def opened(part: torch.nn.Module, args: Any, output: Any) -> Any:
        met.update(_registered(torch_tree.tree_structure(output)))
        return contained(output, met)

    handle = module.register_forward_hook(opened)
    try:
        yield
    finally:
        handle.remove()


def _registered(spec: Any) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for child in () if spec.type is None else spec.children():
        found |= _registered(child)
    keeps = isinstance(spec.type, type) and not issubclass(spec.type, tuple | list | Mapping | deque)
    if keeps and not dataclasses.is_dataclass(spec.type):
        found[spec.type.__name__] = spec.num_leaves > 0
    return found


def _holds(x: Any, fields: dict[str, dict[str, None]], above: tuple[int, ...]) -> bool:
    """Whether ``x`` holds arrays; those attributes that do are added to the ``fields`` of each class."""
    held = False
    for leaf in torch_tree.tree_leaves(x):
        if id(leaf) in above:
            continue
        inner = (*above, id(leaf))
        if isinstance(leaf, _ARRAYS):
            held = True
        elif isinstance(leaf, Mapping | list | tuple):  # of a class that is derived
            held |= _holds(_builtin(leaf), fields, inner)
        else:
            found = [name for name, part in _attributes(leaf).items() if _holds(part, fields, inner)]
            if found:
                fields.setdefault(type(leaf).__name__, {}).update(dict.fromkeys(found))
                held = True
    return held


def _written(x: Any, makers: dict[str, Callable[..., Any]], above: tuple[int, ...]) -> Any:
    def leaf(part: Any) -> Any:
        if part is None or isinstance(part, _LEAVES):
            return part
        if id(part) in above:
            return None
        inner = (*above, id(part))
        if isinstance(part, Mapping | list | tuple):
            return _written(_builtin(part), makers, inner)
        maker = makers.get(type(part).__name__)
        return maker and maker(_attributes(part), lambda value: _written(value, makers, inner))

    return torch_tree.tree_map(leaf, x)


def _builtin(x: Any) -> Any:
    return dict(x) if isinstance(x, Mapping) else list(x) if isinstance(x, list) else tuple(x)


def _attributes(x: Any) -> dict[str, Any]:
    if isinstance(x, _CLOSED):
        return {}
    if dataclasses.is_dataclass(x):
        return {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
    return vars(x) if hasattr(x, "__dict__") else {}


def _maker(name: str, attributes: list[str]) -> Callable[..., Any]:
    """What makes a named tuple of an object's attributes, or a dict where they or the class have no names for it."""
    fields = [attribute.lstrip("_") for attribute in attributes]
    valid = all(field.isidentifier() and not keyword.iskeyword(field) for field in (*fields, name))
    named = valid and len({*fields}) == len(fields)
    kind = _named_tuple(name, fields) if named else dict

    def made(held: dict[str, Any], inner: Callable[[Any], Any]) -> Any:
        names = fields if named else attributes
        return kind(**{field: inner(held.get(key)) for field, key in zip(names, attributes, strict=True)})

    return made


def _named_tuple(name: str, fields: list[str]) -> Callable[..., Any]:
    kind = namedtuple(name, fields)  # type: ignore[misc]
    kind.__doc__ = f"What the original's {name} holds."
    return kind
