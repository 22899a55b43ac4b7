"""``python -m parity port``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from parity.options import Json, check_writable, progress_bar, start_jax, write_json

STAGES = 6


def port(
    name: Annotated[str, typer.Argument(metavar="TORCH", help="package.module:callable or path/file.py:callable")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="write model.py, model.safetensors and README.md here")
    ],
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="arrays for the forward pass", exists=True, dir_okay=False)
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="1,3,224,224", help="or random ones; again for each further input")
    ] = None,
    json_file: Json = None,
) -> None:
    """Write the JAX source of a torch module, and prove that it does the same.

    TORCH is a module, or a class or function that makes one when called without arguments. The first axis of the
    inputs is free in the port if it is longer than 1 in the example.

    For example: [bold]port mine:resnet --shape 2,3,224,224 -o resnet_jax[/]

    Exit code: 0 if the port matches, 1 if it differs or the module cannot be ported, 2 for a wrong option or a name
    that leads nowhere.
    """
    console = Console()
    check_writable(output, json_file)
    if output.exists() and not output.is_dir():
        raise typer.BadParameter(f"{output} is a file", param_hint="--output")
    if (inputs is None) == (not shape):
        raise typer.BadParameter("give either --inputs or --shape", param_hint="--inputs")
    start_jax(None)
    import json

    import torch

    from parity.checking import DivergenceError, given
    from parity.porting.errors import PortError
    from parity.porting.port import port as ported
    from parity.reports.layer_tree import report_view
    from parity.targets import TargetError, built, load_target

    torch.manual_seed(0)
    try:
        module = built(load_target(name), name)
        if not isinstance(module, torch.nn.Module):
            raise TargetError(f"{name} gives {type(module).__name__}, not a torch.nn.Module")
        arrays = given.inputs_from(inputs, module) if inputs is not None else given.random_inputs(shape or [])
        given.tried(module, arrays)
    except (TargetError, OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    with progress_bar(console) as progress:
        task = progress.add_task("", total=STAGES)

        def note(stage: str) -> None:
            progress.update(task, description=stage)
            progress.advance(task)

        try:
            result = ported(module, tuple(map(torch.from_numpy, arrays)), progress=note)
            note("comparing gradients")
            report = result.report
        except (PortError, DivergenceError) as error:
            progress.stop()
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None
    console.print(report_view(report))
    result.save(output)
    for line in result.notes:
        console.print(line, markup=False)
    console.print(f"{output / 'model.py'}: {len(result.source.splitlines())} lines, class {result.name}")
    if json_file is not None:
        write_json(json_file, {"name": result.name, "notes": result.notes} | json.loads(report.to_json()))
    raise typer.Exit(0 if report.passed else 1)
