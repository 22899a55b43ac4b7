"""What people get wrong in each torch function: the usual suspects, as other ways to do a call."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from parity.checking.diagnosis.calls import Call, Mutation

Suspects = Callable[[Call], Iterator[Mutation]]
REGISTRY: dict[str, list[Suspects]] = {}


def suspects_of(*names: str) -> Callable[[Suspects], Suspects]:
    """Register what can be wrong with calls of these functions."""

    def register(function: Suspects) -> Suspects:
        for name in names:
            REGISTRY.setdefault(name, []).append(function)
        return function

    return register


def mutations(call: Call) -> Iterator[Mutation]:
    """Every other way to do ``call`` that is worth a try."""
    for function in REGISTRY.get(call.name, []):
        yield from function(call)


def other(call: Call, name: str, suspect: str, *values: Any) -> Iterator[Mutation]:
    """The call with each of ``values`` for one argument."""
    for value in values:
        if not _same(value, call[name]):
            said = f"{name} is as if {_shown(value)}, torch's is {_shown(call[name])}"
            yield suspect, said, lambda c, v=value: c.run(**{name: v})


def equal(a: Any, b: Any) -> bool:
    """Whether both are tensors, of the same shape and numbers."""
    return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape and torch.equal(a, b)


def input_of(call: Call) -> Any:
    """What the call works on."""
    return call["input"] if call["input"] is not None else call.positional[0]


def operands_of(call: Call) -> tuple[Any, Any]:
    """The two that the call joins."""
    if call["input"] is not None and call["other"] is not None:
        return call["input"], call["other"]
    return call.positional[0], call.positional[1]


def _same(a: Any, b: Any) -> bool:
    a, b = (tuple(x) if isinstance(x, list) else x for x in (a, b))
    return type(a) is type(b) and a == b


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
