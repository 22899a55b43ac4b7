"""The jaxnn twin of a torch layer, hyperparameters and weights included."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.utils.parametrizations as torch_parametrizations
from flax import nnx

from jaxnn import functional, nn
from jaxnn.nn.utils import parametrizations
from parity import weights
from parity.arrays import to_jax

Torch = Any


class MirrorError(TypeError):
    """A module of a class that jaxnn does not have."""


def mirror(torch_module: torch.nn.Module) -> nnx.Module:
    """The jaxnn layer, or container of layers, that does what ``torch_module`` does; mode and weights included.

    Shared parameters stay shared. A lazy layer must have seen its first input.

    Args:
        torch_module: a layer of ``torch.nn``, or a ``Sequential``, ``ModuleList`` or ``ModuleDict`` of them, nested as
            you like, or a ``ParameterList`` or ``ParameterDict``; read, not changed.

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
    if torch.nn.utils.parametrize.is_parametrized(module):
        return _parametrized(module, path)
    kind = type(module)
    if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
        raise MirrorError(f"mirror: {_named(path, kind)} has not seen an input yet; call it once, then mirror it")
    twin = getattr(nn, kind.__name__, None) if getattr(torch.nn, kind.__name__, None) is kind else None
    if twin is None:
        raise MirrorError(
            f"mirror: {_named(path, kind)} is not a layer of torch.nn that jaxnn has; "
            "parity.port writes the JAX source of any module"
        )
    if kind.__name__ in _PARTS:
        parts = {name: _part(getattr(module, name), f"{path}.{name}", known) for name in _PARTS[kind.__name__]}
        return _composed(module, twin, parts)
    if isinstance(module, torch.nn.ParameterList | torch.nn.ParameterDict):
        held = weights.load(module)
        if len(held) != len(module):
            raise MirrorError(f"mirror: {_named(path, kind)} holds more than parameters, which jaxnn's cannot")
        return twin(held.values()) if kind is torch.nn.ParameterList else twin(held.items())
    if kind not in (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict):
        return twin(**arguments(module, twin))
    # named_children would leave out a module's second place.
    children = {
        name: _built(child, f"{path}.{name}".lstrip("."), known)
        for name, child in module._modules.items()
        if child is not None
    }
    return twin(children.values()) if kind is torch.nn.ModuleList else twin(children)


_PARTS = {
    "Transformer": ("encoder", "decoder"),
    "TransformerEncoder": ("layers", "norm"),
    "TransformerDecoder": ("layers", "norm"),
}
"""The children of a layer that its user may have built."""


def _part(child: torch.nn.Module | None, path: str, known: dict[int, nnx.Module]) -> nnx.Module | None:
    return None if child is None else _built(child, path.lstrip("."), known)


def _composed(module: Torch, twin: type[Any], parts: dict[str, Any]) -> nnx.Module:
    if twin is nn.Transformer:
        return twin(
            module.d_model,
            module.nhead,
            custom_encoder=parts["encoder"],
            custom_decoder=parts["decoder"],
            batch_first=module.batch_first,
            rngs=nnx.Rngs(0),
        )
    stack = twin(parts["layers"][0], 0, parts["norm"])
    stack.layers, stack.num_layers = parts["layers"], module.num_layers
    return stack


def _parametrized(module: Torch, path: str) -> nnx.Module:
    """The twin of a layer some of whose parameters are computed."""
    kind = torch.nn.utils.parametrize.type_before_parametrizations(module)
    twin_kind = getattr(nn, kind.__name__, None) if getattr(torch.nn, kind.__name__, None) is kind else None
    if twin_kind is None:
        raise MirrorError(f"mirror: {_named(path, kind)} is not a layer of torch.nn that jaxnn has")
    twin = twin_kind(**arguments(module, twin_kind))
    for name, computed in module.parametrizations.items():
        for parametrization in computed:
            again = PARAMETRIZATIONS.get(type(parametrization))
            if again is None:
                raise MirrorError(
                    f"mirror: {_named(f'{path}.parametrizations.{name}'.lstrip('.'), type(parametrization))} is not a "
                    "parametrization that jaxnn has; parity.port writes the JAX source of any module"
                )
            again(twin, name, parametrization)
    return twin


