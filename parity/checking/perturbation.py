"""A model and its arguments elsewhere than they stand: in float64, and as far away as rounding may move them."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as torch_tree

from parity.checking.tree import by_class


def is_smooth(x: Any) -> bool:
    """Whether ``x`` is a tensor that has gradients."""
    return isinstance(x, torch.Tensor) and (x.is_floating_point() or x.is_complex())


def own(x: Any) -> Any:
    """A tensor's numbers in memory of their own; what is none as it is."""
    return x.detach().clone() if isinstance(x, torch.Tensor) else x


def copied(
    module: torch.nn.Module, tensor: Callable[[torch.Tensor], torch.Tensor] = torch.clone, *, shared: bool = False
) -> torch.nn.Module:
    """A deep copy whose parameters and buffers are what ``tensor`` makes of the original's.

    With ``shared`` its parameters have the original's memory.

    ``copy.deepcopy`` would look at every empty dict of hooks, and copy numbers only to have them replaced.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        if type(parameter) is torch.nn.Parameter:
            here = parameter.detach()
            memo[id(parameter)] = torch.nn.Parameter(here if shared else tensor(here), parameter.requires_grad)
    for buffer in module.buffers():
        if type(buffer) is torch.Tensor:
            memo[id(buffer)] = tensor(buffer.detach())
    plain = [layer for layer in module.modules() if not _copies_itself(type(layer))]
    for layer in plain:
        memo[id(layer)] = object.__new__(type(layer))
        # What torch.nn.utils.weight_norm keeps on a module is computed, and torch copies no such tensor.
        computed = [x for x in vars(layer).values() if isinstance(x, torch.Tensor) and not x.is_leaf]
        memo |= {id(x): x.detach().clone() for x in computed}
    for layer in reversed(plain):  # what is inside first: who copies itself may look at its copy
        state = {
            name: value if type(value) in _PLAIN else _copy_of(name, value, memo) for name, value in vars(layer).items()
        }
        memo[id(layer)].__setstate__(state)
    return copy.deepcopy(module, memo)


def _copy_of(name: str, value: Any, memo: dict[int, Any]) -> Any:
    if name in _OF_MODULES and isinstance(value, dict | set) and not value:
        return type(value)()
    return copy.deepcopy(value, memo)


_PLAIN = {int, float, bool, str, type(None)}

_OF_MODULES = vars(torch.nn.Module())
"""What every module holds."""


@by_class
def _copies_itself(kind: Any) -> bool:
    """Whether instances of ``kind`` say themselves how they are copied."""
    return any(
        getattr(kind, name, None) is not getattr(torch.nn.Module, name, None)
        for name in ("__deepcopy__", "__reduce_ex__", "__reduce__", "__getstate__", "__new__")
    )


def doubled(x: Any) -> Any:
    """A copy in float64 (complex128); what is neither smooth tensor nor module is returned as it is."""
    if isinstance(x, torch.nn.Module):
        return copied(x, _in_double).double()
    if is_smooth(x):
        return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)
    return x


def _in_double(x: torch.Tensor) -> torch.Tensor:
    if x.dtype == torch.float32 and x.is_cpu and x.layout == torch.strided:
        return torch.from_numpy(x.numpy().astype(np.float64))  # numpy asks the system for large pages
    return x.double() if x.is_floating_point() else x.clone()


def perturbed(x: Any, distance: float, generator: torch.Generator, *, inward: bool = False) -> Any:
    """A copy in float64, every smooth number moved by ``distance`` half units in the last place of its dtype.

    Up or down, by the generator (one seed gives one direction, whatever the distance); toward zero if ``inward``.
    """
    if isinstance(x, torch.nn.Module):
        moved = doubled(x)
        with torch.no_grad():
            for original, target in zip(x.parameters(), moved.parameters(), strict=True):
                target.copy_(perturbed(original, distance, generator, inward=inward))
        return moved
    if not is_smooth(x):
        return x
    signs = -1 if inward else torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
    return doubled(x) * (1.0 + distance * 0.5 * torch.finfo(x.dtype).eps * signs)


def nudged(x: Any, generator: torch.Generator) -> Any:
    """A copy in its own dtype, every smooth number moved by a unit in the last place, up or down by the generator.

    Zeros stay: they are exact, and a model may ask for them, as where it drops what is padded.
    """
    if isinstance(x, torch.nn.Module):
        return _moved(x, lambda parameter: nudged(parameter, generator))
    if not (isinstance(x, torch.Tensor) and x.is_floating_point()):
        return x
    away = torch.randint(0, 2, x.shape, generator=generator).to(x.dtype) * 2 - 1
    return torch.where(x == 0, x, torch.nextafter(x, away * torch.inf)).detach()


def shrunk(x: Any, generator: torch.Generator) -> Any:
    """A copy in its own dtype, every smooth number nearer to zero by up to a thousandth, by the generator.

    Far enough for other roundings in every sum; probabilities remain some.
    """
    if isinstance(x, torch.nn.Module):
        return _moved(x, lambda parameter: shrunk(parameter, generator))
    if not is_smooth(x):
        return x
    return x.detach() * (1 - 2.0**-10 * torch.rand(x.shape, generator=generator).to(x.dtype))


def _moved(module: torch.nn.Module, move: Callable[[torch.Tensor], torch.Tensor]) -> torch.nn.Module:
    moved = copied(module)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.copy_(move(parameter))
    return moved


class DoubleWherePossible(TorchFunctionMode):
    """Lets a model made for float32 run in float64.

    An operator that torch does not have in float64 is computed in float32; one that is given both, because the model
    makes a float32 tensor of its own, in float64. The least number of float64, put into such a tensor for a masked
    entry, is that of its own dtype.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            dtypes = {x.dtype for x in torch_tree.tree_leaves((args, kwargs)) if is_smooth(x)}
            if dtypes and dtypes <= set(_SINGLE):
                args, kwargs = torch_tree.tree_map(_as_single, (args, kwargs))
                return torch_tree.tree_map(_as_double, func(*args, **kwargs))
            if dtypes and "without overflow" in str(error):
                most = min(torch.finfo(dtype).max for dtype in dtypes)
                args, kwargs = torch_tree.tree_map(lambda x: _held(x, most), (args, kwargs))
                return func(*args, **kwargs)
            if not dtypes & set(_SINGLE):
                raise
            kept = 1 if func.__name__.endswith("_") else 0  # what is written into remains the tensor that it is
            narrow = kept and isinstance(args[0], torch.Tensor) and args[0].dtype in _SINGLE.values()
            changed, kwargs = torch_tree.tree_map(_as_single if narrow else _as_double, (args[kept:], kwargs))
            return func(*args[:kept], *changed, **kwargs)


def _held(x: Any, most: float) -> Any:
    return max(-most, min(x, most)) if isinstance(x, float) and math.isfinite(x) else x


_SINGLE = {torch.float64: torch.float32, torch.complex128: torch.complex64}
_DOUBLE = {single: double for double, single in _SINGLE.items()}


def _as_single(x: Any) -> Any:
    return x.to(_SINGLE[x.dtype]) if isinstance(x, torch.Tensor) and x.dtype in _SINGLE else x


def _as_double(x: Any) -> Any:
    return x.to(_DOUBLE[x.dtype]) if isinstance(x, torch.Tensor) and x.dtype in _DOUBLE else x
