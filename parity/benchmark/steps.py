"""The ``step`` suite: one training step of the tutorial's networks, against plain JAX, ``nnx.jit`` and torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import jaxnn.functional as F
from jaxnn import models, nn, optim, train_step
from parity import tutorial, weights
from parity.benchmark.contest import COMPILED, JAXNN, TORCH, Result, check_equal, compiled, contest
from parity.benchmark.torch_side import tensor, torch_device

LEARNING_RATE, MOMENTUM = 0.01, 0.9


@dataclass(frozen=True)
class Case:
    """One of the tutorial's networks and its batch."""

    name: str
    batch: int
    family: str = "step"


def cases(batch: int | None = None) -> Iterator[Case]:
    """The README's training loop; ``batch`` in place of its own."""
    yield Case("CustomMLP", batch or 32)


def run(case: Case, *, modes: Sequence[str] = (), seconds: float = 1.0, torch_compile: bool = False) -> list[Result]:
    """Time a step with a batch of ``case.batch``, the loss read each time."""
    del modes
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(case.batch, 20)).astype(np.float32), rng.integers(0, 3, case.batch)
    torch_model, model = getattr(tutorial, case.name)(), getattr(models, case.name)(rngs=nnx.Rngs(0))
    nn.load_state_dict(model, weights.load(torch_model))
    step, state = train_step(model, optim.SGD(lr=LEARNING_RATE, momentum=MOMENTUM), _loss)
    program = compiled(lambda *args: step(*args), state, jnp.asarray(x), jnp.asarray(y))
    contenders = {
        TORCH: torch_step(torch_model, x, y),
        JAXNN: compiled_step(model, x, y),
        "plain JAX": plain_step(dict(nn.state_dict(model)), x, y),
        "nnx.jit": nnx_step(model, x, y),
    }
    losses = [run() for run in contenders.values()]
    check_equal(f"loss of {case.name}", losses[:1] * 3, losses[1:])
    if torch_compile:
        contenders[COMPILED] = torch_step(torch_model, x, y, compiled=True)
    return [
        contest(("step", case.family, f"{case.name}, batch {case.batch}", "step"), contenders, program, seconds=seconds)
    ]


def _loss(model: Callable[..., jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    return F.cross_entropy(model(x), y)


def compiled_step(model: nnx.Module, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    """The README's way: ``jaxnn.train_step``."""
    step, state = train_step(model, optim.SGD(lr=LEARNING_RATE, momentum=MOMENTUM), _loss)
    batch = jnp.asarray(x), jnp.asarray(y)

    def run() -> float:
        nonlocal state
        state, loss = step(state, *batch)
        return float(loss)

    return run


def plain_step(params: dict[str, jax.Array], x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    """By hand: a dict of arrays, ``jax.value_and_grad``, ``jax.jit``."""

    def loss(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        x = jax.nn.relu(x @ params["layer1.weight"].T + params["layer1.bias"])
        x = jax.nn.relu(x @ params["layer2.weight"].T + params["layer2.bias"])
        logits = x @ params["layer3.weight"].T + params["layer3.bias"]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, momentum: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        momentum = jax.tree.map(lambda m, g: MOMENTUM * m + g, momentum, grads)
        return jax.tree.map(lambda p, m: p - LEARNING_RATE * m, params, momentum), momentum, value

    batch = jnp.asarray(x), jnp.asarray(y)
    params = jax.tree.map(jnp.copy, params)
    momentum = jax.tree.map(jnp.zeros_like, params)

    def run() -> float:
        nonlocal params, momentum
        params, momentum, value = step(params, momentum, *batch)
        return float(value)

    return run


def nnx_step(model: nnx.Module, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    """Flax's own way: ``nnx.jit`` with ``nnx.Optimizer``."""
    model = nnx.clone(model)
    optimizer = nnx.Optimizer(model, optim.SGD(lr=LEARNING_RATE, momentum=MOMENTUM), wrt=nnx.Param)

    @nnx.jit
    def step(model: nnx.Module, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
        value, grads = nnx.value_and_grad(_loss)(model, x, y)
        optimizer.update(model, grads)
        return value

    batch = jnp.asarray(x), jnp.asarray(y)
    return lambda: float(step(model, optimizer, *batch))


def torch_step(model: torch.nn.Module, x: np.ndarray, y: np.ndarray, *, compiled: bool = False) -> Callable[[], float]:
    """Torch eager, or with the model under ``torch.compile``."""
    model.to(torch_device())
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    call = torch.compile(model) if compiled else model
    batch = tensor(x), tensor(y)

    def run() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(call(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.item()

    return run
