"""The databases there are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from parity.conformance import modules, operators
from parity.conformance.result import Result


@dataclass(frozen=True)
class Database:
    """One of PyTorch's test databases and how it is run.

    Attributes:
        entries: all of them.
        name: of an entry.
        dtypes: those an entry supports on a CPU.
        run: ``run(entry, dtype, stride=1, seed=0)``.
    """

    entries: Callable[[], list[Any]]
    name: Callable[[Any], str]
    dtypes: Callable[[Any], frozenset[torch.dtype]]
    run: Callable[..., Result]


def databases() -> dict[str, Database]:
    """By the name the command line knows them under."""
    return {
        "operators": Database(
            operators.functional_entries,
            operators.entry_name,
            operators.entry_dtypes,
            operators.run_entry,
        ),
        "modules": Database(modules.module_entries, modules.module_name, modules.module_dtypes, modules.run_module),
    }
