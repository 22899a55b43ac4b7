"""Running statistics that come out wrong: momentum, and the biased variance."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from parity.arrays import to_numpy
from parity.checking.alignment import distance
from parity.checking.diagnosis.calls import Experiment

if TYPE_CHECKING:
    from parity.checking.suspicion import Suspicion

SAME = 4.8e-7
"""So far two statistics in float32 may be apart, four machine epsilons, and pass."""

ROUNDED = 1e-4
"""So far rounding may take a mean near zero, in relation to it."""

LEFT = 0.15
"""A mistake explains statistics if with it no more than this part of the difference is left."""


def explain(suspicion: "Suspicion") -> tuple[str | None, str]:
    """The suspect and the sentence for a layer whose output is right and whose statistics are not."""
    layer = suspicion.torch_layer
    momentum = getattr(layer, "momentum", None)
    old = {name: to_numpy(x) for name, x in layer.named_buffers(recurse=False)}
    experiment = Experiment(layer, suspicion.arguments, suspicion.draws)
    new = experiment.buffers()
    wrong = [
        name
        for name, value in new.items()
        if name in suspicion.jax_buffers and distance(suspicion.jax_buffers[name], value) > SAME
    ]
    if not wrong:
        return None, ""
    if all(np.array_equal(suspicion.jax_buffers[name], old[name]) for name in wrong):
        return "running statistics", f"{' and '.join(wrong)} stay as they were; torch's layer updates them in training"
    if momentum is None or "running_mean" not in new:
        return None, ""
    # With momentum 1 the new value is the batch's own.
    batch = experiment.buffers(lambda module: setattr(module, "momentum", 1.0))
    mean = suspicion.jax_buffers.get("running_mean")
    rate = float(momentum)
    if mean is not None and "running_mean" in wrong:
        rate = _rate(mean, old["running_mean"], batch["running_mean"])
        moved = _moved(old["running_mean"], batch["running_mean"], rate)
        if abs(rate - momentum) > 1e-3 * momentum and _explains(moved, mean, new["running_mean"]):
            opposite = abs(rate + momentum - 1) < 1e-3
            other = ", the other convention: it is what is kept, not what is taken" if opposite else ""
            sentence = f"momentum is as if {rate:.4g}, torch's is {momentum:g}{other}"
            return "momentum", sentence + "; with torch's momentum the statistics match"
        if distance(mean, new["running_mean"]) > ROUNDED:
            return None, ""
        rate = float(momentum)
    variance = suspicion.jax_buffers.get("running_var")
    if variance is not None:
        size = _batch_size(suspicion)
        biased = batch["running_var"] * (size - 1) / size
        if _explains(_moved(old["running_var"], biased, rate), variance, new["running_var"]):
            sentence = "running_var takes the biased variance of the batch (divided by n), torch's the unbiased (n - 1)"
            return "biased or unbiased variance", sentence + "; with that the statistics match"
        rate = _rate(variance, old["running_var"], batch["running_var"])
        if _explains(_moved(old["running_var"], batch["running_var"], rate), variance, new["running_var"]):
            return "momentum", f"momentum of running_var is as if {rate:.4g}, torch's is {momentum:g}"
    return None, ""


def _explains(value: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether a statistic as it is with a mistake is nearly all that parts the port's from torch's: a small momentum
    makes any mistake a small one."""
    return distance(ours, value) <= max(LEFT * distance(ours, theirs), SAME / 2)


def _moved(old: np.ndarray, batch: np.ndarray, rate: float) -> np.ndarray:
    return (1 - rate) * old + rate * batch


def _rate(new: np.ndarray, old: np.ndarray, batch: np.ndarray) -> float:
    step = (batch - old).astype(np.float64)
    return float(np.vdot(step, new - old) / max(float(np.vdot(step, step)), 1e-300))


def _batch_size(suspicion: "Suspicion") -> int:
    """How many numbers a channel's variance is taken over."""
    x = next(x for x in suspicion.arguments[0] if isinstance(x, torch.Tensor))
    return max(x.numel() // x.shape[1], 2)
