"""How a database entry fared, and how much error is always allowed."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import TypeCheckError

FLOORS = {torch.float32: 16.0, torch.float64: 1e5, torch.complex64: 16.0, torch.complex128: 1e5}
"""Error always allowed, in machine epsilons of a tensor's norm.

In float32 torch's own error is often zero on samples of a few elements. Float64 has no truth above it: two float64
programs may differ by the rounding of sums of some thousand ill-conditioned terms (2e-11); a wrong formula is off by
far more.
"""


@dataclass
class Result:
    """How one database entry fared in one dtype: samples run and passed, and a line for each failure."""

    name: str
    dtype: str
    samples: int = 0
    samples_passed: int = 0
    gradients: int = 0
    gradients_passed: int = 0
    errors: int = 0
    errors_passed: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def to_dict(self) -> dict[str, object]:
        """As plain data, for JSON."""
        return asdict(self)


def refusal_fault(error: Exception | None, error_input: Any) -> str:
    """What is wrong with ``error``, raised or not, where torch refuses ``error_input``; empty where nothing is.

    A type checker that watches the run (as in the tests) may refuse an argument the library let through: its error is
    none of the library's.
    """
    if error is None or isinstance(error, TypeCheckError):
        return f"is not refused; torch says {error_input.error_regex!r}"
    if isinstance(error, error_input.error_type):
        return ""
    return f"raises {type(error).__name__} ({error}), torch {error_input.error_type.__name__}"
