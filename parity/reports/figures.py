"""Plots of a report as SVG text, to stand inside a page."""

import math
from io import StringIO
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from parity.checking.report import Report

LEAST = 1e-9
"""Errors of zero are drawn here."""


def error_against_depth(report: "Report") -> str:
    """Distance of each layer call's output from torch's, given torch's inputs, in the order in which they return."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axis = figure.subplots()
    places = list(enumerate(report.layers))
    for passed, colour, label in ((True, "tab:blue", "passes"), (False, "tab:red", "at fault")):
        chosen = [(i, layer) for i, layer in places if layer.passed is passed and layer.compared]
        if chosen:
            axis.plot(
                [i for i, _ in chosen],
                [_drawn(layer.error) for _, layer in chosen],
                "o",
                color=colour,
                label=label,
                ms=4,
            )
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(
        xlabel="call of a layer, in the order in which they return (the model itself last)",
        ylabel=f"distance from torch\n(zeros drawn at {LEAST:.0e})",
    )
    for i, layer in places:
        if not layer.passed:
            axis.annotate(layer.name, (i, _drawn(layer.error)), fontsize=8)
    axis.grid(alpha=0.3)
    axis.legend()
    return _svg(figure)


def loss_curves(report: "Report") -> str:
    """Torch's and JAX's loss of each step, and their difference."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    curves, difference = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    steps = range(1, len(report.losses) + 1)
    curves.plot(steps, [a for a, _ in report.losses], lw=3, alpha=0.5, label="torch")
    curves.plot(steps, [b for _, b in report.losses], lw=1, color="black", label="JAX")
    curves.set(ylabel="loss")
    curves.legend()
    apart = [abs(a - b) for a, b in report.losses]
    difference.plot(steps, [x if 0 < x < math.inf else math.nan for x in apart], ".", color="tab:red")
    if any(0 < x < math.inf for x in apart):
        difference.set_yscale("log")
        low, high = (math.log10(end(x for x in apart if 0 < x < math.inf)) for end in (min, max))
        difference.set_ylim(10 ** math.floor(low), 10 ** (math.floor(high) + 1))  # a decade at least, or no tick is
    difference.set(xlabel="step (no dot: equal)", ylabel="|difference|")
    difference.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (curves, difference):
        axis.grid(alpha=0.3)
    return _svg(figure)


def error_histogram(report: "Report") -> str:
    """How many tensors are how far from the truth, torch's and JAX's."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axis = figure.subplots()
    sides = [
        [math.log10(_drawn(getattr(row, side))) for row in report.rows if math.isfinite(row.jax_error)]
        for side in ("torch_error", "jax_error")
    ]
    axis.hist(sides, bins=24, label=["torch", "JAX"], color=["tab:orange", "tab:blue"])
    axis.set(xlabel="log10 of the relative error against float64 (zeros drawn at -9)", ylabel="tensors")
    axis.grid(alpha=0.3)
    axis.legend()
    return _svg(figure)


def _drawn(error: float) -> float:
    return min(max(error, LEAST), 1e9) if not math.isnan(error) else 1e9


def _svg(figure: Figure) -> str:
    text = StringIO()
    # Letters as letters: they can be searched, and need no font in the page.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "parity"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
