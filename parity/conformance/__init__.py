"""PyTorch's own test databases, run against jaxnn."""

from parity.conformance.database import Database as Database
from parity.conformance.database import databases as databases
from parity.conformance.result import Result as Result
