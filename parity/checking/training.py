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
from parity.checking.evaluation import as_tensor, doubled, perturbed, seeded
from parity.checking.report import Report
from parity.comparison import FACTOR, Comparison, compare
from parity.replay import Draws, replayed

TorchOptimizer = Callable[[Any], torch.optim.Optimizer]
Batch = Sequence[Any]


@dataclass
class Run:
    """One training run: the loss of each step and the parameters and buffers after the last."""

    losses: list[float] = field(default_factory=list)
    state: dict[str, np.ndarray] = field(default_factory=dict)
    draws: list[list[torch.Tensor]] = field(default_factory=list)


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
    moved = perturbed(torch_model, torch.Generator().manual_seed(seed))
    neighbour = train_torch(moved, torch_optimizer, torch_loss, exact, single.draws)
    found = train_jax(jax_model, optax_transform, jax_loss, order, single.draws)
    rows = [
        compare(
            "losses",
            np.asarray(found.losses, np.float32),
            np.asarray(single.losses, np.float32),
            np.asarray(truth.losses),
            kind="training",
            perturbed=np.asarray(neighbour.losses),
            factor=factor,
        )
    ]
    for name, value in single.state.items():
        if name not in found.state:
            reason = "JAX has none of this name"
            rows.append(Comparison("training", name, value.shape, np.inf, 0.0, np.inf, 0.0, False, reason))
            continue
        moved_to = neighbour.state[name]
        rows.append(
            compare(
                name, found.state[name], value, truth.state[name], kind="training", perturbed=moved_to, factor=factor
            )
        )
    first = next((row.name for row in rows if not row.passed), None)
    return Report(rows, first, list(zip(single.losses, found.losses, strict=True))), single, found


def train_torch(
    model: torch.nn.Module,
    make_optimizer: TorchOptimizer,
    loss: Callable[..., torch.Tensor],
    batches: Iterable[Batch],
    draws: list[list[torch.Tensor]] | None = None,
) -> Run:
    """Train ``model`` in place, noting each step's random draws, or replaying ``draws``."""
    optimizer = make_optimizer(model.parameters())
    run = Run()
    for step, batch in enumerate(batches):
        with Draws(None if draws is None else draws[step]) as drawn:
            optimizer.zero_grad()
            value = loss(model, *batch)
            value.backward()
            optimizer.step()
        run.draws.append(drawn.recorded)
        run.losses.append(value.item())
    run.state = {name: to_numpy(x) for name, x in model.state_dict().items()}
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
    losses = []
    for batch, drawn in zip(batches, draws, strict=True):
        state, value = step(state, [to_jax(x) for x in drawn], *(to_jax(x) for x in batch))
        losses.append(value)
    arrays = state.params | state.others
    kept = {
        name: np.asarray(x) for name, x in arrays.items() if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    }
    return Run([float(x) for x in losses], kept)
