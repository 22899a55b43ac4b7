"""The original in float32 and in float64 with no more copies of its weights than it takes."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as torch_tree

from parity.checking.evaluation import Call, Evaluation, TorchSide
from parity.checking.perturbation import doubled


class LeanSide(TorchSide):
    """The torch side of a proof: outputs and buffers, without gradients.

    In float64 each parameter is converted where it is used, for as long as it is: a copy of all would be as large as
    two of the model.

    Args:
        subject: the model.
        call: its arguments.
        differentiates: whether the model needs gradients to run.
    """

    def __init__(self, subject: torch.nn.Module, call: Call, differentiates: bool = False) -> None:
        self.differentiates = differentiates
        super().__init__(subject, call, gradients=False)
        self.subject: torch.nn.Module = subject
        scripted = any(isinstance(x, torch.jit.ScriptModule) for x in subject.modules())  # converts nothing
        self._shares = not self.writes and not scripted
        self._truth: Evaluation | None = None

    def exact(self) -> Evaluation:
        """The truth: the same pass in float64."""
        if self._truth is None:
            self._truth = (self._converting() if self._shares else None) or super().exact()
        return self._truth

    def _converting(self) -> Evaluation | None:
        """The truth with parameters converted on their way, or None where some were not."""
        parameters = {id(x): x for x in self.subject.parameters()}
        subject = copy.deepcopy(self.subject, dict[int, Any](parameters))
        held = [(part, dict(part._buffers)) for part in subject.modules()]
        buffers = {id(x): doubled(x) for x in subject.buffers()}
        for part in subject.modules():
            part._buffers |= {name: buffers.get(id(x), x) for name, x in part._buffers.items()}
        plain = subject.forward

        def forward(*args: Any) -> Any:
            with _Converting(parameters):
                return plain(*args)

        subject.forward = forward
        try:
            truth = self._in_double(subject, torch_tree.tree_map(doubled, self.call))
        except Exception:  # whoever refuses this may take a whole model in float64
            return None
        finally:
            for part, before in held:  # it may be the original's, where that is its own copy
                part._buffers |= before
        exact = all(x.dtype.kind in "iub" or x.dtype in (np.float64, np.complex128) for x in truth.outputs.values())
        return truth if exact else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch in one thread, beside others at work: several would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Converting(TorchFunctionMode):
    """Gives every operator the parameters in float64."""

    def __init__(self, parameters: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.parameters = parameters
        self.last: tuple[int, torch.Tensor] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.embedding and len(args) == 2 and not kwargs.get("max_norm"):
            return doubled(func(*args, **kwargs)) if id(args[1]) in self.parameters else func(*args, **kwargs)
        args, kwargs = torch_tree.tree_map(self._converted, (args, kwargs))
        return func(*args, **kwargs)

    def _converted(self, x: Any) -> Any:
        if id(x) not in self.parameters:
            return x
        if self.last is None or self.last[0] != id(x):
            self.last = id(x), doubled(x)
        return self.last[1]
