"""What a check found."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from parity.checking.fault import Fault, LayerRecord
from parity.comparison import Comparison


class DivergenceError(AssertionError):
    """The JAX side is wrong by more than rounding explains."""


@dataclass(repr=False)
class Report:
    """The verdict of a check and the rows it rests on.

    Attributes:
        rows: a comparison for each output, gradient, buffer and, after training, parameter.
        first_divergence: the dotted path of the first layer (else the name of the first row) that is wrong; None where
            everything passed.
        losses: torch's and JAX's loss of each training step.
        notes: what the rows do not say, such as parameters one side lacks.
        faults: every layer that is wrong although its inputs are right, in the order in which torch's return.
        layers: every call of a layer that both sides have, in that order, with its verdict.
        last_right_gradient: where a gradient is wrong: the last layer, from the output backwards, at whose output it is
            still right.
        only_torch: paths of layers that torch calls and JAX lacks, or does not call.
        only_jax: paths of layers that JAX alone has.
    """

    rows: list[Comparison]
    first_divergence: str | None = None
    losses: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    layers: list[LayerRecord] = field(default_factory=list)
    last_right_gradient: str | None = None
    only_torch: list[str] = field(default_factory=list)
    only_jax: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every row passed and no layer is at fault."""
        return not self.faults and all(row.passed for row in self.rows)

    def raise_for_divergence(self) -> None:
        """Raise :class:`DivergenceError` with the whole report unless everything passed."""
        if not self.passed:
            raise DivergenceError(str(self))

    def to_json(self) -> str:
        """The report as JSON; numbers that JSON lacks stand as null."""
        content = {
            "passed": self.passed,
            "first_divergence": self.first_divergence,
            "rows": [row.to_dict() for row in self.rows],
            "losses": self.losses,
            "notes": self.notes,
            "faults": [fault.to_dict() for fault in self.faults],
            "layers": [layer.to_dict() for layer in self.layers],
            "last_right_gradient": self.last_right_gradient,
            "only_torch": self.only_torch,
            "only_jax": self.only_jax,
        }
        return json.dumps(finite(content), indent=2, allow_nan=False)

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one page that needs nothing beside it: mistakes, layers, plots, comparisons."""
        from parity.reports.html import page

        Path(path).write_text(page(self), encoding="utf-8")

    def __repr__(self) -> str:
        from parity.reports.layer_tree import report_view
        from parity.reports.terminal import rendered

        return rendered(report_view(self))


def finite(content: object) -> object:
    """``content`` with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(content, float):
        return content if abs(content) < float("inf") else None
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return content
