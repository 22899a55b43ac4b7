"""The suites by name, and what they have in common."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from parity.benchmark import convolutions, models, operators, optimizers, steps
from parity.benchmark.contest import Result


@dataclass(frozen=True)
class Suite:
    """Cases, and how one is timed.

    Attributes:
        about: what it times, in a line.
        cases: each has a ``family`` and a ``name``; takes a batch size where ``batched``, and a text's length where
            ``lengthened``.
        run: the results of a case.
        modes: that its cases have.
        batched: whether the batch can be chosen.
        lengthened: whether the length of texts can be chosen too.
        compiles: whether ``torch.compile`` is timed unless told otherwise: it takes seconds a row.
        ports: whether the port of its torch models can be timed too.
    """

    about: str
    cases: Callable[..., Iterator[Any]]
    run: Callable[..., list[Result]]
    modes: tuple[str, ...]
    batched: bool = False
    lengthened: bool = False
    compiles: bool = False
    ports: bool = False


SUITES = {
    "op": Suite("functions of jaxnn.functional", operators.cases, operators.run, ("forward", "backward"), True),
    "conv": Suite("convolutions of common networks", convolutions.cases, convolutions.run, ("forward", "backward")),
    "step": Suite("a training step of a small network", steps.cases, steps.run, ("step",), True, compiles=True),
    "model": Suite("whole networks", models.cases, models.run, ("forward", "step"), True, True, True, True),
    "optim": Suite("an update of 25 million parameters", optimizers.cases, optimizers.run, ("step",)),
}
