"""The command line: ``python -m parity``."""

import re
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="PyTorch and JAX, side by side.", no_args_is_help=False, rich_markup_mode="rich")


@app.callback(invoke_without_command=True)
def demo() -> None:
    """The tutorial in both frameworks."""


@app.command()
def conformance(
    filter: Annotated[str, typer.Option(help="only entries whose name matches this regular expression")] = "",
    dtype: Annotated[list[str], typer.Option(help="float32, float64; may be given twice")] = ["float32", "float64"],  # noqa: B006
    stride: Annotated[int, typer.Option(min=1, help="take every so many samples")] = 1,
    failures: Annotated[int, typer.Option(help="print this many failures of each entry")] = 3,
) -> None:
    """Run PyTorch's operator database against jaxnn.functional."""
    import torch

    from parity.conformance.operators import entry_name, functional_entries, pending, run_entry

    console = Console()
    entries = [e for e in functional_entries() if re.search(filter, entry_name(e))]
    failed = False
    for entry, kind in pending(entries, [getattr(torch, d) for d in dtype]):
        result = run_entry(entry, kind, stride=stride)
        failed |= not result.passed
        console.print(
            f"{result.name:45} {result.dtype} samples {result.samples_passed}/{result.samples} "
            f"gradients {result.gradients_passed}/{result.gradients} errors {result.errors_passed}/{result.errors}",
            markup=False, highlight=False, soft_wrap=True,
        )
        for line in result.failures[:failures]:
            console.print("   ", line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if failed else 0)


def main() -> None:
    """Entry point."""
    app()
