"""One row of a benchmark: the same work done by torch, by jaxnn and by others, checked, then timed."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from parity.benchmark.timing import interleaved
from parity.benchmark.torch_side import to_numbers

JAXNN, TORCH, COMPILED, PORT = "jaxnn", "torch", "torch.compile", "port"
CLOSE = 1e-3
"""Norm of a difference by the norm of torch's result, up to which two results count as the same."""


class WrongAnswerError(AssertionError):
    """A contender's result is not torch's: it is not timed."""


@dataclass(frozen=True)
class Program:
    """A compiled function of jaxnn's, and what XLA says of it.

    Attributes:
        call: the compiled function.
        compile_seconds: to trace, lower and compile it.
        temporary_bytes: memory it takes besides arguments and results.
        operations: floating-point operations, as XLA counts them; 0 where it cannot: it counts a loop's body once.
        traffic: bytes read and written, likewise.
    """

    call: Callable[..., Any]
    compile_seconds: float
    temporary_bytes: int
    operations: float
    traffic: float


@dataclass(frozen=True)
class Result:
    """What a row measured.

    Attributes:
        suite: it belongs to.
        family: of rows, for the means.
        name: of the row.
        mode: ``forward``, ``backward`` (which includes forward) or ``step``.
        seconds: medians, by contender.
        ratio: jaxnn's time by torch's, in the faster of its forms.
        interval: where that lies with a chance of 95 %.
        others: jaxnn's time by each other contender's.
        compile_seconds: of jaxnn.
        first_call_seconds: of jaxnn, once compiled.
        temporary_bytes: of jaxnn.
        operations: of jaxnn; 0 where they cannot be counted.
        traffic: of jaxnn, likewise.
        notes: why a contender is missing.
    """

    suite: str
    family: str
    name: str
    mode: str
    seconds: dict[str, float]
    ratio: float
    interval: tuple[float, float]
    others: dict[str, float]
    compile_seconds: float
    first_call_seconds: float
    temporary_bytes: int
    operations: float
    traffic: float
    notes: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells the row from others."""
        return self.suite, self.family, self.name, self.mode


def compiled(function: Callable[..., Any], *args: Any, **options: Any) -> Program:
    """``function`` compiled for ``args``; ``options`` are ``jax.jit``'s."""
    started = time.perf_counter()
    program = jax.jit(function, **options).lower(*args).compile()
    took = time.perf_counter() - started
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    if " while(" in (program.as_text() or ""):
        cost = {}
    temporary = int(getattr(memory, "temp_size_in_bytes", 0))
    return Program(program, took, temporary, cost.get("flops", 0.0), cost.get("bytes accessed", 0.0))


def contest(
    identity: tuple[str, str, str, str],
    contenders: dict[str, Callable[[], Any]],
    program: Program,
    *,
    seconds: float,
    references: Sequence[str] = (TORCH,),
) -> Result:
    """Time ``contenders``, whose results have been checked, ``jaxnn`` among them.

    The fastest of ``references`` is what jaxnn is measured by. ``torch.compile``, which compiles at its first call, is
    left out with a note where that fails.
    """
    notes = []
    if COMPILED in contenders:
        try:
            contenders[COMPILED]()
        except Exception as error:  # of its own compiler, or of the system's
            first_line = (str(error).strip() or repr(error)).splitlines()[0]
            notes.append(f"{COMPILED} fails in {' '.join(identity[2:])}: {type(error).__name__}: {first_line}")
            contenders = {name: call for name, call in contenders.items() if name != COMPILED}
    started = time.perf_counter()
    contenders[JAXNN]()
    first = time.perf_counter() - started
    names = list(contenders)
    timing = interleaved(list(contenders.values()), seconds=seconds)
    jaxnn, reference = names.index(JAXNN), min(map(names.index, references), key=timing.median)
    return Result(
        *identity,
        seconds={name: timing.median(i) for i, name in enumerate(names)},
        ratio=timing.ratio(jaxnn, reference),
        interval=timing.interval(jaxnn, reference),
        others={name: timing.ratio(jaxnn, i) for i, name in enumerate(names) if i not in (jaxnn, reference)},
        compile_seconds=program.compile_seconds,
        first_call_seconds=first,
        temporary_bytes=program.temporary_bytes,
        operations=program.operations,
        traffic=program.traffic,
        notes=notes,
    )


def check_equal(name: str, expected: Sequence[Any], found: Sequence[Any]) -> None:
    """Refuse results that are not torch's.

    Raises:
        WrongAnswerError: there are more tensors or fewer, one has another shape, or differs by more than ``CLOSE`` of
            its norm.
    """
    if len(expected) != len(found):
        raise WrongAnswerError(f"{name}: {len(found)} results, torch's are {len(expected)}; not timed")
    for index, (theirs, ours) in enumerate(zip(expected, found, strict=True)):
        a, b = to_numbers(theirs), to_numbers(ours)
        if a.shape != b.shape:
            raise WrongAnswerError(f"{name}: result {index} has shape {b.shape}, torch's {a.shape}; not timed")
        distance, scale = float(np.linalg.norm(a - b)), float(np.linalg.norm(a))
        if not distance <= CLOSE * max(scale, 1e-6):
            raise WrongAnswerError(f"{name}: result {index} differs by {distance / scale:.1e} of its norm; not timed")


def blocking(call: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """A call that returns when its result is there."""
    return lambda: jax.block_until_ready(call(*args))


def torch_compiler() -> str:
    """Why ``torch.compile`` cannot run here, or nothing."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++", "gcc", "clang")):
        return "torch.compile: no C++ compiler found"
    return ""
