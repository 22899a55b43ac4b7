"""The first layer that is wrong although its inputs are right."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from flax import nnx
from torch.utils import _pytree as torch_tree

from parity.checking.evaluation import Call, TorchSide, as_tensor, evaluate_jax
from parity.checking.judgement import judged
from parity.comparison import Comparison
from parity.replay import Draws


@dataclass
class LayerCall:
    """The first call of one torch submodule: its inputs and the random tensors drawn while it ran."""

    arguments: Call
    first_draw: int
    last_draw: int = -1


def faulty_layers(
    torch_module: torch.nn.Module, jax_module: nnx.Module, side: TorchSide
) -> list[tuple[str, Comparison]]:
    """The layers whose output is wrong given torch's inputs, in the order torch calls them.

    Each torch layer's inputs are fed to the JAX layer of the same path, so that a bad layer does not accuse those
    behind it; a layer is named only if none of its own sublayers is.
    """
    calls = _recorded_calls(torch_module, side)
    faults: list[tuple[str, Comparison]] = []
    for path, call in calls.items():
        layer = _at(jax_module, path)
        if not callable(layer) or any(name.startswith(f"{path}.") for name, _ in faults):
            continue
        fed = _fed(torch_module.get_submodule(path), call, side)
        if fed is None:
            continue
        wrong = next(
            (row for row in judged(fed, evaluate_jax(layer, fed)) if row.kind == "output" and not row.passed), None
        )
        if wrong is not None:
            faults.append((path, wrong))
    return faults


def _fed(layer: torch.nn.Module, call: LayerCall, side: TorchSide) -> TorchSide | None:
    """The torch layer alone, on the inputs and draws it had in the whole; None where it cannot run alone."""
    with Draws(side.draws[call.first_draw : call.last_draw]):
        try:
            return TorchSide(layer, call.arguments, gradients=False)
        except Exception:
            return None


def _recorded_calls(module: torch.nn.Module, side: TorchSide) -> dict[str, LayerCall]:
    """The first call of every submodule, in the order in which they return: inner before outer, earlier before
    later."""
    module = copy.deepcopy(module)
    started: dict[str, LayerCall] = {}
    finished: dict[str, LayerCall] = {}
    draws = Draws(side.draws)

    def before(path: str) -> Any:
        def hook(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            started.setdefault(path, LayerCall(torch_tree.tree_map(as_tensor, (args, kwargs)), draws.position))

        return hook

    def after(path: str) -> Any:
        def hook(*_: Any) -> None:
            if path not in finished:
                started[path].last_draw = draws.position
                finished[path] = started[path]

        return hook

    for path, layer in module.named_modules():
        if path:
            layer.register_forward_pre_hook(before(path), with_kwargs=True)
            layer.register_forward_hook(after(path))
    with torch.no_grad(), draws:
        args, kwargs = side.call
        module(*args, **kwargs)
    return finished


def _at(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = module[int(name)] if isinstance(module, nnx.List) else getattr(module, name, None)
        if module is None:
            return None
    return module
