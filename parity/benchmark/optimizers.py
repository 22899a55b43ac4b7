"""The ``optim`` suite: one update of 200 tensors with 25 million numbers, against torch's fused and foreach forms."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from jaxnn import optim
from parity.benchmark.contest import JAXNN, Result, check_equal, compiled, contest
from parity.benchmark.torch_side import awaited, tensor

TENSORS, SIZE = 200, 125_000


@dataclass(frozen=True)
class Case:
    """An optimizer and its hyperparameters, the same in both frameworks."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    family: str = "update"


def cases() -> Iterator[Case]:
    """The three that train nearly everything."""
    yield Case("SGD", {"lr": 0.01, "momentum": 0.9})
    yield Case("Adam", {"lr": 1e-3})
    yield Case("AdamW", {"lr": 1e-3, "weight_decay": 0.01})


def run(case: Case, *, modes: Sequence[str] = (), seconds: float = 0.3, torch_compile: bool = False) -> list[Result]:
    """Time an update with donated buffers; the faster of torch's two forms is what it is measured by."""
    del modes, torch_compile  # an update has one mode, and torch's fused forms are compiled
    rng = np.random.default_rng(0)
    start = [rng.normal(size=SIZE).astype(np.float32) for _ in range(TENSORS)]
    slopes = [rng.normal(size=SIZE).astype(np.float32) for _ in range(TENSORS)]
    torch_updates = {form: _torch_update(case, start, slopes, **{form: True}) for form in ("fused", "foreach")}
    transform = getattr(optim, case.name)(**case.options)
    params = {str(i): jnp.array(x) for i, x in enumerate(start)}
    gradients = {str(i): jnp.asarray(x) for i, x in enumerate(slopes)}

    def update(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        updates, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = transform.init(params)
    program = compiled(update, params, state, gradients, donate_argnums=(0, 1))

    def step() -> None:
        nonlocal params, state
        params, state = jax.block_until_ready(program.call(params, state, gradients))

    expected = torch_updates["fused"]()
    torch_updates["foreach"]()
    step()
    check_equal(case.name, expected, [params[str(i)] for i in range(TENSORS)])
    forms = {f"torch {form}": run for form, run in torch_updates.items()}
    return [
        contest(
            ("optim", case.family, case.name, "step"),
            forms | {JAXNN: step},
            program,
            seconds=seconds,
            references=list(forms),
        )
    ]


def _torch_update(
    case: Case, start: list[np.ndarray], slopes: list[np.ndarray], **form: bool
) -> Callable[[], list[torch.nn.Parameter]]:
    parameters = [torch.nn.Parameter(tensor(x)) for x in start]
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter.grad = tensor(slope)
    optimizer = getattr(torch.optim, case.name)(parameters, **case.options, **form)

    def run() -> list[torch.nn.Parameter]:
        optimizer.step()
        return parameters

    return awaited(run)
