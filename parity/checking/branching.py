"""``torch.cond`` where a model runs as it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from parity.standing_in import with_code_of


@contextmanager
def branches_taken() -> Iterator[None]:
    """Lets ``torch.cond`` run the branch that its predicate picks, by whatever name it was imported.

    By itself it compiles both, which takes seconds, refuses branches that read parameters, and has no gradient in some.
    """
    with with_code_of(torch.cond, _taken):
        yield


def _taken(pred: Any, true_fn: Any, false_fn: Any, operands: Any = ()) -> Any:
    return (true_fn if pred else false_fn)(*operands)
