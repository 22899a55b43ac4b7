"""Where a port stops a gradient that torch passes on, or passes one on that torch stops."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from parity.checking.alignment import distance
from parity.checking.diagnosis.calls import Calls
from parity.checking.diagnosis.explain import SECONDS
from parity.checking.evaluation import Evaluation, TorchSide
from parity.comparison import Comparison

NEAR = 1e-4
"""So near, relative to their size, are gradients that are the same but for rounding."""


def stopped(side: TorchSide, rows: list[Comparison], found: Evaluation) -> tuple[str | None, str]:
    """The suspect and the sentence, where torch's gradients with a detach less, or one more, are the port's.

    Args:
        side: torch's.
        rows: of the whole; those of a gradient that failed are to be explained.
        found: the port's gradients, under torch's names.
    """
    wrong = [row.name for row in rows if row.kind == "gradient" and not row.passed]
    ours = found.parameter_gradients | found.input_gradients

    def explained_by(mode: Callable[[], AbstractContextManager[Any]]) -> bool:
        try:
            changed = TorchSide(_Within(side.subject, mode), side.call, seed=side.seed).single
        except RuntimeError:  # nothing is left that has a gradient
            return False
        theirs = {name.removeprefix("module."): x for name, x in changed.parameter_gradients.items()}
        theirs |= changed.input_gradients
        return all(name in theirs and distance(ours[name], theirs[name]) < NEAR for name in wrong)

    if explained_by(_Attached):
        return "stopped gradient", "torch stops it with detach, the port passes it on"
    calls = Calls()
    side.again(_Within(side.subject, lambda: calls))
    ends = time.thread_time() + SECONDS
    for call in calls.noted:
        if explained_by(lambda index=call.index: Calls({index: lambda c: _detached(c.run())})):
            same = [other.index for other in calls.noted if other.name == call.name]
            name = call.name.strip("_")
            which = f"{name}, {same.index(call.index) + 1} of {len(same)}," if len(same) > 1 else name
            return "stopped gradient", f"the port stops the gradient of what {which} gives, torch passes it on"
        if time.thread_time() > ends:
            break
    return None, ""


def _detached(x: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda y: y.detach() if isinstance(y, torch.Tensor) else y, x)


class _Within(torch.nn.Module):
    """A torch model whose forward pass runs in a mode."""

    def __init__(self, module: Any, mode: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self.module = module
        self.mode = mode

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output."""
        with self.mode():
            return self.module(*args, **kwargs)


class _Attached(TorchFunctionMode):
    """Within it detach does nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call, passed on."""
        return args[0] if func in (torch.Tensor.detach, torch.detach) else func(*args, **(kwargs or {}))
