"""The step at which two training runs part: what shows there, and the search for why."""

import copy
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flax import nnx

from parity.checking.diagnosis import updates
from parity.checking.fault import Fault
from parity.checking.generators import all_seeded
from parity.checking.runs import WINDOW, Batch, Parting, Step, Stepping, TorchOptimizer, torch_steps

Models = tuple[torch.nn.Module, nnx.Module, Callable[..., Any], Callable[..., Any]]


class TorchLoss(torch.nn.Module):
    """A model with its loss, as one module of a batch."""

    def __init__(self, model: torch.nn.Module, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, *batch: Any) -> Any:
        """The loss."""
        return self.loss(self.model, *batch)


class JaxLoss(nnx.Module):
    """A port with its loss, as one module of a batch."""

    def __init__(self, model: nnx.Module, loss: Callable[..., Any]) -> None:
        self.model = model
        self.loss = loss

    def __call__(self, *batch: Any) -> Any:
        """The loss."""
        return self.loss(self.model, *batch)


def explained(
    fault: Fault,
    parting: Parting,
    rerun: updates.Rerun,
    models: Models | None,
    batches: Sequence[Batch],
) -> list[Fault]:
    """The fault of a run with the reason for it, behind those of the first step where these are the reason.

    Args:
        fault: what is wrong, and at which step.
        parting: the steps around it.
        rerun: repeats torch's run.
        models: both as they were before the run, with their losses; None where they are known to be wrong.
        batches: of the run, in order.
    """
    if models is None:
        return [replace(fault, reason=f"{fault.what}; it follows from what is wrong in the layers above")]
    suspect, reason = _shown(parting)
    if suspect is None and "losses" not in parting.failed:
        suspect, reason = updates.explain(parting, rerun)
    causes: list[Fault] = []
    if suspect in (None, "frozen") and parting.step == 0:
        causes = _of_first_step(*models, batches[0])
        if causes:
            suspect, reason = None, f"it follows from what is wrong in {causes[0].path or 'the model'}"
    return [*causes, replace(fault, suspect=suspect, reason=f"{fault.what}; {reason}" if reason else "")]


def _shown(parting: Parting) -> tuple[str | None, str]:
    """What the numbers of the step say without a search: a loss of another reduction, tensors that stand still."""
    failed, theirs, ours = parting.failed, parting.theirs, parting.ours
    if "losses" in failed:
        ratio = float(ours[1].loss) / (float(theirs[1].loss) or np.nan)
        larger = max(abs(ratio), 1 / abs(ratio) if ratio else 0.0)
        if larger > 1.5 and abs(larger - round(larger)) < 1e-4 * larger:
            return "reduction", f"the loss is torch's times {ratio:.4g}, as if a sum stood for a mean or the reverse"
        return None, ""
    tensors = [name for name in failed if name in ours[0].state and name in theirs[0].state]
    for (before, after), (other_before, other_after), who in (
        (ours[:2], theirs[:2], "the port, in torch it does"),
        (theirs[:2], ours[:2], "torch, in the port it does"),
    ):
        still = [name for name in tensors if np.array_equal(before.state[name], after.state[name])]
        still = [name for name in still if not np.array_equal(other_before.state[name], other_after.state[name])]
        if still and len(still) == len(tensors):
            rest = f" and {len(still) - 1} more" if len(still) > 1 else ""
            maybe = "frozen, left out of the update, or updated only after several steps"
            return "frozen", f"{still[0]}{rest} does not move in {who} ({maybe})"
    return None, ""


def _of_first_step(
    torch_model: torch.nn.Module,
    jax_model: nnx.Module,
    torch_loss: Callable[..., Any],
    jax_loss: Callable[..., Any],
    batch: Batch,
) -> list[Fault]:
    """What is wrong before any update, in the layers, the loss or their gradients."""
    from parity.checking.models import check

    report = check(TorchLoss(torch_model, torch_loss), JaxLoss(jax_model, jax_loss), batch)
    found = [f for f in report.faults if f.kind != "training"]
    for each in found:
        each.path = each.path.removeprefix("model").removeprefix(".") if each.path else "loss"
    return found


def rerunning(
    model: torch.nn.Module, make_optimizer: TorchOptimizer, loss: Any, batches: Sequence[Batch], seed: int
) -> updates.Rerun:
    """Torch's run again, with another way to step; the last of its steps are given."""

    def rerun(stepping: Stepping, steps: int) -> list[Step]:
        with all_seeded(seed):
            run = torch_steps(copy.deepcopy(model), make_optimizer, loss, batches[:steps], stepping=stepping)
            return list(deque(run, maxlen=WINDOW))

    return rerun
