"""Functions of torch that do something else for a while, by whatever name a model imported them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import CodeType, FunctionType
from typing import Any

import torch


@contextmanager
def with_code_of(function: Any, other: Any) -> Iterator[CodeType]:
    """Lets ``function`` run the code of ``other``, by whatever name it was imported; gives its own."""
    code = function.__code__
    function.__code__ = other.__code__
    try:
        yield code
    finally:
        function.__code__ = code


@contextmanager
def in_place_of(function: Any, caller: Any, other: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Lets ``function`` do what ``other`` does, by whatever name it was imported; gives what it did."""
    function.instead = other
    try:
        with with_code_of(function, caller) as code:
            own = FunctionType(
                code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
            )
            own.__kwdefaults__ = function.__kwdefaults__
            yield own
    finally:
        del function.instead


def forwarding(function: Any) -> Any:
    """A caller for :func:`in_place_of` that hands on whatever ``function`` is given."""
    code = _forwarded.__code__
    names = tuple(function.__name__ if name == "itself" else name for name in code.co_names)
    return FunctionType(code.replace(co_names=names), {})


def gradients_by(other: Callable[..., Any]) -> AbstractContextManager[Callable[..., Any]]:
    """``torch.autograd.grad`` does what ``other`` does with the same arguments; gives what it did."""
    return in_place_of(torch.autograd.grad, _gradients, other)


def _gradients(  # type: ignore[no-untyped-def]
    outputs,
    inputs,
    grad_outputs=None,
    retain_graph=None,
    create_graph=False,
    only_inputs=True,
    allow_unused=None,
    is_grads_batched=False,
    materialize_grads=False,
):
    return grad.instead(  # noqa: F821
        outputs, inputs, grad_outputs, retain_graph, create_graph, only_inputs, allow_unused, is_grads_batched,
        materialize_grads,
    )  # fmt: skip


def _forwarded(*args, **kwargs):  # type: ignore[no-untyped-def]
    return itself.instead(*args, **kwargs)  # noqa: F821
