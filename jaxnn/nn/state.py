"""A module's arrays under torch's names."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Shaped

from jaxnn.functional import ArgumentError
from jaxnn.nn.module import Buffer, children, variables


class IncompatibleKeys(NamedTuple):
    """What :func:`load_state_dict` did without: keys the mapping lacked, and keys the module has no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def state_dict(module: nnx.Module) -> dict[str, Shaped[Array, "..."]]:
    """Parameters, running statistics and buffers by dotted path, in torch's order.

    A shared variable stands under each of its paths, as in torch.

    Source: ``torch.nn.Module.state_dict``.
    """
    return {path: variable.get_value() for path, variable in named_variables(module)}


def named_parameters(module: nnx.Module) -> Iterator[tuple[str, nnx.Param]]:
    """Each parameter once, with its dotted path, in torch's order.

    Source: ``torch.nn.Module.named_parameters``.
    """
    seen: set[int] = set()
    for path, variable in named_variables(module):
        if isinstance(variable, nnx.Param) and id(variable) not in seen:
            seen.add(id(variable))
            yield path, variable


def load_state_dict(
    module: nnx.Module, mapping: Mapping[str, Shaped[ArrayLike, "..."]], strict: bool = True
) -> IncompatibleKeys:
    """Copy the arrays of ``mapping`` into ``module``, each in the dtype that the module has; all of them, or none.

    Args:
        module: changed in place.
        mapping: dotted path to array, as from :func:`state_dict` or ``parity.weights.load``.
        strict: also refuse missing and unexpected keys.

    Returns:
        The missing and the unexpected keys; both are empty unless ``strict`` is false.

    Raises:
        ArgumentError: an array has the wrong shape or, with ``strict``, keys are missing or unexpected. All of them are
            listed, and the module is as it was.

    Source: ``torch.nn.Module.load_state_dict``.
    """
    targets = dict(named_variables(module))
    missing = [path for path in targets if path not in mapping]
    unexpected = [path for path in mapping if path not in targets]
    faults = []
    if strict and missing:
        faults.append(f"missing keys: {', '.join(missing)}")
    if strict and unexpected:
        faults.append(f"unexpected keys: {', '.join(unexpected)}")
    for path, variable in targets.items():
        if path in mapping and jnp.shape(mapping[path]) != variable.get_value().shape:
            faults.append(f"{path} must have shape {variable.get_value().shape}, got {jnp.shape(mapping[path])}")
    if faults:
        raise ArgumentError(f"load_state_dict: {type(module).__name__} is left as it was; " + "; ".join(faults))
    # A copy: an array that shares its memory with torch's would change when torch trains on.
    arrays = {
        path: _copy(mapping[path], variable.get_value().dtype) for path, variable in targets.items() if path in mapping
    }
    for path, array in arrays.items():
        targets[path].set_value(array)
    return IncompatibleKeys(missing, unexpected)


def _copy(array: ArrayLike, dtype: Any) -> Array:
    # jax.numpy.array would compile a program for every new shape.
    return jax.device_put(np.array(array, dtype)) if isinstance(array, np.ndarray) else jnp.array(array, dtype)


def named_variables(module: object, prefix: str = "") -> Iterator[tuple[str, nnx.Variable]]:
    """What ``state_dict`` holds: a module's parameters, its statistics and buffers, then its children's."""
    own = list(variables(module))
    for kinds in (nnx.Param, (nnx.BatchStat, Buffer)):
        yield from ((prefix + name, variable) for name, variable in own if isinstance(variable, kinds))
    for name, child in children(module):
        yield from named_variables(child, f"{prefix}{name}.")


class FlatState(NamedTuple):
    """A part of a module's state as plain arrays, and the way back.

    Attributes:
        arrays: by dotted path; a shared array stands once, under the first of its paths in torch's order.
        treedef: the structure of the ``nnx.State``.
    """

    arrays: dict[str, Array]
    treedef: Any

    def state(self, arrays: Mapping[str, Array]) -> nnx.State:
        """The ``nnx.State`` with ``arrays`` in place of this one's."""
        return jax.tree.unflatten(self.treedef, [arrays[name] for name in self.arrays])


def split_arrays(module: nnx.Module) -> tuple[nnx.GraphDef, FlatState, FlatState]:
    """The graph of ``module``, its parameters, and all else it holds: ``nnx.split`` into dicts that flatten fast."""
    first: dict[int, str] = {}
    names = {path: first.setdefault(id(variable), path) for path, variable in named_variables(module)}
    graphdef, *states = nnx.split(module, nnx.Param, ...)
    parts = []
    for state in states:
        leaves, treedef = jax.tree.flatten_with_path(state)
        paths = [".".join(str(key.key) for key in path if hasattr(key, "key")) for path, _ in leaves]
        arrays = {names.get(path, path): leaf for path, (_, leaf) in zip(paths, leaves, strict=True)}
        parts.append(FlatState(arrays, treedef))
    return graphdef, parts[0], parts[1]
