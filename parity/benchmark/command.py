"""``python -m parity bench``."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from parity.options import Device, Json, check_writable, pattern_of, progress_bar, start_jax, write_json


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TORCH [JAX]]",
            help="time models of your own: package.module:build or file.py:build, called without arguments; "
            "with TORCH alone, its port is timed",
        ),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            help="op (functions), conv (convolutions), step (a small training step), model (networks), "
            "optim (25 million parameters)"
        ),
    ] = "op",
    filter: Annotated[str, typer.Option(metavar="REGEX", help="only rows whose family or name matches")] = "",
    modes: Annotated[str, typer.Option(help="comma-separated, of forward, backward, step; all unless given")] = "",
    batch: Annotated[
        str, typer.Option(help="comma-separated batch sizes, for step and model, in place of each row's own")
    ] = "",
    length: Annotated[
        str, typer.Option(help="comma-separated lengths of texts, for the networks of the model suite that read them")
    ] = "",
    shape: Annotated[str, typer.Option(help="of the input of your own models, such as 8,3,224,224")] = "",
    dtype: Annotated[str, typer.Option(help="of that input: float32, or int32 for tokens")] = "float32",
    seconds: Annotated[float, typer.Option(min=0.01, help="to spend on each contender of each row")] = 0.3,
    torch_compile: Annotated[
        bool | None,
        typer.Option("--torch-compile/--no-torch-compile", help="time torch.compile; by default for step and model"),
    ] = None,
    port: Annotated[
        bool, typer.Option("--port", help="time the port that parity writes too, of the model suite or of TORCH")
    ] = False,
    untuned: Annotated[
        bool,
        typer.Option("--untuned", help="JAX as it comes, without jaxnn.tune_cpu: its calls wait for a thread to wake"),
    ] = False,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="an earlier --json: exit 1 where a row got slower than noise")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="draw to FILE (.png, .svg, .pdf)")] = None,
    json_file: Json = None,
    device: Device = None,
) -> None:
    """Time jaxnn under jit against torch eager, interleaved, each result checked before it is timed.

    Times are medians; the ratio to torch is the median over rounds in which both ran in turn, so that a busy machine
    slows both alike.

    For example: [bold]bench --suite conv --filter depthwise[/], [bold]bench --suite model --batch 1,2,4 --plot
    growth.png[/], [bold]bench --suite model --length 64,128,256 --plot growth.png[/],
    [bold]bench mine:torch_net mine:jax_net --shape 8,3,224,224[/]

    Exit code: 0, 1 where a row is slower than --against, 2 for a wrong option.
    """
    console = Console()
    check_writable(plot, json_file)
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"{plot} must end in .png, .svg or .pdf", param_hint="--plot")
    pattern = pattern_of(filter)
    sizes = _sizes(batch, "--batch") or [None]
    lengths = _sizes(length, "--length") or [None]
    tuned = start_jax(device, tuned=not untuned)
    import torch

    from parity.benchmark import history, plots
    from parity.benchmark.calls import call_seconds, copy_rate, product_rate
    from parity.benchmark.contest import torch_compiler
    from parity.benchmark.suites import SUITES
    from parity.reports.timing import change_table, mean_table, timing_table

    earlier = None
    if against is not None:
        try:
            earlier = history.load(against, tuned=tuned)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--against") from None
    if suite not in SUITES:
        raise typer.BadParameter(f"must be {', '.join(SUITES)}, got {suite!r}", param_hint="--suite")
    chosen = SUITES[suite]
    if models:
        chosen = _own(models, shape, dtype)
    wanted = tuple(modes.split(",")) if modes else chosen.modes
    if unknown := [mode for mode in wanted if mode not in chosen.modes]:
        raise typer.BadParameter(f"must be of {', '.join(chosen.modes)}, got {unknown[0]!r}", param_hint="--modes")
    if sizes != [None] and not chosen.batched:
        raise typer.BadParameter(f"the {suite} suite's rows have their own", param_hint="--batch")
    if lengths != [None] and not chosen.lengthened:
        raise typer.BadParameter(f"the {suite} suite reads no texts", param_hint="--length")
    if port and not chosen.ports:
        raise typer.BadParameter(f"the {suite} suite has no models to port", param_hint="--port")
    choices = [(size,) if chosen.batched else () for size in sizes]
    choices = [(*choice, length) if chosen.lengthened else choice for choice in choices for length in lengths]
    cases = [case for choice in choices for case in chosen.cases(*choice)]
    cases = [case for case in cases if pattern.search(f"{case.family} {case.name}")]
    if not cases:
        raise typer.BadParameter(f"{filter!r} matches no row", param_hint="--filter")
    compiles = chosen.compiles if torch_compile is None else torch_compile
    missing = torch_compiler() if compiles else ""
    if missing and torch_compile:
        raise typer.BadParameter(missing, param_hint="--torch-compile")

    others = {"torch_compile": compiles and not missing} | ({"ported": True} if port else {})
    results = []
    with progress_bar(console) as progress:
        task = progress.add_task("this machine's rates", total=len(cases))
        rates, empty = (product_rate(), copy_rate()), call_seconds()
        for case in cases:
            progress.update(task, description=f"{case.family}: {case.name}")
            timed = chosen.run(case, modes=wanted, seconds=seconds, **others)
            results += [replace(result, notes=[*result.notes, missing]) if missing else result for result in timed]
            progress.advance(task)
    console.print(timing_table(results, rates, wide=console.width >= 110))
    console.print(mean_table(results))
    for note in dict.fromkeys(note for result in results for note in result.notes):
        console.print(note, markup=False)
    threads = {"torch": torch.get_num_threads(), "JAX": len(os.sched_getaffinity(0))}
    how = "jaxnn.tune_cpu" if tuned else "as it comes"
    console.print(f"Threads: torch {threads['torch']}, JAX {threads['JAX']}. JAX on a CPU: {how}.")
    each = ", ".join(f"{name} {took * 1e6:.1f} us" for name, took in empty.items())
    console.print(f"A call that adds two numbers takes: {each}.")
    if plot is not None:
        plots.plot(results, plot)
        console.print(f"Plot: {plot}")
    if json_file is not None:
        content: dict[str, Any] = {"suite": suite, "threads": threads, "tuned": tuned, "seconds": seconds}
        content["rates"] = {"product": rates[0], "copy": rates[1]}
        content["call_seconds"] = empty
        write_json(json_file, content | {"results": history.as_json(results)})
    if earlier is not None:
        changes = history.changes(earlier, results)
        if not changes:
            raise typer.BadParameter(f"{against} shares no row with this run", param_hint="--against")
        console.print(change_table(changes))
        if any(change.regressed for change in changes):
            raise typer.Exit(1)


def _sizes(text: str, option: str) -> list[Any]:
    parts = [part for part in text.split(",") if part]
    if not all(re.fullmatch(r"[1-9]\d*", part) for part in parts):
        raise typer.BadParameter(f"must be positive numbers with commas between them, got {text!r}", param_hint=option)
    return [int(part) for part in parts]


def _own(names: list[str], shape: str, dtype: str) -> Any:
    """A suite of the user's own model."""
    from parity.benchmark import users
    from parity.targets import TargetError, built, load_target

    sizes = _sizes(shape, "--shape")
    if not sizes:
        raise typer.BadParameter("say what your model takes, such as 8,3,224,224", param_hint="--shape")
    if dtype not in ("float32", "int32"):
        raise typer.BadParameter(f"must be float32 or int32, got {dtype!r}", param_hint="--dtype")
    if len(names) > 2:
        raise typer.BadParameter(f"one model, in torch and in JAX, got {json.dumps(names)}", param_hint="TORCH JAX")
    try:
        subjects = [built(load_target(name), name) for name in names]
    except TargetError as error:
        raise typer.BadParameter(str(error), param_hint="TORCH JAX") from None
    return users.suite(names[0].rpartition("/")[-1], subjects, tuple(sizes), dtype)
