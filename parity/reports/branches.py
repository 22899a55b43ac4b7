"""The layers of a report as a tree."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parity.checking.fault import Fault, LayerRecord
    from parity.checking.report import Report


@dataclass
class Branch:
    """A layer and the layers in it."""

    name: str
    records: "list[LayerRecord]" = field(default_factory=list)
    children: "list[Branch]" = field(default_factory=list)
    faults: "list[Fault]" = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every call passed."""
        return all(record.passed for record in self.records)

    @property
    def error(self) -> float | None:
        """The worst call's distance from torch; None where none could be compared."""
        return max((record.error for record in self.records if record.compared), default=None)

    @property
    def unlike(self) -> str:
        """What has another size than torch's."""
        return next((record.unlike for record in self.records if record.unlike), "")

    @property
    def said(self) -> str:
        """The layer in words, but for the verdict."""
        calls = f"{len(self.records)} calls" if len(self.records) > 1 else ""
        off = "" if self.error is None else f"off torch's by {self.error:.1e}"
        unlike = self.unlike and (self.unlike if self.error is None else f"on torch's input: {self.unlike}")
        return ", ".join(part for part in (self.kind, calls, self.layout, off, unlike) if part)

    @property
    def kind(self) -> str:
        """Torch's class."""
        return self.records[0].kind

    @property
    def layout(self) -> str:
        """The port's, where not torch's."""
        return self.records[0].layout


def tree(report: "Report") -> Branch:
    """The layers by path; in the order torch enters them."""
    root = Branch("model")
    branches = {"": root}
    paths = {record.path for record in report.layers} | {fault.path for fault in report.faults}
    first = {
        path: min((r.depth for r in report.layers if _within(r.path, path)), default=0) for path in _with_parents(paths)
    }
    for path in sorted(first, key=lambda path: (path.count("."), first[path])):
        if path:
            parent, _, name = path.rpartition(".")
            branches[path] = Branch(name)
            branches[parent].children.append(branches[path])
    for record in report.layers:
        branches[record.path].records.append(record)
    for fault in report.faults:
        if fault.kind != "training":
            branches[fault.path].faults.append(fault)
    return root


def _with_parents(paths: set[str]) -> set[str]:
    pieces = (path.split(".") for path in paths)
    return {".".join(piece[:i]) for piece in pieces for i in range(len(piece) + 1)}


def _within(path: str, parent: str) -> bool:
    return not parent or path == parent or path.startswith(f"{parent}.")
