"""Training runs that go on one step at a time, and what each step leaves behind."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import optax
import torch
from flax import nnx

from jaxnn.training import train_step
from parity.arrays import to_jax, to_numpy
from parity.checking import generators
from parity.checking.evaluation import is_key
from parity.checking.pairing import Pair, under_torchs
from parity.replay import Draws, replayed

TorchOptimizer = Callable[[Any], torch.optim.Optimizer]
Batch = Sequence[Any]
Stepping = Callable[[torch.optim.Optimizer, int], None]
"""What is done in place of ``optimizer.step()`` when the gradients are there. The index counts from 0."""
OF_OPTAX = {"mu": "exp_avg", "nu": "exp_avg_sq", "trace": "momentum_buffer", "sum_of_squares": "sum"}
"""Torch's names for what optax's own optimizers keep."""
SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta")
"""What optimizers keep of squares: rounding moves them twice as far as the gradients they are of."""


@dataclass
class Step:
    """What one step leaves.

    Attributes:
        loss: before the update.
        state: parameters and buffers behind it, by dotted path.
        optimizer: what the optimizer keeps for a parameter: ``exp_avg of head.weight``.
        draws: the random tensors drawn in it.
    """

    loss: np.ndarray
    state: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray] = field(default_factory=dict)
    draws: list[torch.Tensor] = field(default_factory=list)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, the loss first: where it is wrong already, the rest follows from that.

        Of squares the roots, which are as far off as a gradient is."""
        kept = {
            name: np.sqrt(x) if name.partition(" of ")[0] in SQUARES and np.all(x >= 0) else x
            for name, x in self.optimizer.items()
        }
        return {"losses": self.loss, **self.state, **kept}


WINDOW = 3
"""So many steps from the one at which runs part are looked at: one alone looks alike for many mistakes."""


@dataclass
class Parting:
    """Where two runs part.

    Attributes:
        step: the index of the first step that leaves anything wrong, from 0.
        failed: what is wrong behind it, by name.
        theirs: torch's step before that one (what the run begins with, if it is the first), and up to ``WINDOW`` more.
        ours: the port's.
    """

    step: int
    failed: list[str]
    theirs: list[Step]
    ours: list[Step]


def torch_steps(
    model: torch.nn.Module,
    make_optimizer: TorchOptimizer,
    loss: Callable[..., torch.Tensor],
    batches: Sequence[Batch],
    draws: Callable[[int], list[torch.Tensor]] | None = None,
    stepping: Stepping = lambda optimizer, _: optimizer.step(),
) -> Iterator[Step]:
    """Train ``model`` in place; each step's random draws are noted, or are ``draws(index)``."""
    optimizer = make_optimizer(model.parameters())
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    for index, batch in enumerate(batches):
        with Draws(None if draws is None else draws(index)) as drawn:
            optimizer.zero_grad()
            value = loss(model, *batch)
            value.backward()
            stepping(optimizer, index)
        kept = {
            f"{key} of {names[id(parameter)]}": to_numpy(x)
            for parameter, entries in optimizer.state.items()
            if id(parameter) in names
            for key, x in entries.items()
            if isinstance(x, torch.Tensor) and x.shape == parameter.shape and key != "step"
        }
        state = {name: to_numpy(x) for name, x in (*model.named_parameters(), *model.named_buffers())}
        yield Step(to_numpy(value), state, kept, drawn.recorded)


def jax_steps(
    model: nnx.Module,
    transform: optax.GradientTransformation,
    loss: Callable[..., Any],
    batches: Sequence[Batch],
    draws: Callable[[int], list[torch.Tensor]],
    twins: dict[str, Pair],
) -> Iterator[Step]:
    """Train a copy of ``model``, with torch's draws in place of its keys'; its arrays go by torch's names."""

    def replaying(model: nnx.Module, drawn: list[jax.Array], *batch: jax.Array) -> jax.Array:
        with replayed(drawn):
            return loss(model, *batch)

    step, state = train_step(model, transform, replaying)
    for index, batch in enumerate(batches):
        before = generators.comparable(generators.numbers())
        state, value = step(state, [to_jax(x) for x in draws(index)], *(to_jax(x) for x in batch))
        if generators.comparable(generators.numbers()) != before:
            # What Python or NumPy has drawn is a constant of the program; the next step has others.
            step.clear_cache()  # type: ignore[attr-defined]
        arrays = {name: np.array(x) for name, x in (state.params | state.others).items() if not is_key(x)}
        kept = _columns(state.optimizer, state.params)
        of_pairs = {
            f"{key} of {name}": x for key, columns in kept.items() for name, x in under_torchs(columns, twins).items()
        }
        yield Step(np.asarray(value), under_torchs(arrays, twins), of_pairs)


def _columns(optimizer: Any, params: dict[str, jax.Array]) -> dict[str, dict[str, np.ndarray]]:
    """Every part of an optimizer's state that has an array for each parameter."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict) and node and node.keys() <= params.keys():
            found[OF_OPTAX.get(key, key)] = {
                name: np.array(x)
                for name, x in node.items()
                if isinstance(x, jax.Array) and x.shape == params[name].shape
            }
        elif isinstance(node, dict):
            for name, child in node.items():
                walk(child, str(name))
        elif isinstance(node, tuple):
            fields = getattr(node, "_fields", None)
            for i, child in enumerate(node):
                walk(child, fields[i] if fields else key)

    walk(optimizer, "")
    return found
