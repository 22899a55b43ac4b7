"""The results as a picture."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parity.benchmark.contest import Result

if TYPE_CHECKING:
    from matplotlib.axis import Axis


def plot(results: Sequence[Result], path: Path) -> None:
    """Each row's ratio to torch with its interval, slowest on top.

    Where batches or lengths vary, time against them beside it.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = sorted(results, key=lambda result: result.ratio)
    grown = [(of, curves) for of in ("batch", "length") if (curves := _by_size(results, of))]
    size = (9 + 8 * len(grown), max(1.5 + 0.26 * len(rows), 5 * bool(grown)))
    figure, axes = plt.subplots(1, 1 + len(grown), figsize=size, squeeze=False, layout="constrained")
    left, *others = axes[0]
    ratios = [row.ratio for row in rows]
    spread = [[max(r.ratio - r.interval[0], 0) for r in rows], [max(r.interval[1] - r.ratio, 0) for r in rows]]
    colours = ["tab:green" if ratio <= 1 else "tab:orange" if ratio <= 1.5 else "tab:red" for ratio in ratios]
    widths = [ratio - 1 for ratio in ratios]
    left.barh(range(len(rows)), widths, left=1, xerr=spread, color=colours, ecolor="0.3", height=0.7)
    left.axvline(1, color="black", linewidth=1)
    left.set_xscale("log")
    _plain_numbers(left.xaxis)
    left.set_yticks(range(len(rows)), [f"{row.name}, {row.mode}" for row in rows], fontsize=8)
    left.set_xlabel("time of jaxnn under jit / time of torch, 95 % interval (left of 1: jaxnn is faster)")
    left.set_title(f"jaxnn against torch: {rows[0].suite} suite")
    for right, (of, curves) in zip(others, grown, strict=True):
        rows_of = list(dict.fromkeys((name, mode) for name, mode, _ in curves))
        for (name, mode, contender), points in curves.items():
            sizes, seconds = zip(*sorted(points), strict=True)
            style = {"linestyle": "-" if contender == "jaxnn" else "--", "marker": "o" if contender == "jaxnn" else "s"}
            colour = f"C{rows_of.index((name, mode))}"
            label = f"{name}, {mode}: {contender}"
            right.loglog(sizes, [s * 1e3 for s in seconds], color=colour, label=label, **style)
        ticks = sorted({size for points in curves.values() for size, _ in points})
        right.set_xticks(ticks, [str(size) for size in ticks])
        right.set_xticks([], minor=True)
        _plain_numbers(right.yaxis)
        right.set_xlabel(of)
        right.set_ylabel("milliseconds")
        right.set_title(f"growth with the {of}")
        right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path)
    plt.close(figure)


def _plain_numbers(axis: "Axis") -> None:
    """Ticks of a logarithmic axis as people write numbers, closer where it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 10 * low else MaxNLocator(6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _by_size(results: Sequence[Result], of: str) -> dict[tuple[str, str, str], list[tuple[int, float]]]:
    """Points of each row and contender, where rows differ in nothing but their ``batch`` or ``length``."""
    curves: dict[tuple[str, str, str], list[tuple[int, float]]] = defaultdict(list)
    for result in results:
        found = re.fullmatch(rf"(.*), {of} (\d+)(.*)", result.name)
        for contender, seconds in result.seconds.items():
            if found:
                curves[found[1] + found[3], result.mode, contender].append((int(found[2]), seconds))
    return {key: points for key, points in curves.items() if len(points) > 1}
