"""Sizes that are free, by the shapes of what has a name in the method."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch.fx import Node
from torch.utils._sympy.printers import PythonPrinter

from parity.porting.errors import PortError
from parity.porting.operators.expression import ATOM, PRODUCT, Expression, constant
from parity.porting.source.naming import source_line

if TYPE_CHECKING:
    from parity.porting.source.statements import Writer


def size(writer: Writer, value: Any) -> Expression:
    """A symbolic size by the shapes of what has a name here."""
    return size_of(writer, value.node.expr)


def size_of(writer: Writer, wanted: Any) -> Expression:
    """A sympy expression of sizes as Python."""
    if wanted.is_number:
        return Expression(constant(int(wanted) if wanted.is_integer else float(wanted), "size"))
    direct = _shape_equal(writer, wanted)
    if direct is not None:
        return direct
    names: frozenset[str] = frozenset()
    text_of: dict[str, str] = {}
    for symbol in sorted(wanted.free_symbols, key=str):
        known = _shape_equal(writer, symbol) or _multiple(writer, symbol) or _outer(writer, symbol)
        text_of[str(symbol)] = known.within(ATOM)
        names |= known.names
    text = PythonPrinter().doprint(wanted).replace("torch.sym_float(", "float(")
    text = re.sub(r"(\.\d+?)0+\b", r"\1", text)
    text = re.sub(r"(?<![\w.])\d+(?![\w.])", lambda m: constant(int(m[0]), "size"), text)
    text = re.sub(r"(?<!\*)\*(?!\*)", " * ", text)
    text = re.sub(r"\b[su]\d+\b", lambda m: text_of.get(m[0], m[0]), text)
    return Expression(text, ATOM if re.fullmatch(r"[\w.\[\]]+", text) else PRODUCT - 8, names)


def _visible(writer: Writer) -> list[tuple[str, torch.Tensor]]:
    """What has a name in the method, arrays before the parts of sequences."""
    bound = [(name, node.meta.get("val")) for name, node in writer.bound.items()]
    arrays = [(name, value) for name, value in bound if isinstance(value, torch.Tensor)]
    rows = [(name, value) for name, value in bound if isinstance(value, list | tuple)]
    return arrays + [
        (f"{name}[{i}]", x) for name, row in rows for i, x in enumerate(row) if isinstance(x, torch.Tensor)
    ]


def _shape_equal(writer: Writer, wanted: Any) -> Expression | None:
    for name, value in _visible(writer):
        for i, size in enumerate(value.shape):
            if isinstance(size, torch.SymInt) and size.node.expr == wanted:
                return Expression(f"{name}.shape[{i}]", ATOM, _read(name))
    return None


def _multiple(writer: Writer, symbol: Any) -> Expression | None:
    for name, value in _visible(writer):
        for i, size in enumerate(value.shape):
            if isinstance(size, torch.SymInt):
                factor = sympy.expand(size.node.expr).coeff(symbol)
                more = sympy.expand(size.node.expr - factor * symbol)
                if factor.is_Integer and factor > 0 and more.is_Integer:
                    text = f"{name}.shape[{i}]" if more == 0 else f"({name}.shape[{i}] - {more})".replace("- -", "+ ")
                    return Expression(text if factor == 1 else f"({text} // {factor})", ATOM, _read(name))
    return None


def _read(name: str) -> frozenset[str]:
    return frozenset([name.partition("[")[0]])


def _sizes(node: Node) -> list[Any]:
    """The sizes that a node has, or is."""
    value = node.meta.get("val")
    sizes = value.shape if isinstance(value, torch.Tensor) else [value]
    return [x.node.expr for x in sizes if isinstance(x, torch.SymInt | torch.SymFloat)]


def _outer(writer: Writer, symbol: Any) -> Expression:
    for size, name in writer.sizes:
        if size == symbol:
            return Expression(name, ATOM, frozenset([name]))
    if not writer.call.path:
        hint = "what a mask picks is mask.sum() entries"
        nodes = (node for module in writer.inner for node in module.graph.nodes)
        line = next((source_line(node) for node in nodes if symbol in _sizes(node)), "")
        at = f", at {line}" if line else ""
        raise PortError(f"port: the size {symbol} depends on the data, or on no argument at hand ({hint}){at}")
    name = "batch" if not writer.sizes else f"size_{len(writer.sizes)}"
    writer.sizes.append((symbol, name))
    return Expression(name, ATOM, frozenset([name]))
