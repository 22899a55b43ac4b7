"""Models that the user brings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jaxnn import nn
from parity import weights
from parity.benchmark.contest import Result
from parity.benchmark.models import MODES, time_model
from parity.benchmark.suites import Suite
from parity.porting import port


@dataclass(frozen=True)
class Case:
    """A model of the user's, in torch and perhaps in JAX, and the shape of its input."""

    name: str
    subjects: Sequence[Any]
    shape: tuple[int, ...]
    dtype: str
    family: str = "yours"


def suite(name: str, subjects: Sequence[Any], shape: tuple[int, ...], dtype: str) -> Suite:
    """A suite of one case: torch's module, and its port or none."""
    return Suite("your model", lambda: _cases(name, subjects, shape, dtype), run, MODES, compiles=True, ports=True)


def _cases(name: str, subjects: Sequence[Any], shape: tuple[int, ...], dtype: str) -> Iterator[Case]:
    yield Case(name, subjects, shape, dtype)


def run(case: Case, *, modes: Sequence[str] = MODES, seconds: float = 0.3, **others: bool) -> list[Result]:
    """Time the model, and a step of SGD on the mean square of its output."""
    torch_model = case.subjects[0]
    rng = np.random.default_rng(0)
    x = rng.normal(size=case.shape).astype(np.float32) if case.dtype == "float32" else rng.integers(0, 2, case.shape)
    if len(case.subjects) == 2:
        model = case.subjects[1]
        nn.load_state_dict(model, weights.load(torch_model))
    else:
        others["ported"], model = False, port(torch_model, (torch.from_numpy(x),)).module
    identity = ("own", case.family, case.name)
    return time_model(identity, torch_model, model, (x,), modes, seconds, **others)
