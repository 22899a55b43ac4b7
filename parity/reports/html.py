"""A report as one page that needs nothing beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from parity.reports import figures
from parity.reports.branches import tree

if TYPE_CHECKING:
    from parity.checking.report import Report


def page(report: "Report", title: str = "JAX against torch") -> str:
    """The report as HTML: mistakes, tree of layers, plots and all comparisons."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    drawn = []
    if report.layers:
        drawn.append(("Error against depth", figures.error_against_depth(report)))
    if report.losses:
        drawn.append(("Loss", figures.loss_curves(report)))
    if report.rows:
        drawn.append(("Errors of all tensors", figures.error_histogram(report)))
    return environment.get_template("report.html").render(
        report=report,
        title=title,
        failed=[row for row in report.rows if not row.passed],
        tree=tree(report) if report.layers else None,
        figures=drawn,
    )
