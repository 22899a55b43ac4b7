"""The command line: ``python -m parity``."""

import json
import platform
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

app = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)

Device = Annotated[
    str | None, typer.Option(help="cpu, gpu or tpu: where JAX runs (torch, the reference, stays on the CPU)")
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write everything measured to FILE")]


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
    _check_writable(plot, json_file)
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"{plot} must end in .png, .svg or .pdf", param_hint="--plot")
    select_device(device)
    import torch

    from parity import demo as tutorial_demo
    from parity import digits
    from parity.reports.terminal import demo_table, digits_table, report_table

    torch.manual_seed(0)
    started = time.perf_counter()
    titles = list(tutorial_demo.rows())
    rows = []
    with _progress(console) as progress:
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
    _check_writable(json_file)
    pattern = _pattern(filter)
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
    with _progress(console) as progress:
        task = progress.add_task("", total=len(work))
        for entry, kind in work:
            progress.update(task, description=f"{chosen.name(entry)} {str(kind).removeprefix('torch.')}")
            result = chosen.run(entry, kind, stride=stride, seed=seed)
            results.append(result)
            progress.advance(task)
            for line in result.failures[:failures]:
                said = f"{result.name} {result.dtype}: {line}"
                console.print(said, markup=False, highlight=False, soft_wrap=True)
    console.print(conformance_table(results))
    if json_file is not None:
        write_json(json_file, {"results": [result.to_dict() for result in results], "stride": stride, "seed": seed})
    raise typer.Exit(0 if all(result.passed for result in results) else 1)


@app.command()
def check(
    torch_name: Annotated[
        str, typer.Argument(metavar="TORCH", help="package.module:callable or path/file.py:callable")
    ],
    jax_name: Annotated[str, typer.Argument(metavar="JAX", help="its port, named in the same way")],
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="arrays for the forward pass", exists=True, dir_okay=False)
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="1,3,224,224", help="or random ones; again for each further input")
    ] = None,
    weights_file: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help=".pt or .safetensors, loaded into both sides")
    ] = None,
    grad: Annotated[bool, typer.Option("--grad", help="compare gradients too")] = False,
    steps: Annotated[int, typer.Option(min=0, help="train for so many steps (mean square of the output)")] = 0,
    dtype: Annotated[
        str, typer.Option(help="float64, float32, bfloat16 or float16: of weights and inputs")
    ] = "float32",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write the report as a page to FILE")] = None,
    json_file: Json = None,
    device: Device = None,
) -> None:
    """Compare a torch module with its port, and name the layer that is wrong and why.

    TORCH and JAX are modules, functions or classes that make one when called without arguments (JAX's may take rngs),
    or plain functions of tensors. Without --weights torch's weights are carried over, unless the two already share
    some.

    Exit code: 0 if they match, 1 if not, 2 for a wrong option or a name that leads nowhere.
    """
    console = Console()
    _check_writable(html, json_file)
    if dtype not in ("float64", "float32", "bfloat16", "float16"):
        raise typer.BadParameter(f"must be float64, float32, bfloat16 or float16, got {dtype!r}", param_hint="--dtype")
    if (inputs is None) == (not shape):
        raise typer.BadParameter("give either --inputs or --shape", param_hint="--inputs")
    select_device(device)
    import jax
    import torch

    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    from parity.checking import named
    from parity.checking.models import check as compared
    from parity.reports.layer_tree import report_view

    try:
        torch.manual_seed(0)
        theirs = named.built(named.found(torch_name), torch_name)
        ours = named.built(named.found(jax_name), jax_name)
        args = named.inputs_from(inputs, theirs) if inputs is not None else named.random_inputs(shape or [])
        if isinstance(theirs, torch.nn.Module):
            from parity import weights

            arrays = None if weights_file is None else weights.load(weights_file)
            console.print(f"[dim]{named.carry_over(theirs, ours, arrays)}[/]")
        theirs, ours = named.cast(theirs, dtype), named.cast(ours, dtype)
        args = tuple(named.cast(x, dtype) for x in args)
        with torch.no_grad():
            named.tried(theirs, args)
    except (named.SubjectError, OSError, ValueError, RuntimeError) as error:
        raise typer.BadParameter(str(error)) from None
    report = compared(theirs, ours, args, gradients=grad, steps=steps)
    console.print(report_view(report))
    if html is not None:
        report.save_html(html)
        console.print(f"Report: {html}")
    if json_file is not None:
        write_json(json_file, json.loads(report.to_json()))
    raise typer.Exit(0 if report.passed else 1)


@app.command()
def bench(
    suite: Annotated[str, typer.Option(help="op: a row for each function; step: a training step")] = "op",
    filter: Annotated[str, typer.Option(metavar="REGEX", help="only rows whose family or name matches")] = "",
    seconds: Annotated[float, typer.Option(min=0.01, help="to spend on each contender of each row")] = 0.3,
    json_file: Json = None,
    device: Device = None,
) -> None:
    """Time jaxnn under jit against torch eager, interleaved, each result checked before it is timed."""
    console = Console()
    _check_writable(json_file)
    if suite not in ("op", "step"):
        raise typer.BadParameter(f"must be op or step, got {suite!r}", param_hint="--suite")
    pattern = _pattern(filter)
    select_device(device)
    from parity.benchmark import operators
    from parity.reports.terminal import operator_timing_table, step_timing_table

    if suite == "step":
        from parity.benchmark import steps

        with console.status("timing a training step"):
            timed_steps = steps.run(max(seconds, 1.0))
        console.print(step_timing_table(timed_steps))
        results = [asdict(result) for result in timed_steps]
    else:
        cases = operators.selected(pattern)
        if not cases:
            raise typer.BadParameter(f"{filter!r} matches no row", param_hint="--filter")
        timed = []
        with _progress(console) as progress:
            task = progress.add_task("", total=len(cases))
            for case in cases:
                progress.update(task, description=case.name)
                timed += operators.run(case, seconds)
                progress.advance(task)
        console.print(operator_timing_table(timed))
        results = [asdict(result) for result in timed]
    if json_file is not None:
        write_json(json_file, {"suite": suite, "results": results})


def select_device(device: str | None) -> None:
    """Make ``device`` JAX's default, or stop with the devices there are."""
    if device is None:
        return
    import jax

    try:
        jax.config.update("jax_default_device", jax.devices(device)[0])
    except RuntimeError:
        there = sorted({d.platform for d in jax.devices()})
        raise typer.BadParameter(
            f"JAX finds no {device!r} here, only {', '.join(there)}", param_hint="--device"
        ) from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """``content`` with the versions and the machine it was measured on."""
    import jax
    import torch

    from parity.checking.report import finite

    origin = {
        "schema": 1,
        "versions": {"jax": jax.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": {"platform": platform.platform(), "device": str(jax.devices()[0])},
    }
    path.write_text(json.dumps(finite(origin | content), indent=2, allow_nan=False) + "\n")


def _pattern(filter: str) -> re.Pattern[str]:
    try:
        return re.compile(filter)
    except re.error as error:
        raise typer.BadParameter(f"{filter!r} is not a regular expression: {error}", param_hint="--filter") from None


def _check_writable(*paths: Path | None) -> None:
    """Refuse a file whose folder is not there before minutes of work, not after."""
    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise typer.BadParameter(f"{path}: there is no folder {path.resolve().parent}")


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=console, transient=True)


def main() -> None:
    """Entry point."""
    app(prog_name="python -m parity")
