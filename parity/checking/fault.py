"""What a check says of one layer."""

from dataclasses import asdict, dataclass, field
from typing import Any

from parity.comparison import Comparison


@dataclass
class LayerRecord:
    """One call of one layer, on torch's inputs.

    Attributes:
        path: the layer's dotted path in torch; empty for the model itself.
        call: which of its calls, from 0.
        kind: torch's class.
        depth: how many calls of layers came before it.
        error: distance of its output from torch's, root mean square, relative.
        allowed: the largest error against the truth that passes; None where the outputs are so close that no truth
            was needed.
        passed: the verdict.
        layout: how the port's output is laid out, where not as torch's.
        axes: torch's axes in the order of the port's output.
        unlike: what the port's has another size than torch's, in words: it was run on torch's input besides.
        compared: whether it could be; otherwise it passes with what is around it.
    """

    path: str
    call: int
    kind: str
    depth: int = 0
    error: float = 0.0
    allowed: float | None = None
    passed: bool = True
    layout: str = ""
    axes: tuple[int, ...] = ()
    unlike: str = ""
    compared: bool = True

    @property
    def name(self) -> str:
        """The path, and the call where it is not the first."""
        return (self.path or self.kind) + (f" (call {self.call + 1})" if self.call else "")

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


@dataclass
class Fault:
    """A layer that is wrong although its inputs are right.

    Attributes:
        path: the layer's dotted path; empty for the model's own code.
        call: which of its calls, from 0.
        kind: ``output``, ``buffer``, ``gradient`` and so on: what of it is wrong.
        what: how far it is off.
        suspect: the kind of mistake, such as ``padding``; None where none explains it.
        reason: the mistake in a sentence; empty where it is not known.
        row: the comparison that failed.
    """

    path: str
    call: int
    kind: str
    what: str
    suspect: str | None = None
    reason: str = ""
    row: Comparison | None = field(default=None, repr=False)

    def __str__(self) -> str:
        own = "training" if self.kind == "training" else "the model's own code"
        place = (self.path or own) + (f", call {self.call + 1}" if self.call else "")
        return f"{place}: {self.reason or self.what}"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {key: value for key, value in asdict(self).items() if key != "row"}
