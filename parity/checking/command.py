"""``python -m parity check``."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from parity.options import Device, Json, check_writable, start_jax, write_json


def check(
    torch_name: Annotated[
        str, typer.Argument(metavar="TORCH", help="package.module:callable or path/file.py:callable")
    ],
    jax_name: Annotated[str, typer.Argument(metavar="JAX", help="its port, named in the same way")],
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="the inputs: arrays by parameter name, or in order", exists=True, dir_okay=False
        ),
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="1,3,224,224", help="or a random one of this shape; once for each input")
    ] = None,
    weights_file: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help=".pt or .safetensors, for both sides")
    ] = None,
    grad: Annotated[bool, typer.Option("--grad", help="compare gradients too")] = False,
    steps: Annotated[
        int, typer.Option(min=0, help="train both for so many steps too; the loss is the mean square of the output")
    ] = 0,
    dtype: Annotated[
        str, typer.Option(help="of weights and inputs: float64, float32, bfloat16 or float16")
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
    check_writable(html, json_file)
    if dtype not in ("float64", "float32", "bfloat16", "float16"):
        raise typer.BadParameter(f"must be float64, float32, bfloat16 or float16, got {dtype!r}", param_hint="--dtype")
    if (inputs is None) == (not shape):
        raise typer.BadParameter("give either --inputs or --shape", param_hint="--inputs")
    start_jax(device)
    import jax
    import torch

    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    from parity.checking import given
    from parity.checking.models import check as compared
    from parity.reports.layer_tree import report_view
    from parity.targets import TargetError, built, load_target

    try:
        torch.manual_seed(0)
        theirs = built(load_target(torch_name), torch_name)
        ours = built(load_target(jax_name), jax_name)
        args = given.inputs_from(inputs, theirs) if inputs is not None else given.random_inputs(shape or [])
        if isinstance(theirs, torch.nn.Module):
            from parity import weights

            arrays = None if weights_file is None else weights.load(weights_file)
            console.print(f"[dim]{given.carry_over(theirs, ours, arrays)}[/]")
        theirs, ours = given.cast(theirs, dtype), given.cast(ours, dtype)
        args = tuple(given.cast(x, dtype) for x in args)
        with torch.no_grad():
            given.tried(theirs, args)
    except (TargetError, OSError, ValueError, RuntimeError) as error:
        raise typer.BadParameter(str(error)) from None
    report = compared(theirs, ours, args, gradients=grad, steps=steps)
    console.print(report_view(report))
    if html is not None:
        report.save_html(html)
        console.print(f"Report: {html}")
    if json_file is not None:
        write_json(json_file, json.loads(report.to_json()))
    raise typer.Exit(0 if report.passed else 1)
