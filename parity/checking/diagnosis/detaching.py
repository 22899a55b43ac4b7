"""Where a port stops a gradient that torch passes on, or passes one on that torch stops."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from parity.checking.alignment import distance
from parity.checking.diagnosis.calls import Call, Calls
from parity.checking.diagnosis.candidates import SECONDS
from parity.checking.evaluation import Evaluation, TorchSide
from parity.checking.perturbation import copied
from parity.comparison import Comparison

NEAR = 1e-4
"""So near, relative to their size, are gradients that are the same but for rounding."""


NOISE = 1e-4
"""Gradients less than this part of the largest may be what is left of a zero."""


def stopped(
    side: TorchSide, rows: list[Comparison], found: Evaluation, only: str | None = None
) -> tuple[str | None, str]:
    """The suspect and the sentence, where torch's gradients with a detach less, or one more, are the port's.

    Args:
        side: torch's.
        rows: of the whole; those of a gradient that failed are to be explained, the others to stay as they are.
        found: the port's gradients, under torch's names.
        only: the one to be explained, where others have reasons of their own.
    """
    gradients = [row for row in rows if row.kind == "gradient"]
    wrong = [row.name for row in gradients if not row.passed and only in (None, row.name)]
    right = [row.name for row in gradients if row.passed]
    original = side.single.parameter_gradients | side.single.input_gradients
    least = NOISE * max((np.abs(x).max(initial=0) for x in original.values()), default=0)
    ours = found.parameter_gradients | found.input_gradients
    model = side.subject
    subject = copied(model, shared=True) if isinstance(model, torch.nn.Module) else model

    def explained_by(mode: Callable[[Any], AbstractContextManager[Any]]) -> bool:
        try:
            changed = TorchSide(_Within(subject, mode), side.call, seed=side.seed).single
        except RuntimeError:  # nothing is left that has a gradient
            return False
        theirs = {name.removeprefix("module."): x for name, x in changed.parameter_gradients.items()}
        theirs |= changed.input_gradients
        if not all(name in theirs and distance(ours[name], theirs[name]) < NEAR for name in wrong):
            return False
        return all(np.allclose(original[name], theirs.get(name, 0), rtol=NEAR, atol=least) for name in right)

    if explained_by(lambda _: _Attached()):
        return "stopped gradient", "torch stops it with detach, the port passes it on"
    calls = Calls()
    side.again(_Within(subject, lambda _: calls))
    ends = time.thread_time() + SECONDS
    for where, mode in chain(_results(calls.noted), _inputs(subject)):
        if explained_by(mode):
            return "stopped gradient", f"the port stops the gradient of what {where}, torch passes it on"
        if time.thread_time() > ends:
            break
    return None, ""


Stop = tuple[str, Callable[[Any], AbstractContextManager[Any]]]
"""Where a gradient may be stopped, and the model's pass with it stopped there."""


def _results(noted: list[Call]) -> Iterator[Stop]:
    """What one call of a function gives, and what all that are alike give, as in each block of a loop."""
    families: dict[Any, list[int]] = {}
    for call in noted:
        same = [other.index for other in noted if other.name == call.name]
        name = call.name.strip("_")
        which = f"{name}, {same.index(call.index) + 1} of {len(same)}," if len(same) > 1 else name
        yield f"{which} gives", lambda _, index=call.index: _stopping([index])
        families.setdefault((call.name, *(getattr(x, "shape", None) for x in call.positional)), []).append(call.index)
    for (name, *_), alike in families.items():
        if len(alike) > 1:
            yield f"each of {len(alike)} calls of {name.strip('_')} gives", lambda _, all=alike: _stopping(all)


def _stopping(indices: list[int]) -> Calls:
    return Calls({index: lambda c: _detached(c.run()) for index in indices})


def _inputs(model: Any) -> Iterator[Stop]:
    """What one layer gets, and what those at the same place in each block of a loop get."""
    families: dict[str, list[str]] = {}
    for path, _ in model.named_modules() if isinstance(model, torch.nn.Module) else ():
        if path:
            families.setdefault(re.sub(r"\d+", "*", path), []).append(path)
            yield f"{path} gets", lambda module, path=path: _cut([module.get_submodule(path)])
    for family, paths in families.items():
        if len(paths) > 1:
            yield f"each {family} gets", lambda module, all=paths: _cut([module.get_submodule(path) for path in all])


@contextmanager
def _cut(layers: list[torch.nn.Module]) -> Iterator[None]:
    handles = [
        layer.register_forward_pre_hook(lambda _, args, kwargs: _detached((args, kwargs)), with_kwargs=True)
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _detached(x: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda y: y.detach() if isinstance(y, torch.Tensor) else y, x)


class _Within(torch.nn.Module):
    """A torch model whose forward pass runs in a mode."""

    def __init__(self, module: Any, mode: Callable[[Any], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self.module = module
        self.mode = mode

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output."""
        with self.mode(self.module):
            return self.module(*args, **kwargs)


class _Attached(TorchFunctionMode):
    """Within it detach does nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call, passed on."""
        return args[0] if func in (torch.Tensor.detach, torch.detach) else func(*args, **(kwargs or {}))
