"""The precision audit as a terminal table."""

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from parity.checking.audit import Audit


def audit_table(audit: "Audit") -> Table:
    """A line for each precision; where layers were noted, a block of them beneath."""
    fastest = min((row for row in audit.rows if row.jax_error), key=lambda row: -(row.jax_error or 0), default=None)
    exact = next((row.jax_error for row in audit.rows if row.precision == "float32"), None)
    caption = f"float32 is run with products in float32, as in torch; this process's setting: {audit.matmul_precision}"
    if fastest is not None and exact and fastest.jax_error and fastest.precision != "float32":
        caption += f"\n{fastest.precision} costs {fastest.jax_error / exact:.3g} times the error of float32"
    table = Table(title="Errors against torch in float64", caption=caption, box=box.SIMPLE_HEAD, caption_justify="left")
    table.add_column("precision")
    for header in ("torch", "JAX"):
        table.add_column(header, justify="right")
    table.add_column("", overflow="fold")
    for row in audit.rows:
        table.add_row(row.precision, _shown(row.torch_error), _shown(row.jax_error), escape(row.note))
    paths = list(dict.fromkeys(path for row in audit.rows for path in row.layers))
    if paths:
        table.add_section()
        for path in paths:
            errors = ", ".join(f"{row.precision} {row.layers[path]:.1e}" for row in audit.rows if path in row.layers)
            table.add_row(escape(path), "", "", errors)
    return table


def _shown(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}"
