"""A model's own ``autograd.Function`` as one operator: export sees only what it does forward."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.fx import Node
from torch.overrides import TorchFunctionMode

from parity.porting.graph.known import traced_node
from parity.porting.graph.transforms import is_transforming
from parity.standing_in import in_place_of

_LIBRARY = torch.library.Library("parity", "FRAGMENT")
_LIBRARY.define("cotangent(Tensor output) -> Tensor")
_LIBRARY.define(
    "own_gradient(Tensor[] outputs, Tensor[] inputs, Tensor?[] cotangents, Tensor?[] gradients, str name, str[] names)"
    " -> Tensor[]"
)


@torch.library.register_fake("parity::cotangent")
def _like(output: Tensor) -> Tensor:
    return torch.empty_like(output)


@torch.library.register_fake("parity::own_gradient")
def _likes(outputs: list[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(x) for x in outputs]


@contextmanager
def with_own_gradients(used: set[str]) -> Iterator[None]:
    """Within, a function with a gradient of its own is one operator, by whatever name it is called; noted in ``used``.

    One whose way back cannot be traced is what it does forward.
    """

    def applied(kind: type[Function], *args: Any, **kwargs: Any) -> Any:
        if kind.__module__.startswith("torch."):
            return original(kind, *args, **kwargs)
        used.add(kind.__name__)
        if is_transforming():
            return original(kind, *args, **kwargs)
        with _Unseen(), torch.no_grad():
            return _traced(kind, args, kwargs)

    apply: Any = Function.apply
    with in_place_of(apply.__func__, _caller(Function), applied) as original:
        yield


def _caller(__class__: type) -> Callable[..., Any]:
    """What stands for ``Function.apply``, whose code knows its class so, too."""

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return __class__.apply.instead(cls, *args, **kwargs)  # type: ignore[attr-defined]

    return apply


class _Context:
    """What ``forward`` leaves for ``backward``."""

    saved_tensors: tuple[Any, ...] = ()
    materialize_grads = True

    def __init__(self, needs: list[bool]) -> None:
        self.needs_input_grad = tuple(needs)
        self.apart: list[Tensor] = []
        self.writes = False

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Of forward derivatives, which nobody asks for."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self.apart += tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        self.writes = True

    def returns(self, output: Tensor) -> bool:
        """Whether something comes back to ``output``."""
        return _is_inexact(output) and not any(output is x for x in self.apart)

    def set_materialize_grads(self, value: bool) -> None:
        self.materialize_grads = value


def _traced(kind: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``kind.apply`` with the way back in the graph."""
    signature = inspect.signature(kind.forward)
    sets_up = kind.setup_context is not Function.setup_context
    if sets_up:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        args, kwargs = bound.args, bound.kwargs
    if kwargs:
        raise NotImplementedError("keyword arguments")
    context = _Context([_is_inexact(x) for x in args])
    result = kind.forward(*args) if sets_up else kind.forward(context, *args)
    if sets_up:
        kind.setup_context(context, args, result)
    many = isinstance(result, tuple | list)
    parts = [_apart(x, args) for x in result] if many else [_apart(result, args)]
    alike = _places(args)
    names = _names(signature, sets_up, [first for first, *_ in alike])
    if not context.writes:
        with suppress(Exception):  # the model may never come to its way back
            parts = _with_way_back(kind, context, args, parts, alike, names)
    return tuple(parts) if many else parts[0]


def _apart(x: Any, args: tuple[Any, ...]) -> Any:
    """A result that is not the argument itself."""
    return torch.ops.aten.alias.default(x) if isinstance(x, Tensor) and any(x is given for given in args) else x


def _with_way_back(
    kind: type[Function],
    context: "_Context",
    args: tuple[Any, ...],
    parts: list[Any],
    alike: list[list[int]],
    names: list[str],
) -> list[Any]:
    """The results, as what the one operator gives."""
    inputs = [args[first] for first, *_ in alike]
    for x in inputs:
        traced_node(x)
    outputs = [x for x in parts if isinstance(x, Tensor)]
    cotangents = [torch.ops.parity.cotangent(x) if context.returns(x) else None for x in outputs]
    filled = iter([_zeros(context, x) if y is None else y for x, y in zip(outputs, cotangents, strict=True)])
    found = kind.backward(context, *(next(filled) if isinstance(x, Tensor) else None for x in parts))
    gradients = _fitting(found if isinstance(found, tuple | list) else [found], args)
    summed = [_summed([gradients[i] for i in same]) for same in alike]
    made = iter(torch.ops.parity.own_gradient(outputs, inputs, cotangents, summed, kind.__name__, names))
    return [next(made) if isinstance(x, Tensor) else x for x in parts]


def _places(args: tuple[Any, ...]) -> list[list[int]]:
    """Where each tensor is among the arguments: one may be given more than once."""
    found: dict[int, list[int]] = {}
    for i, x in enumerate(args):
        if isinstance(x, Tensor):
            found.setdefault(id(x), []).append(i)
    return list(found.values())


def _summed(gradients: list[Tensor | None]) -> Tensor | None:
    """What comes back to one tensor."""
    parts = [x for x in gradients if x is not None]
    return sum(parts[1:], parts[0]) if parts else None


def _zeros(context: _Context, output: Tensor) -> Tensor | None:
    """What comes back to an output that has no gradient."""
    return torch.zeros_like(output) if context.materialize_grads else None


def _fitting(gradients: Any, args: tuple[Any, ...]) -> list[Tensor | None]:
    """The gradients of ``args`` in their shapes and dtypes."""
    if len(gradients) < len(args) or any(x is not None for x in gradients[len(args) :]):
        raise NotImplementedError(f"{len(gradients)} gradients of {len(args)} arguments")
    pairs = zip(gradients, args, strict=False)
    return [_fitted(x, arg) if x is not None and _is_inexact(arg) else None for x, arg in pairs]


def _fitted(x: Tensor, arg: Tensor) -> Tensor:
    """A gradient summed over the axes along which its argument was repeated, no free size looked at."""
    if x.ndim > arg.ndim:
        x = x.sum(list(range(x.ndim - arg.ndim)))
    ones = [i for i in range(x.ndim) if _is_one(arg.shape[i]) and not _is_one(x.shape[i])]
    x = x.sum(ones, keepdim=True) if ones else x
    return x if x.dtype == arg.dtype else x.to(arg.dtype)


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _names(signature: inspect.Signature, sets_up: bool, places: list[int]) -> list[str]:
    """What ``forward`` calls its arrays."""
    parameters = list(signature.parameters.values())[0 if sets_up else 1 :]
    named = [x.name for x in parameters if x.kind is x.POSITIONAL_OR_KEYWORD]
    return [named[i] if i < len(named) else f"x{i}" for i in places]


def _is_inexact(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


class _Unseen(TorchFunctionMode):
    """Switches gradients on and off without a word to the tracer, which would make regions of the graph of it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._set_grad_enabled:
            with torch._C.DisableTorchFunction():
                return func(*args)
        return func(*args, **(kwargs or {}))


def is_owned(node: Any) -> bool:
    """Whether ``node`` is a function with a gradient of its own."""
    return isinstance(node, Node) and str(node.target) == "parity.own_gradient.default"
