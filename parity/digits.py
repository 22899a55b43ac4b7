"""A convolutional classifier of scikit-learn's digits, trained in both frameworks from the same weights."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from flax import nnx
from sklearn.datasets import load_digits

import jaxnn.functional as F
from jaxnn import models, nn, optim
from parity import tutorial, weights
from parity.checking import Report
from parity.checking.training import compare_runs

EPOCHS, BATCH, HELD_OUT = 3, 32, 360


@dataclass(frozen=True)
class Digits:
    """Both runs.

    Attributes:
        report: losses and final parameters compared.
        losses: ``(steps, 2)``, torch's and JAX's.
        accuracies: of torch's and JAX's final weights on held-out images.
        steps_per_epoch: of the training set.
    """

    report: Report
    losses: np.ndarray
    accuracies: tuple[float, float]
    steps_per_epoch: int

    def epoch_means(self) -> list[tuple[int, float, float]]:
        """Epoch, torch's mean loss and JAX's."""
        by_epoch = self.losses.reshape(EPOCHS, self.steps_per_epoch, 2).mean(axis=1)
        return [(i + 1, float(a), float(b)) for i, (a, b) in enumerate(by_epoch)]

    def plot(self, path: Path) -> None:
        """Draw both loss curves and their difference; the name's ending (``.png``, ``.svg``) says how."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 6), layout="constrained")
        curves, difference = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        steps = np.arange(1, len(self.losses) + 1)
        curves.plot(steps, self.losses[:, 0], lw=3, alpha=0.5, label=f"torch, final accuracy {self.accuracies[0]:.1%}")
        curves.plot(
            steps, self.losses[:, 1], lw=1, color="black", label=f"jaxnn, final accuracy {self.accuracies[1]:.1%}"
        )
        curves.set(
            ylabel="cross-entropy of the batch",
            title="Digits: the same weights, batches and optimizer in both frameworks",
        )
        curves.legend()
        distance = np.abs(np.diff(self.losses, axis=1))
        difference.semilogy(steps, np.where(distance > 0, distance, np.nan), ".", color="tab:red")
        difference.set(xlabel="training step (no dot: equal to the last bit)", ylabel="|difference|")
        for axis in (curves, difference):
            axis.grid(alpha=0.3)
        figure.savefig(path, dpi=150)


def train() -> Digits:
    """Three epochs of SGD with momentum on the same batches in the same order."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(images))
    held_out, training = order[:HELD_OUT], order[HELD_OUT:]
    per_epoch = len(training) // BATCH
    rng = np.random.default_rng(1)
    batches = []
    for _ in range(EPOCHS):
        shuffled = rng.permutation(training)
        batches += [(images[i], labels[i]) for i in np.split(shuffled[: per_epoch * BATCH], per_epoch)]

    torch.manual_seed(0)
    torch_side, jax_side = tutorial.DigitsClassifier(), models.DigitsClassifier(rngs=nnx.Rngs(0))
    nn.load_state_dict(jax_side, weights.load(torch_side))
    runs = compare_runs(
        torch_side,
        jax_side,
        partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        optim.SGD(lr=0.05, momentum=0.9),
        (
            lambda model, x, y: torch.nn.functional.cross_entropy(model(x), y),
            lambda model, x, y: F.cross_entropy(model(x), y),
        ),
        batches,
    )
    torch_side.load_state_dict({name: torch.from_numpy(x) for name, x in runs.torch_state.items()})
    nn.load_state_dict(jax_side, runs.jax_state)
    with torch.no_grad():
        theirs = torch_side(torch.from_numpy(images[held_out])).argmax(1).numpy()
    ours = np.asarray(jax_side(images[held_out])).argmax(1)
    accuracies = (float((theirs == labels[held_out]).mean()), float((ours == labels[held_out]).mean()))
    return Digits(runs.report, np.asarray(runs.report.losses), accuracies, per_epoch)