def arguments(module: torch.nn.Module, twin: type[nnx.Module]) -> dict[str, Any]:
    """The arguments with which ``twin`` is built like ``module``."""
    rngs = {"rngs": nnx.Rngs(0)} if "rngs" in inspect.signature(twin.__init__).parameters else {}
    return hyperparameters(module, twin) | rngs


def hyperparameters(module: torch.nn.Module, twin: type[nnx.Module]) -> dict[str, Any]:
    """The arguments but the random streams.

    Torch's layers keep what they were built with under the names of their constructors' parameters; the few that do not
    stand in ``RECOVERED``.
    """
    recovered: dict[str, Any] = {}
    for name in list(inspect.signature(twin.__init__).parameters)[1:]:
        if name in ("device", "size_average", "reduce", "rngs"):
            continue
        if name == "dtype":
            recovered[name] = next((to_jax(p.dtype) for p in module.parameters()), None)
        elif (type(module).__name__, name) in RECOVERED:
            recovered[name] = RECOVERED[type(module).__name__, name](module)
        elif name == "bias":
            bias = getattr(module, "bias", None)
            recovered[name] = bias if isinstance(bias, bool) else bias is not None
        elif hasattr(module, name):
            recovered[name] = counterpart(getattr(module, name))
    return recovered


def counterpart(found: Any) -> Any:
    """A layer, function, option, dtype or tensor of torch's as jaxnn has it; anything else as it is."""
    if isinstance(found, torch.nn.Module):
        return mirror(found)
    kind = type(found)
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        options = kind.__module__.startswith("torch.nn") and getattr(nn, kind.__name__, None)
        return options(**dataclasses.asdict(found)) if options else found
    if callable(found) and getattr(found, "__module__", "").startswith("torch"):
        return getattr(functional, found.__name__, found)
    return to_jax(found)


PARAMETRIZATIONS: dict[type, Callable[[Any, str, Torch], Any]] = {
    torch_parametrizations._WeightNorm: lambda twin, name, p: parametrizations.weight_norm(twin, name, p.dim),
    torch_parametrizations._SpectralNorm: lambda twin, name, p: parametrizations.spectral_norm(
        twin, name, getattr(p, "n_power_iterations", 1), p.eps, p.dim, rngs=nnx.Rngs(0)
    ),
    torch_parametrizations._Orthogonal: lambda twin, name, p: parametrizations.orthogonal(
        twin, name, p.orthogonal_map.name, use_trivialization=hasattr(p, "base"), rngs=nnx.Rngs(0)
    ),
}

RECOVERED: dict[tuple[str, str], Callable[[Torch], Any]] = {
    ("AdaptiveLogSoftmaxWithLoss", "cutoffs"): lambda module: module.cutoffs[:-1],
    ("Embedding", "_freeze"): lambda module: not module.weight.requires_grad,
    ("LinearCrossEntropyLoss", "bias"): lambda module: module.linear.bias is not None,
    ("LinearCrossEntropyLoss", "in_features"): lambda module: module.linear.in_features,
    ("MultiheadAttention", "add_bias_kv"): lambda module: module.bias_k is not None,
    ("MultiheadAttention", "bias"): lambda module: module.in_proj_bias is not None,
    ("MultiheadAttention", "kdim"): lambda module: None if module._qkv_same_embed_dim else module.kdim,
    ("MultiheadAttention", "vdim"): lambda module: None if module._qkv_same_embed_dim else module.vdim,
    ("PairwiseDistance", "p"): lambda module: module.norm,
} | {
    (kind, name): recover
    for kind in ("TransformerEncoderLayer", "TransformerDecoderLayer")
    for name, recover in {
        "batch_first": lambda module: module.self_attn.batch_first,
        "bias": lambda module: module.linear1.bias is not None,
        "d_model": lambda module: module.self_attn.embed_dim,
        "dim_feedforward": lambda module: module.linear1.out_features,
        "dropout": lambda module: module.dropout.p,
        "layer_norm_eps": lambda module: module.norm1.eps,
        "nhead": lambda module: module.self_attn.num_heads,
    }.items()
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
