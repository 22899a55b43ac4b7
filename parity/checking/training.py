"""Training runs side by side: the same weights, the same batches in the same order."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import optax
import torch
from flax import nnx

from jaxnn.training import train_step
from parity.arrays import to_jax, to_numpy
from parity.checking.evaluation import as_tensor, doubled, is_key, perturbed, seeded
from parity.checking.report import Report
from parity.comparison import FACTOR, FAR, Comparison, compare
from parity.replay import Draws, replayed

TorchOptimizer = Callable[[Any], torch.optim.Optimizer]
Batch = Sequence[Any]


@dataclass
class Run:
    """One training run.

    Attributes:
        losses: of each step.
        states: parameters and buffers after the steps at which runs are compared.
        draws: the random tensors of each step.
    """

    losses: np.ndarray = field(default_factory=lambda: np.empty(0))
    states: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    draws: list[list[torch.Tensor]] = field(default_factory=list)

    def after(self, step: int) -> dict[str, np.ndarray]:
        """The losses up to ``step`` and the state behind it."""
        return {"losses": self.losses[:step], **self.states[step]}


def compared_steps(steps: int) -> list[int]:
    """1, 2, 4 and so on, and the last: early on rounding has not grown yet, and a fault stands out."""
    return sorted({min(2**i, steps) for i in range(steps.bit_length() + 1)})


def check_training(
    torch_model: torch.nn.Module,
    jax_model: nnx.Module,
    torch_optimizer: TorchOptimizer,
    optax_transform: optax.GradientTransformation,
    loss: Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]],
    batches: Iterable[Batch],
    steps: int | None = None,
    *,
    seed: int = 0,
    factor: float = FACTOR,
) -> Report:
    """Train both models from the weights they have and compare losses and final parameters; neither model is changed.

    The truth is the same run in float64. A run that rounding alone would send elsewhere (a high learning rate) is not
    held against JAX: the distance of a second float64 run, from weights moved by half a unit in the last place,
    counts as explained.

    Args:
        torch_model: in the mode (train or eval) to be run in.
        jax_model: its port, with the same weights.
        torch_optimizer: makes the optimizer from the parameters, such as ``lambda p: torch.optim.SGD(p, lr=0.1)``.
        optax_transform: the same, such as ``jaxnn.optim.SGD(lr=0.1)``.
        loss: ``loss(model, *batch)``; a pair where torch and JAX need one each.
        batches: tuples of arrays, used in order and from the front again when they run out.
        steps: how many; as many as there are batches unless given.
        seed: of torch's generator.
        factor: how many times the error that rounding explains may pass.
    """
    return compare_runs(
        torch_model, jax_model, torch_optimizer, optax_transform, loss, batches, steps, seed=seed, factor=factor
    )[0]


def compare_runs(
    torch_model: torch.nn.Module,
    jax_model: nnx.Module,
    torch_optimizer: TorchOptimizer,
    optax_transform: optax.GradientTransformation,
    loss: Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]],
    batches: Iterable[Batch],
    steps: int | None = None,
    *,
    seed: int = 0,
    factor: float = FACTOR,
) -> tuple[Report, Run, Run]:
    """As :func:`check_training`, with torch's run and JAX's beside the report."""
    torch_loss, jax_loss = loss if isinstance(loss, tuple) else (loss, loss)
    batches = [tuple(as_tensor(x) for x in batch) for batch in batches]
    if not batches:
        raise ValueError("check_training: batches must hold at least one batch, got none")
    order = [batches[i % len(batches)] for i in range(len(batches) if steps is None else steps)]
    with seeded(seed):
        single = train_torch(copy.deepcopy(torch_model), torch_optimizer, torch_loss, order)
    exact = [tuple(doubled(x) for x in batch) for batch in order]
    truth = train_torch(doubled(torch_model), torch_optimizer, torch_loss, exact, single.draws)
    near, far = (
        train_torch(
            perturbed(torch_model, distance, torch.Generator().manual_seed(seed)),
            torch_optimizer,
            torch_loss,
            exact,
            single.draws,
        )
        for distance in (1.0, FAR)
    )
    found = train_jax(jax_model, optax_transform, jax_loss, order, single.draws)
    rows: list[Comparison] = []
    for name in single.after(len(order)):
        for step in compared_steps(len(order)):
            row = _compared(name, step, (single, truth, near, far, found), factor)
            if not row.passed:
                break
        rows.append(row)
    first = next((row.name for row in rows if not row.passed), None)
    return Report(rows, first, list(zip(single.losses.tolist(), found.losses.tolist(), strict=True))), single, found


def _compared(name: str, step: int, runs: tuple[Run, Run, Run, Run, Run], factor: float) -> Comparison:
    *others, found_run = runs
    single, truth, near, far = (run.after(step)[name] for run in others)
    found = found_run.after(step).get(name)
    shown = f"{name}, step {step}"
    if found is None:
        return Comparison("training", shown, single.shape, np.inf, 0.0, np.inf, 0.0, False, "JAX has none of this name")
    return compare(shown, found, single, truth, kind="training", neighbours=(near, far), factor=factor)


def train_torch(
    model: torch.nn.Module,
    make_optimizer: TorchOptimizer,
    loss: Callable[..., torch.Tensor],
    batches: Sequence[Batch],
    draws: list[list[torch.Tensor]] | None = None,
) -> Run:
    """Train ``model`` in place, noting each step's random draws, or replaying ``draws``."""
    optimizer = make_optimizer(model.parameters())
    run, losses = Run(), []
    kept = compared_steps(len(batches))
    for step, batch in enumerate(batches, 1):
        with Draws(None if draws is None else draws[step - 1]) as drawn:
            optimizer.zero_grad()
            value = loss(model, *batch)
            value.backward()
            optimizer.step()
        run.draws.append(drawn.recorded)
        losses.append(to_numpy(value))
        if step in kept:
            named = (*model.named_parameters(), *model.named_buffers())
            run.states[step] = {name: to_numpy(x) for name, x in named}
    run.losses = np.stack(losses)
    return run


def train_jax(
    model: nnx.Module,
    transform: optax.GradientTransformation,
    loss: Callable[..., Any],
    batches: Sequence[Batch],
    draws: list[list[torch.Tensor]],
) -> Run:
    """Train a copy of ``model``, with torch's ``draws`` in place of its keys'."""

    def replaying(model: nnx.Module, drawn: list[jax.Array], *batch: jax.Array) -> jax.Array:
        with replayed(drawn):
            return loss(model, *batch)

    step, state = train_step(model, transform, replaying)
    run, losses = Run(), []
    kept = compared_steps(len(batches))
    for index, (batch, drawn) in enumerate(zip(batches, draws, strict=True), 1):
        state, value = step(state, [to_jax(x) for x in drawn], *(to_jax(x) for x in batch))
        losses.append(value)
        if index in kept:
            arrays = state.params | state.others
            run.states[index] = {name: np.array(x) for name, x in arrays.items() if not is_key(x)}
    run.losses = np.stack([np.asarray(x) for x in losses])
    return run
