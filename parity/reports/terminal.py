"""Reports as terminal tables."""

from io import StringIO
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from parity.checking.report import Report
    from parity.conformance import Result
    from parity.demo import Row
    from parity.digits import Digits


def rendered(content: RenderableType, width: int = 120) -> str:
    """``content`` as plain text."""
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(content)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def report_table(report: "Report") -> Table:
    """A row for each comparison, the verdict in the title, reasons and notes beneath."""
    failed = [row for row in report.rows if not row.passed]
    title = (
        f"{len(report.rows)} comparisons, all pass"
        if not failed
        else f"{len(failed)} of {len(report.rows)} comparisons fail"
    )
    lines = [f"{row.name}: {row.reason}" for row in failed[:10]]
    if len(failed) > 10:
        lines.append(f"and {len(failed) - 10} more")
    if report.first_divergence is not None:
        lines.insert(0, f"first divergence: {report.first_divergence}")
    table = Table(
        title=title,
        caption=escape("\n".join(lines + report.notes)),
        box=box.SIMPLE_HEAD,
        caption_justify="left",
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    # Where the terminal is narrow a name goes on in the next line; cut off, it would say nothing.
    table.add_column("tensor", overflow="fold", min_width=10)
    table.add_column("shape")
    for header in ("ULP", "torch error", "JAX error", "allowed"):
        table.add_column(header, justify="right", min_width=7)
    table.add_column("verdict", min_width=7)
    for row in report.rows:
        table.add_row(
            row.kind,
            escape(row.name),
            escape(str(row.shape)),
            f"{row.ulps:.1f}" if row.ulps < 1e5 else f"{row.ulps:.1e}",
            *(f"{error:.1e}" for error in (row.torch_error, row.jax_error, row.allowed)),
            verdict(row.passed),
        )
    return table


def verdict(passed: bool) -> str:
    """The word, in its colour."""
    return "[green]pass[/]" if passed else "[bold red]FAIL[/]"


def demo_table(rows: "list[Row]") -> Table:
    """The tutorial, a line for each row: its worst errors and its verdict."""
    table = Table(
        title="The tutorial: worst distance of JAX from torch, and relative errors against float64",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("row", no_wrap=True)
    for header in ("ULP", "torch", "JAX", "grads", "all"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in rows:
        outputs = [r for r in row.report.rows if r.kind == "output"]
        gradients = [r for r in row.report.rows if r.kind == "gradient"]
        table.add_row(
            "\n  ".join([row.name, *(f"[dim]{escape(shapes)}[/]" for shapes in row.shapes.split())]),
            f"{max(r.ulps for r in outputs):.1f}",
            f"{max(r.torch_error for r in outputs):.1e}",
            f"{max(r.jax_error for r in outputs):.1e}",
            f"{sum(r.passed for r in gradients)}/{len(gradients)}",
            f"{sum(r.passed for r in row.report.rows)}/{len(row.report.rows)}",
            verdict(row.report.passed),
        )
    return table


def digits_table(digits: "Digits") -> Table:
    """Mean loss of each epoch and final accuracy, torch beside JAX."""
    table = Table(
        title="Digits: a small convolutional network, SGD with momentum, the same batches", box=box.SIMPLE_HEAD
    )
    table.add_column("")
    table.add_column("torch", justify="right")
    table.add_column("jaxnn", justify="right")
    table.add_column("verdict")
    for epoch, theirs, ours in digits.epoch_means():
        table.add_row(f"mean loss, epoch {epoch}", f"{theirs:.6f}", f"{ours:.6f}")
    table.add_row(
        "accuracy, held out", *(f"{accuracy:.2%}" for accuracy in digits.accuracies), verdict(digits.report.passed)
    )
    return table


def conformance_table(results: "list[Result]", title: str) -> Table:
    """A line for each entry, samples, gradients and error inputs passed; the sums beneath."""
    table = Table(title=title, box=box.SIMPLE_HEAD, show_footer=True)

    def total(passed: str, of: str) -> str:
        return f"{sum(getattr(r, passed) for r in results)}/{sum(getattr(r, of) for r in results)}"

    complete = sum(result.passed for result in results)
    table.add_column("entry", footer=f"{len(results)} entries, {complete} complete")
    table.add_column("dtype")
    for header, passed, of in (
        ("samples", "samples_passed", "samples"),
        ("gradients", "gradients_passed", "gradients"),
        ("errors", "errors_passed", "errors"),
    ):
        table.add_column(header, justify="right", footer=total(passed, of))
    table.add_column("verdict")
    for r in results:
        counts = ((r.samples_passed, r.samples), (r.gradients_passed, r.gradients), (r.errors_passed, r.errors))
        table.add_row(r.name, r.dtype, *(f"{a}/{b}" if b else "" for a, b in counts), verdict(r.passed))
    return table
