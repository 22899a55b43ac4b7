"""Constants in a layer's arithmetic that are any others: all numbers of one, found by least squares."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from parity.arrays import to_tensor
from parity.checking.diagnosis.calls import Call, Experiment
from parity.checking.diagnosis.mutations import operands_of
from parity.checking.diagnosis.outputs import relation

USED = {"mul": "factor", "div": "factor", "add": "term", "sub": "term", "matmul": "factor", "where": "part"}
"""In which functions, and what a constant is there."""

SPARE = 2
"""There are to be so many times as many wrong numbers as are sought: else any are explained."""

ROUNDS = 40


@dataclass
class Constant:
    """A tensor in a call that does not come of the layer's inputs or parameters."""

    call: Call
    at: int
    value: torch.Tensor

    @property
    def said(self) -> str:
        """What it is, and that it is another."""
        kind, shape = USED[self.call.name], tuple(self.value.shape)
        return f"the {kind} of shape {shape}, a constant in torch, holds other numbers"

    def instead(self, value: torch.Tensor) -> Any:
        """The call with ``value`` in its place."""
        at = self.at
        return lambda c: c.function(*(value if i == at else x for i, x in enumerate(c.positional)), **c.keywords)


def fitted(experiment: Experiment, ours: dict[str, np.ndarray]) -> Iterator[tuple[str, str, Any]]:
    """Each constant with the numbers with which torch's layer comes nearest to the port."""
    for constant in _constants(experiment):
        wrong = sum(x.size for x in ours.values() if x.dtype.kind == "f")
        if wrong < SPARE * constant.value.numel():
            continue
        found = _nearest(experiment, constant, ours)
        how = relation({"it": found.numpy()}, {"it": constant.value.numpy()})
        said = f"{constant.said}: {how[1]}" if how is not None else constant.said
        yield "other constant", said, {constant.call.index: constant.instead(found)}


def _nearest(experiment: Experiment, constant: Constant, ours: dict[str, np.ndarray]) -> torch.Tensor:
    value = constant.value.detach().clone().requires_grad_()
    wanted = {name: to_tensor(x) for name, x in ours.items() if x.dtype.kind == "f"}
    search = torch.optim.LBFGS([value], max_iter=ROUNDS, history_size=ROUNDS, line_search_fn="strong_wolfe")

    def left() -> torch.Tensor:
        search.zero_grad()
        found = experiment.tensors({constant.call.index: constant.instead(value)})
        loss = sum(((found[name] - x) ** 2).sum() / (x**2).sum().clamp_min(1e-30) for name, x in wanted.items())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        return loss

    search.step(left)
    return value.detach()


def _constants(experiment: Experiment) -> Iterator[Constant]:
    """Those of the layer's calls."""
    for call in experiment.calls(differentiated=True):
        if call.name not in USED:
            continue
        pair = operands_of(call) if call.name != "where" else call.positional
        for at, x in enumerate(pair):
            known = any(isinstance(y, torch.Tensor) and vary for y, vary in zip(pair, call.varies, strict=False))
            constant = isinstance(x, torch.Tensor) and x.is_floating_point() and not call.varies[at]
            if known and constant and x.numel() > 1:
                yield Constant(call, at, x)
