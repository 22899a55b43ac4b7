"""Modules made of parameters."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxnn.nn.module import Module, variables


class _Parameters(Module):
    """Parameters under the names they are given, in order; an array becomes a parameter."""

    def _set(self, name: str, parameter: Any) -> None:
        if isinstance(parameter, jax.Array | np.ndarray):
            parameter = nnx.Param(jnp.asarray(parameter))
        if not isinstance(parameter, nnx.Param):
            raise TypeError(
                f"{type(self).__name__}: {name} must be a parameter or an array, got {type(parameter).__name__}"
            )
        setattr(self, name, parameter)

    def _held(self) -> dict[str, nnx.Param]:
        return {name: parameter for name, parameter in variables(self) if isinstance(parameter, nnx.Param)}

    def _kind(self, parameter: nnx.Param) -> str:
        """What the printed form calls the parameter's dtype."""
        return f"torch.{parameter.get_value().dtype}"

    def __len__(self) -> int:
        return len(self._held())

    def extra_repr(self) -> str:
        """Each parameter's dtype and shape, a line each."""
        return "\n".join(
            f"  ({name}): Parameter containing: [{self._kind(parameter)} of size {'x'.join(map(str, parameter.shape))}]"
            for name, parameter in self._held().items()
        )

    def __repr__(self) -> str:
        extra = self.extra_repr()
        if "\n" in extra:
            extra = "\n  " + extra.replace("\n", "\n  ") + "\n"
        return f"{type(self).__name__}({extra})"


class ParameterList(_Parameters):
    """A list of parameters; the first stands under the path ``0``, the next under ``1``.

    Args:
        values: parameters or arrays.

    Raises:
        TypeError: a value is neither a parameter nor an array, or ``values`` is an array itself.

    Source: ``torch.nn.ParameterList``.
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        if values is not None:
            self.extend(values)

    def _name(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"ParameterList: index {index} is out of range for {len(self)} parameters")
        return str(index % len(self))

    def __iter__(self) -> Iterator[nnx.Param]:
        return iter(self._held().values())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return ParameterList(list(self)[index])
        return getattr(self, self._name(index))

    def __setitem__(self, index: int, parameter: Any) -> None:
        self._set(self._name(index), parameter)

    def __iadd__(self, values: Iterable[Any]) -> "ParameterList":
        return self.extend(values)

    def append(self, value: Any) -> "ParameterList":
        """Add ``value`` at the end."""
        self._set(str(len(self)), value)
        return self

    def extend(self, values: Iterable[Any]) -> "ParameterList":
        """Add ``values`` at the end."""
        if not isinstance(values, Iterable) or isinstance(values, jax.Array | np.ndarray | nnx.Variable):
            raise TypeError(f"ParameterList: values must be an iterable of parameters, got {type(values).__name__}")
        for value in values:
            self.append(value)
        return self


class ParameterDict(_Parameters):
    """Parameters by name.

    Args:
        parameters: name to parameter or array, or pairs of them. Like torch, a plain dict is taken in the order of its
            sorted keys; an ``OrderedDict``, a ``ParameterDict`` and pairs in their own.

    Raises:
        TypeError: a value is neither a parameter nor an array, or a key is not a string.
        KeyError: a key is the name of a method, is empty or holds a dot.

    Source: ``torch.nn.ParameterDict``.
    """

    def __init__(self, parameters: Any = None) -> None:
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        return self._held()[key]

    def __setitem__(self, key: str, parameter: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"ParameterDict: a key must be a string, got {type(key).__name__}")
        if not key or "." in key or hasattr(type(self), key):
            raise KeyError(f"ParameterDict: a key must be no method's name, not empty and without dots, got {key!r}")
        self._set(key, parameter)

    def __delitem__(self, key: str) -> None:
        self[key]  # a KeyError where there is none
        delattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in self._held()

    def __iter__(self) -> Iterator[str]:
        return iter(self._held())

    def keys(self) -> list[str]:
        """The names, in order."""
        return list(self._held())

    def values(self) -> list[nnx.Param]:
        """The parameters, in order."""
        return list(self._held().values())

    def items(self) -> list[tuple[str, nnx.Param]]:
        """Names and parameters, in order."""
        return list(self._held().items())

    def get(self, key: str, default: Any = None) -> Any:
        """The parameter under ``key``, else ``default``."""
        return self._held().get(key, default)

    def pop(self, key: str) -> nnx.Param:
        """Take the parameter under ``key`` out."""
        parameter = self[key]
        del self[key]
        return parameter

    def update(self, parameters: Any) -> None:
        """Set the parameters of a mapping or of pairs; new names stand at the end."""
        if isinstance(parameters, OrderedDict | ParameterDict):
            pairs = parameters.items()
        elif isinstance(parameters, Mapping):
            pairs = sorted(parameters.items(), key=lambda pair: pair[0])
        else:
            pairs = parameters
        for key, parameter in pairs:
            self[key] = parameter

    def _kind(self, parameter: nnx.Param) -> str:
        return f"torch.{_TENSORS.get(str(parameter.get_value().dtype), 'Tensor')}"


_TENSORS = {
    "float16": "HalfTensor",
    "bfloat16": "BFloat16Tensor",
    "float32": "FloatTensor",
    "float64": "DoubleTensor",
    "complex64": "ComplexFloatTensor",
    "complex128": "ComplexDoubleTensor",
}
"""Torch's older names of its tensors, which its printed dict of parameters still has."""
