"""Timings as terminal tables."""

from collections.abc import Sequence
from math import exp, log
from statistics import fmean
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from parity.benchmark.contest import Result
    from parity.benchmark.history import Change


def timing_table(results: "Sequence[Result]", rates: tuple[float, float], *, wide: bool = True) -> Table:
    """A line for each row, slowest against torch first, times in milliseconds.

    Args:
        results: of one suite.
        rates: floating-point operations and bytes a second of this machine's matrix product and copy.
        wide: also what compiling took, and memory.
    """
    others = list(dict.fromkeys(name for r in results for name in r.seconds if name != "jaxnn"))
    table = Table(
        title="Milliseconds, and jaxnn's time under jit by torch's with its 95 % interval",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption=f"limit: how near the work that XLA counts comes to this machine's own {rates[0] / 1e9:.0f} GFLOP/s "
        f"(matrix product) or {rates[1] / 1e9:.1f} GB/s (copy), whichever is nearer; empty where a loop hides it",
        caption_justify="left",
    )
    # Long names fold rather than squeeze the row's own out of a narrow terminal.
    table.add_column("row", min_width=13)
    names = [name.replace(" ", "\n").replace("torch.", "torch.\n") for name in others]
    for header in (*names, "jaxnn", "ratio", "95 %", "limit", *(("compile", "memory") if wide else ())):
        table.add_column(header, justify="right", no_wrap=True)
    for r in sorted(results, key=lambda result: -result.ratio):
        table.add_row(
            f"{r.name} [dim]{r.mode}[/]",
            *(milliseconds(r.seconds[name]) if name in r.seconds else "" for name in (*others, "jaxnn")),
            coloured(r.ratio),
            f"{r.interval[0]:.2f}-{r.interval[1]:.2f}",
            f"{share_of_limit(r, rates):.0%}" if r.operations or r.traffic else "",
            *((f"{r.compile_seconds:.1f} s", f"{r.temporary_bytes / 2**20:.1f} MB") if wide else ()),
        )
    return table


def mean_table(results: "Sequence[Result]") -> Table:
    """The geometric mean of the ratios to each contender: of every family in every mode, and of all."""
    others = list(dict.fromkeys(name for r in results for name in r.others))
    table = Table(title="Geometric means: jaxnn's time by each other's", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rows")
    for header in ("", "torch", *others):
        table.add_column(header, justify="right")
    for label, chosen in _groups(results):
        by_other = ([r.others[name] for r in chosen if name in r.others] for name in others)
        cells = [coloured(mean(ratios)) if ratios else "" for ratios in by_other]
        table.add_row(label, str(len(chosen)), coloured(mean([r.ratio for r in chosen])), *cells)
    return table


def change_table(changes: "Sequence[Change]") -> Table:
    """A line for each row two runs share, the worst first."""
    table = Table(title="Ratio to torch, before and now", box=box.SIMPLE_HEAD)
    table.add_column("row")
    table.add_column("mode")
    for header in ("before", "now", ""):
        table.add_column(header, justify="right")
    for change in changes:
        spans = (f"{low:.2f}-{high:.2f}" for low, high in (change.before, change.now))
        table.add_row(change.key[2], change.key[3], *spans, "[bold red]slower[/]" if change.regressed else "")
    return table


def share_of_limit(result: "Result", rates: tuple[float, float]) -> float:
    """The least time the counted work takes here, by the time it took."""
    least = max(result.operations / rates[0], result.traffic / rates[1])
    return min(least / result.seconds["jaxnn"], 1.0)


def milliseconds(seconds: float) -> str:
    """Three digits."""
    digits = 3 if seconds < 1e-3 else 2 if seconds < 1e-2 else 1 if seconds < 0.1 else 0
    return f"{seconds * 1e3:.{digits}f}"


def coloured(ratio: float) -> str:
    """Green where jaxnn is at least as fast, red where it takes half as long again."""
    return f"[green]{ratio:.2f}[/]" if ratio <= 1 else f"{ratio:.2f}" if ratio <= 1.5 else f"[red]{ratio:.2f}[/]"


def mean(ratios: Sequence[float]) -> float:
    """The geometric mean."""
    return exp(fmean(map(log, ratios)))


def _groups(results: "Sequence[Result]") -> "list[tuple[str, Sequence[Result]]]":
    keys = sorted({(r.family, r.mode) for r in results})
    groups: list[tuple[str, Sequence[Result]]] = []
    if len(keys) > 1:
        groups = [(f"{f}, {m}", [r for r in results if (r.family, r.mode) == (f, m)]) for f, m in keys]
    return [*groups, ("all", results)]
