"""The command line: ``python -m parity``."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from parity.benchmark.command import bench
from parity.checking.command import check
from parity.options import Device, Json, check_writable, pattern_of, progress_bar, start_jax, write_json
from parity.porting.command import port

app = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="draw the loss curves to FILE (.png, .svg, .pdf)")
    ] = None,
    json_file: Json = None,
    device: Device = None,
    details: Annotated[
        bool, typer.Option("--details", help="print every comparison, not only a line for each row")
    ] = False,
) -> None:
    """PyTorch and JAX, side by side.

    Without a command: the tutorial's eight rows in both frameworks with torch's weights, and a classifier of
    handwritten digits trained in both. Every result of JAX is held against torch in float64. It passes when its error
    is within a small factor of what rounding explains: torch's own float32 error, or the effect of rounding the
    inputs.

    Exit code: 0 if everything passes, 1 if anything differs, 2 for a wrong option.
    """
    if context.invoked_subcommand is not None:
        return
    console = Console()
    check_writable(plot, json_file)
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"{plot} must end in .png, .svg or .pdf", param_hint="--plot")
    start_jax(device)
    import torch

    from parity import demo as tutorial_demo
    from parity import digits
    from parity.reports.terminal import demo_table, digits_table, report_table

    torch.manual_seed(0)
    started = time.perf_counter()
    titles = list(tutorial_demo.rows())
    rows = []
    with progress_bar(console) as progress:
        task = progress.add_task("", total=len(titles) + 1)
        for title, run in titles:
            progress.update(task, description=title)
            rows.append(run())
            progress.advance(task)
        progress.update(task, description="training on digits")
        trained = digits.train()
        progress.advance(task)
    console.print(demo_table(rows))
    if details:
        for row in rows:
            console.print(f"[bold]{row.name}[/]", report_table(row.report))
    console.print(digits_table(trained))
    if plot is not None:
        trained.plot(plot)
        console.print(f"Loss curves: {plot}")
    passed = all(row.report.passed for row in rows) and trained.report.passed
    if json_file is not None:
        write_json(
            json_file,
            {
                "passed": passed,
                "rows": [{"name": r.name, "shapes": r.shapes, **json.loads(r.report.to_json())} for r in rows],
                "digits": {"accuracies": trained.accuracies, **json.loads(trained.report.to_json())},
            },
        )
    failed = [row for row in [*(r.report for r in rows), trained.report] if not row.passed]
    for report in failed:
        console.print(report_table(report))
    verdict = "[green]Everything passes[/]" if passed else "[bold red]Something differs[/]"
    console.print(f"{verdict} in {time.perf_counter() - started:.0f} s.")
    raise typer.Exit(0 if passed else 1)


@app.command()
def conformance(
    filter: Annotated[
        str, typer.Option(metavar="REGEX", help="only entries whose name matches, such as '^max_pool'")
    ] = "",
    database: Annotated[str, typer.Option(help="operators (jaxnn.functional) or modules (jaxnn.nn)")] = "operators",
    dtype: Annotated[str, typer.Option(help="comma-separated: float32, float64")] = "float32,float64",
    stride: Annotated[int, typer.Option(min=1, help="take every so many samples; 1 takes all")] = 1,
    seed: Annotated[int, typer.Option(help="of torch's generator, from which samples are drawn")] = 0,
    failures: Annotated[int, typer.Option(min=0, help="print so many failures of each entry")] = 3,
    json_file: Json = None,
) -> None:
    """Run the databases PyTorch tests itself with against jaxnn.

    A table of entries: samples, gradients and error inputs passed. Exit code: 0 if all pass, 1 if not.
    """
    console = Console()
    check_writable(json_file)
    pattern = pattern_of(filter)
    import torch

    from parity.conformance import databases
    from parity.reports.terminal import conformance_table

    names = dtype.split(",")
    if unknown := [name for name in names if name not in ("float32", "float64")]:
        raise typer.BadParameter(f"must be float32 or float64, got {', '.join(unknown)}", param_hint="--dtype")
    chosen = databases().get(database)
    if chosen is None:
        raise typer.BadParameter(f"must be {' or '.join(databases())}, got {database!r}", param_hint="--database")
    entries = [entry for entry in chosen.entries() if pattern.search(chosen.name(entry))]
    if not entries:
        raise typer.BadParameter(f"{filter!r} matches no entry", param_hint="--filter")
    # What takes no floating point is run in the dtypes it takes.
    wanted = {getattr(torch, name) for name in names} | {torch.complex64, torch.complex128, torch.int64}
    work = [(entry, kind) for entry in entries for kind in sorted(chosen.dtypes(entry) & wanted, key=str)]
    results = []
    with progress_bar(console) as progress:
        task = progress.add_task("", total=len(work))
        for entry, kind in work:
            progress.update(task, description=f"{chosen.name(entry)} {str(kind).removeprefix('torch.')}")
            result = chosen.run(entry, kind, stride=stride, seed=seed)
            results.append(result)
            progress.advance(task)
            for line in result.failures[:failures]:
                said = f"{result.name} {result.dtype}: {line}"
                console.print(said, markup=False, highlight=False, soft_wrap=True)
    target = "jaxnn.functional" if database == "operators" else "jaxnn.nn"
    console.print(conformance_table(results, f"PyTorch's database of {database} against {target}"))
    if json_file is not None:
        write_json(json_file, {"results": [result.to_dict() for result in results], "stride": stride, "seed": seed})
    raise typer.Exit(0 if all(result.passed for result in results) else 1)


app.command()(check)
app.command()(port)
app.command()(bench)


def main() -> None:
    """Entry point."""
    app(prog_name="python -m parity")
