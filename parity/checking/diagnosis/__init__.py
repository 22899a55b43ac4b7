"""Why a layer is wrong: the mistake that explains what the port puts out."""

from parity.checking.diagnosis import attention, elementwise, recurrence
from parity.checking.diagnosis.explain import explain as explain

__all__ = ["attention", "elementwise", "explain", "recurrence"]
