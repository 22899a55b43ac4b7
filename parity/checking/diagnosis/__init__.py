"""Why a layer is wrong: the mistake that explains what the port puts out."""

from parity.checking.diagnosis import elementwise, sequences
from parity.checking.diagnosis.explain import explain as explain

__all__ = ["elementwise", "explain", "sequences"]
