"""The layers of a checked model as a terminal tree, a verdict each."""

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text
from rich.tree import Tree

from parity.reports.branches import Branch, tree
from parity.reports.terminal import report_table, verdict

if TYPE_CHECKING:
    from parity.checking.report import Report


def layer_tree(report: "Report") -> Tree:
    """A branch for each layer; wrong ones carry the reason."""
    root = tree(report)
    drawn = Tree(_line(root))
    _grow(drawn, root)
    for title, paths in (("only in torch", report.only_torch), ("only in JAX", report.only_jax)):
        if paths:
            drawn.add(f"[dim]{title}: {escape(', '.join(paths))}[/]")
    return drawn


def report_view(report: "Report") -> RenderableType:
    """The tree of layers, the table of comparisons, and the mistakes found."""
    parts: list[RenderableType] = [layer_tree(report)] if report.layers else []
    parts.append(report_table(report))
    if report.faults:
        title = "at fault, in the order of the layers:" if len(report.faults) > 1 else "at fault:"
        parts.append(Text("\n".join([title, *(f"  {fault}" for fault in report.faults)])))
    return Group(*parts)


def _grow(drawn: Tree, branch: Branch) -> None:
    for fault in branch.faults:
        drawn.add(Text(fault.reason or fault.what, style="red"))
    for child in branch.children:
        _grow(drawn.add(_line(child)), child)


def _line(branch: Branch) -> str:
    name = f"[bold]{escape(branch.name)}[/]"
    if not branch.records:
        return name
    uncompared = branch.passed and branch.error is None
    return f"{name} [dim]{escape(branch.said)}[/] {'[yellow]not compared[/]' if uncompared else verdict(branch.passed)}"
