"""PyTorch's own test databases, run against jaxnn."""

from parity.conformance.operators import functional_entries as functional_entries
from parity.conformance.operators import run_entry as run_entry
from parity.conformance.result import Result as Result
