"""The same descent in torch and in jaxnn: a noisy quadratic over parameters of several shapes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.testing._internal.common_optimizers import (
    OptimizerInfo,
    OptimizerInput,
    _get_optim_inputs_including_global_cliquey_kwargs,
    optim_db,
)

from jaxnn import optim

Arrays = list[np.ndarray]
SHAPES = ((3, 4), (5,), (), (2, 3, 2))
MATRICES = ((3, 4), (6, 2))


def entries(*without: str) -> list[OptimizerInfo]:
    """The database's algorithms but for ``without``."""
    return [info for info in optim_db if info.optim_cls.__name__ not in without]


def configurations(info: OptimizerInfo) -> list[OptimizerInput]:
    """Every set of hyperparameters the database has for an algorithm, with foreach, fused and differentiable."""
    return _get_optim_inputs_including_global_cliquey_kwargs("cpu", torch.float64, info)


def in_jax(value: Any) -> Any:
    """Hyperparameters with arrays where torch has tensors."""
    if isinstance(value, torch.Tensor):
        return jnp.asarray(value.detach().numpy())
    if isinstance(value, dict):
        return {key: in_jax(item) for key, item in value.items()}
    return type(value)(map(in_jax, value)) if isinstance(value, tuple | list) else value


def problem(
    steps: int, shapes: Sequence[tuple[int, ...]] = SHAPES, dtype: Any = np.float64, seed: int = 0
) -> tuple[Arrays, list[Arrays]]:
    """Starting parameters, and for each step the noise in their gradients."""
    rng = np.random.default_rng(seed)

    pairs = 1j if np.issubdtype(dtype, np.complexfloating) else 0

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(rng.standard_normal(shape) + pairs * rng.standard_normal(shape)).astype(dtype)

    return [draw(shape) for shape in shapes], [[draw(shape) for shape in shapes] for _ in range(steps)]


def gradient(value: Any, noise: Any) -> Any:
    """Of the quadratic around 1/2, in either framework."""
    return value - 0.5 + 0.3 * noise


def run_torch(optimizer: torch.optim.Optimizer, params: list[torch.Tensor], noise: list[Arrays]) -> Arrays:
    """``params`` after a step for each of ``noise``."""
    for row in noise:
        for param, drawn in zip(params, row, strict=True):
            param.grad = gradient(param.detach(), torch.tensor(drawn, dtype=param.dtype))
        optimizer.step()
    return [param.detach().numpy().copy() for param in params]


def run_jax(
    transform: optax.GradientTransformation, start: Arrays, noise: list[Arrays], state: Any = None
) -> tuple[Arrays, Any]:
    """Parameters and state after a step for each of ``noise``, in one compiled program."""
    params = {str(i): jnp.asarray(value) for i, value in enumerate(start)}
    stacked = {str(i): jnp.stack([row[i].astype(start[i].dtype) for row in noise]) for i in range(len(start))}

    def step(carry: Any, drawn: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = transform.update(jax.tree.map(gradient, params, drawn), state, params)
        return (optax.apply_updates(params, updates), state), None

    begin = params, transform.init(params) if state is None else state
    params, state = jax.jit(lambda carry, drawn: jax.lax.scan(step, carry, drawn)[0])(begin, stacked)
    return [np.asarray(params[str(i)]) for i in range(len(start))], state


def leaves(start: Arrays) -> list[torch.Tensor]:
    """Torch parameters that begin at ``start``."""
    return [torch.tensor(value) for value in start]


def error(found: Arrays, truth: Arrays) -> float:
    """The greatest relative error of a parameter, by norm."""
    return max(float(np.linalg.norm(f - t) / np.linalg.norm(t)) for f, t in zip(found, truth, strict=True))


def twin(info: OptimizerInfo) -> Callable[..., optim.Optimizer]:
    """jaxnn's algorithm of the same name."""
    return getattr(optim, info.optim_cls.__name__)
