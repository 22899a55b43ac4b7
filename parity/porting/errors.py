"""Why a model cannot be ported."""

import re

import torch
from torch.fx import Graph

from parity.arrays import to_jax
from parity.porting.lines import is_of_model
from parity.porting.operators.operation import narrowed


class PortError(RuntimeError):
    """The model cannot be written as JAX source, or what was written does not do what the model does."""


def first_line(error: Exception) -> str:
    """What an error says first; its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def refused(error: Exception) -> PortError:
    """Export's refusal with the line of the model at fault."""
    trace = error.__traceback__
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_of_model(file):
            place = f" (at {file}, line {trace.tb_lineno}, in {trace.tb_frame.f_code.co_name})"
        trace = trace.tb_next
    said = str(error).partition("The error above occurred when")[0][:2000]
    said = "\n".join(line for line in said.splitlines() if line.strip() and not line.startswith(_HINTS))
    advice = ""
    if re.search(r"Eq\(u\d+, u\d+\)", said):
        advice = "\nEntries picked by a mask: compute the mask once and pick by it twice."
    elif "data-dependent" in said:
        advice = f"\n{DECIDES}"
    elif "fake tensor in the exported program" in said:
        advice = "\nThe model makes a tensor in a way that export does not see."
    return PortError(f"port: torch.export refuses the model{place}: {type(error).__name__}: {said.strip()}{advice}")


def refuse_wide(graph: Graph) -> None:
    """Refuse a model whose results JAX would compute in half of their bits."""
    for node in graph.output_node().all_input_nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex()):
            given = str(to_jax(value.dtype))
            if narrowed(given) != given:
                raise PortError(
                    f"port: the model's result is {given}, and JAX's is {narrowed(given)} while its 64-bit mode is "
                    'off; jax.config.update("jax_enable_x64", True) turns it on, or port model.float()'
                )


DECIDES = "Python decides there by what the data are; torch.where and torch.cond decide in the graph."

_HINTS = (
    "Caused by:",
    "For more information, run with",
    "For extended logs",
    "If you suspect",
    "For more debugging help",
    "For C++ stack",
)
