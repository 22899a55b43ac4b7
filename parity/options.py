"""What the commands share: options, and how a wrong one is refused."""

import json
import platform
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, gpu or tpu: where JAX runs (torch, the reference, stays on the CPU, save where it is timed)"
    ),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write everything measured to FILE")]


SCHEMA = 3
"""Of the JSON that the commands write."""


def start_jax(device: str | None, *, tuned: bool = True) -> bool:
    """Make ``device`` JAX's default, or stop with the devices there are; whether ``jaxnn.tune_cpu`` is in force."""
    import jax

    import jaxnn

    if tuned:
        try:
            jaxnn.tune_cpu()
        except RuntimeError:  # called from a program that computes already
            tuned = False
    if device is not None:
        try:
            jax.config.update("jax_default_device", jax.devices(device)[0])
        except RuntimeError:
            there = sorted({d.platform for d in jax.devices()})
            raise typer.BadParameter(
                f"JAX finds no {device!r} here, only {', '.join(there)}", param_hint="--device"
            ) from None
    return tuned


def write_json(path: Path, content: dict[str, Any]) -> None:
    """``content`` with the versions and the machine it was measured on."""
    import jax
    import torch

    from parity.checking.report import finite

    origin = {
        "schema": SCHEMA,
        "versions": {"jax": jax.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": {"platform": platform.platform(), "device": str(jax.devices()[0])},
    }
    path.write_text(json.dumps(finite(origin | content), indent=2, allow_nan=False) + "\n")


def pattern_of(filter: str) -> re.Pattern[str]:
    """``--filter`` as a regular expression, refused where it is none."""
    try:
        return re.compile(filter)
    except re.error as error:
        raise typer.BadParameter(f"{filter!r} is not a regular expression: {error}", param_hint="--filter") from None


def check_writable(*paths: Path | None) -> None:
    """Refuse a file whose folder is not there before minutes of work, not after."""
    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise typer.BadParameter(f"{path}: there is no folder {path.resolve().parent}")


def progress_bar(console: Console) -> Progress:
    """A bar that vanishes when the work is done."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=console, transient=True)
