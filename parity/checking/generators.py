"""The generators that models draw from: torch's, Python's and NumPy's."""

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def numbers() -> tuple[Any, Any]:
    """Where the generators of Python and NumPy stand."""
    return random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002 (models use this one)


def comparable(place: tuple[Any, Any]) -> Any:
    """The same as what ``==`` compares."""
    return place[0], pickle.dumps(place[1])


def set_numbers(place: tuple[Any, Any]) -> None:
    """Put them where they stood."""
    random.setstate(place[0])
    np.random.set_state(place[1])  # noqa: NPY002 (models use this one)


def seed_numbers(seed: int) -> None:
    """Put them where ``seed`` does."""
    random.seed(seed)
    kind = numbers()[1]["bit_generator"]
    if kind == "MT19937":
        np.random.seed(seed % 2**32)  # noqa: NPY002 (models use this one)
    else:
        np.random.set_state({**getattr(np.random, kind)(seed % 2**32).state})  # noqa: NPY002


def place() -> tuple[torch.Tensor, tuple[Any, Any]]:
    """Where all three stand."""
    return torch.get_rng_state(), numbers()


def set_place(place: tuple[torch.Tensor, tuple[Any, Any]]) -> None:
    """Put all three where they stood."""
    torch.set_rng_state(place[0])
    set_numbers(place[1])


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """All three at ``seed`` within, as they were afterwards."""
    before = place()
    torch.manual_seed(seed)
    seed_numbers(seed)
    try:
        yield
    finally:
        set_place(before)
