"""The jaxnn twin of a torch layer, hyperparameters and weights included."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from flax import nnx

from jaxnn import nn
from parity import weights
from parity.arrays import to_jax

Torch = Any


class MirrorError(TypeError):
    """A module of a class that jaxnn does not have."""


def mirror(torch_module: torch.nn.Module) -> nnx.Module:
    """The jaxnn layer, or container of layers, that does what ``torch_module`` does; mode and weights included.

    Shared parameters stay shared. A lazy layer must have seen its first input.

    Args:
        torch_module: a layer of ``torch.nn`` or a ``Sequential``, ``ModuleList`` or ``ModuleDict`` of them, nested as
        you
            like; read, not changed.

    Raises:
        MirrorError: it is, or holds, a module of another class: its path and class are named.
    """
    twin = _built(torch_module, "", {})
    _share(torch_module, twin)
    nn.load_state_dict(twin, weights.load(torch_module))
    _set_modes(torch_module, twin)
    return twin


def _built(module: torch.nn.Module, path: str, known: dict[int, nnx.Module]) -> nnx.Module:
    """The twin of ``module`` with weights of its own; a module met before gives the same twin again."""
    if id(module) not in known:
        known[id(module)] = _new(module, path, known)
    return known[id(module)]


def _new(module: torch.nn.Module, path: str, known: dict[int, nnx.Module]) -> nnx.Module:
    kind = type(module)
    if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
        raise MirrorError(f"mirror: {_named(path, kind)} has not seen an input yet; call it once, then mirror it")
    twin = getattr(nn, kind.__name__, None) if getattr(torch.nn, kind.__name__, None) is kind else None
    if twin is None:
        raise MirrorError(
            f"mirror: {_named(path, kind)} is not a layer of torch.nn that jaxnn has; "
            "parity.port writes the JAX source of any module"
        )
    if kind not in (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict):
        return twin(**arguments(module, twin))
    # named_children would leave out a module's second place.
    children = {
        name: _built(child, f"{path}.{name}".lstrip("."), known)
        for name, child in module._modules.items()
        if child is not None
    }
    return twin(children.values()) if kind is torch.nn.ModuleList else twin(children)


def arguments(module: torch.nn.Module, twin: type[nnx.Module]) -> dict[str, Any]:
    """The arguments with which ``twin`` is built like ``module``.

    Torch's layers keep what they were built with under the names of their constructors' parameters; the few that do not
    stand in ``RECOVERED``.
    """
    recovered: dict[str, Any] = {}
    for name in list(inspect.signature(twin.__init__).parameters)[1:]:
        if name in ("device", "size_average", "reduce"):
            continue
        if name == "rngs":
            recovered[name] = nnx.Rngs(0)
        elif name == "dtype":
            recovered[name] = next((to_jax(p.dtype) for p in module.parameters()), None)
        elif (type(module).__name__, name) in RECOVERED:
            recovered[name] = RECOVERED[type(module).__name__, name](module)
        elif name == "bias":
            bias = getattr(module, "bias", None)
            recovered[name] = bias if isinstance(bias, bool) else bias is not None
        elif hasattr(module, name):
            recovered[name] = to_jax(getattr(module, name))
    return recovered


RECOVERED: dict[tuple[str, str], Callable[[Torch], Any]] = {
    ("AdaptiveLogSoftmaxWithLoss", "cutoffs"): lambda module: module.cutoffs[:-1],
    ("Embedding", "_freeze"): lambda module: not module.weight.requires_grad,
    ("LinearCrossEntropyLoss", "bias"): lambda module: module.linear.bias is not None,
    ("LinearCrossEntropyLoss", "in_features"): lambda module: module.linear.in_features,
    ("PairwiseDistance", "p"): lambda module: module.norm,
}


def _share(torch_module: torch.nn.Module, twin: nnx.Module) -> None:
    """Make one variable of what is one parameter in torch."""
    first: dict[int, str] = {}
    for path, parameter in torch_module.named_parameters(remove_duplicate=False):
        original = first.setdefault(id(parameter), path)
        if original != path:
            parent, _, name = path.rpartition(".")
            setattr(
                _at(twin, parent), name, getattr(_at(twin, original.rpartition(".")[0]), original.rpartition(".")[2])
            )


def _set_modes(torch_module: torch.nn.Module, twin: nnx.Module) -> None:
    for path, module in torch_module.named_modules():
        layer = _at(twin, path)
        for attribute in ("deterministic", "use_running_average"):
            if hasattr(layer, attribute):
                setattr(layer, attribute, not module.training)


def _at(module: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        module = getattr(module, name)
    return module


def _named(path: str, kind: type) -> str:
    return f"{path or 'the module'} ({kind.__module__}.{kind.__qualname__})"
