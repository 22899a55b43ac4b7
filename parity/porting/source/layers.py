"""The layers of torch.nn that stay layers, and the calls that construct them."""

import inspect
import keyword
from typing import Any

import numpy as np
import torch

from jaxnn import functional, nn
from parity.mirroring import hyperparameters
from parity.porting.errors import PortError
from parity.porting.operators.expression import constant, literal, optional, plain
from parity.porting.operators.operation import dtype_name

CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
_STACKS = (torch.nn.TransformerEncoder, torch.nn.TransformerDecoder)


def has_twin(module: torch.nn.Module) -> bool:
    """Whether jaxnn has this very layer, and nothing has been hooked onto it."""
    kind = _kind(module)
    if kind is torch.nn.Transformer:
        return False  # its encoder and decoder may be of any kind
    if isinstance(module, _STACKS) and not _is_stack(module):
        return False
    return _has_twin(kind) and not _is_hooked(module)


def ancestor(module: torch.nn.Module) -> type[torch.nn.Module] | None:
    """The layer of torch.nn that the module's class is derived from, where jaxnn has it too."""
    kind = next((kind for kind in type(module).__mro__[1:] if _has_twin(kind)), None)
    return None if _is_hooked(module) else kind


def _has_twin(kind: type) -> bool:
    name = kind.__name__
    same = getattr(torch.nn, name, None) is kind and hasattr(nn, name)
    return same and kind not in CONTAINERS and kind is not torch.nn.Module


def _is_hooked(module: torch.nn.Module) -> bool:
    return any((module._forward_pre_hooks, module._forward_hooks)) or hasattr(module, "parametrizations")


def _kind(module: torch.nn.Module) -> type[torch.nn.Module]:
    """The class of a layer; attention's output projection is a Linear under another name."""
    kind = type(module)
    return torch.nn.Linear if kind is torch.nn.modules.linear.NonDynamicallyQuantizableLinear else kind


def _is_stack(module: Any) -> bool:
    """Whether the layers of a stack are built alike, and what is around them too has a twin."""
    inner = [child for child in (*module.layers, module.norm) if child is not None]
    return all(map(has_twin, inner)) and len({plain(layer(child)) for child in module.layers}) == 1


def layer(module: torch.nn.Module) -> str:
    """The call that constructs a layer, arguments that are defaults left out.

    A module of a class derived from a layer's is built as that layer.
    """
    if isinstance(module, _STACKS):
        parts = [layer(module.layers[0]), constant(len(module.layers), "num_layers")]
        parts += [layer(module.norm)] if module.norm is not None else []
        return f"nn.{type(module).__name__}({', '.join(parts)})"
    kind = _kind(module) if _has_twin(_kind(module)) else ancestor(module)
    assert kind is not None
    layer_name = kind.__name__
    twin = getattr(nn, layer_name)
    parameters = inspect.signature(twin.__init__).parameters
    given = hyperparameters(module, twin)
    text, positional = "", True
    for name, parameter in list(parameters.items())[1:]:
        if name == "rngs":
            text += ", rngs=rngs"
            continue
        if name not in given or name == "inplace" or (name == "dtype" and str(given[name]) in ("float32", "None")):
            positional = positional and name not in given
            continue
        value, default = given[name], parameter.default
        brief = single(tuple(map(_number, value)) if isinstance(value, list | tuple) else _number(value))
        required = default is parameter.empty
        if not required and _equal(value, default):
            brief = default
        if not required and _is_simple(brief) and _is_simple(default):
            text += optional(name, literal(brief), literal(default))
        elif required or not _equal(brief, default):
            # A stride is told apart from a kernel size by its name, once it is not the next in line.
            held = getattr(module, name, None)
            written = zeros(held) if isinstance(held, torch.Tensor) else _literal(brief, name)
            text += f", {written}" if required and positional else f", {name}={written}"
        positional = positional and required
    return f"nn.{layer_name}({text.removeprefix(', ')})"


def _is_simple(value: Any) -> bool:
    """Whether instances of one class may differ in the value of an argument."""
    entries = value if isinstance(value, tuple) else (value,)
    return all(x is None or isinstance(x, bool | int | float | str) for x in entries)


def single(value: Any) -> Any:
    """One number for equal ones; anything else as it is."""
    if isinstance(value, list | tuple) and value and all(isinstance(v, int) and v == value[0] for v in value):
        return value[0]
    return value


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _literal(value: Any, name: str) -> str:
    if isinstance(value, bool | int | float):
        return constant(value, name)
    if value is None or isinstance(value, str):
        return literal(value)
    if isinstance(value, tuple) and all(isinstance(v, int | float) for v in value):
        return constant(value, name)
    if name == "dtype":
        return f"jnp.{value}"
    if callable(value) and getattr(functional, getattr(value, "__name__", ""), None) is value:
        return f"F.{value.__name__}"
    raise PortError(f"port: a layer's {name}={value!r} cannot be written")


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def zeros(tensor: torch.Tensor) -> str:
    """Zeros of the shape and dtype of ``tensor``, to be replaced by its values."""
    shape = ", ".join(constant(int(size), "dim") for size in tensor.shape) + ("," if tensor.ndim == 1 else "")
    name = dtype_name(tensor.dtype)
    dtype = "" if name == dtype_name(torch.float64) else f", {name}"
    return f"jnp.zeros(({shape}){dtype})"


def assignment(name: str, value: str, owner: str = "self") -> str:
    """``owner.name = value``, for any name."""
    if name.isidentifier() and not keyword.iskeyword(name):
        return f"{owner}.{name} = {value}"
    return f'setattr({owner}, "{name}", {value})'
