"""The names of one method: what stands for which array, and what is still free."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from parity.porting.errors import PortError
from parity.porting.graph.functionalization import base
from parity.porting.graph.nodes import in_place, packet, written, written_path
from parity.porting.operators.expression import ATOM, Expression
from parity.porting.operators.operation import dtype_name, number
from parity.porting.source.body import Extras, Unsupported
from parity.porting.source.call import Call
from parity.porting.source.naming import RESERVED, access, assigned, naming_line, source_lines


class Scope:
    """Where the statements of one call are written."""

    def __init__(
        self,
        call: Call,
        extras: Extras,
        method: Callable[[Call], tuple[str, list[Any]]],
        constants: dict[str, torch.Tensor],
        unsupported: list[Unsupported],
        modules: dict[str, torch.nn.Module],
    ) -> None:
        self.call, self.extras, self.method = call, extras, method
        self.constants, self.unsupported, self.modules = constants, unsupported, modules
        self.lines: list[str] = []
        self.bound: dict[str, Node] = {}
        self.names: dict[Node, str] = {}
        self.pending: dict[Node, Expression] = {}
        self.taken: list[Node] = []
        self.lists: dict[tuple[Node, ...], str] = {}
        self.sizes: list[Any] = []
        self.last: dict[Node, int] = {}
        self.uses: Counter[Node] = Counter()
        self.position = 0
        self.before = False
        self.inner = set(call.nodes())
        self.outer: set[str] = set()
        self.functions: dict[Any, str] = {}  # in the method, by what they are made of

    def bind(self, node: Node, name: str) -> str:
        """Let ``name`` stand for ``node``."""
        self.names[node] = name
        self.bound[name] = node
        return name

    def unused(self, wanted: str) -> str:
        """``wanted``, or the next like it; taken from now on."""
        name = self.free(wanted)
        self.outer.add(name)
        return name

    def value(self, node: Node) -> Expression:
        """What ``node`` is called here."""
        if node in self.pending:
            self.taken.append(node)
            return self.pending.pop(node)
        if node in self.names:
            name = self.names[node]
            return Expression(name, ATOM, frozenset([name]))
        if written_path(node) is not None:  # by a module inside
            return Expression(f"{self.place(written(node))}[...]")
        path = node.meta.get("path")
        if node.op == "placeholder" and path is not None:
            if node.meta.get("constant") is not None:
                return self._constant(node)
            return Expression(f"{self.attribute(path)}[...]")
        raise PortError(f"port: {node.name} is not at hand in {self.call.path or 'the model'} ({node.format_node()})")

    def _constant(self, node: Node) -> Expression:
        tensor = node.meta["constant"]
        changes = any(in_place(user) and user.args[0] is node for user in node.users)
        if tensor.ndim == 0 and not tensor.is_complex() and not changes:
            dtype = dtype_name(tensor.dtype)
            return Expression(f"jnp.array({number(tensor.item(), 'value').text}, {dtype})")
        for name, known in self.extras.arrays.items():
            if known is tensor:
                return Expression(f"self.{name}[...]")
            if changes or name in self.extras.changing:
                continue
            if known.dtype == tensor.dtype and known.shape == tensor.shape and torch.equal(known, tensor):
                return Expression(f"self.{name}[...]")
        wanted = node.meta["path"].rpartition(".")[2] or "constant"
        wanted = "constant" if "lifted_tensor" in wanted else wanted
        owned = node.meta["path"].rpartition(".")[0] == self.call.path and "lifted" not in node.meta["path"]
        name, count = wanted, 1
        while name in self.extras.arrays or (hasattr(self.call.module, name) and not owned):
            count += 1
            name = f"{wanted}_{count}"
        self.extras.arrays[name] = tensor
        if changes:
            self.extras.changing.add(name)
        return Expression(f"self.{name}[...]")

    def place(self, node: Node) -> str:
        """The attribute that holds a parameter or buffer."""
        if node.meta.get("constant") is not None:
            return self._constant(node).text.removesuffix("[...]")
        return self.attribute(node.meta["path"])

    def attribute(self, path: str) -> str:
        """The way to a parameter, buffer or module."""
        return access(self.call.path, path, self.modules)

    def free(self, wanted: str) -> str:
        """``wanted``, or the next like it that nobody reads any more."""
        wanted = re.sub(r"\W", "_", wanted).strip("_") or "x"
        if wanted in RESERVED:
            wanted += "_"
        if wanted[0].isdigit():
            wanted = f"_{wanted}"
        name, count = wanted, 1
        while not self.is_free(name):
            count += 1
            name = f"{wanted}{count}"
        return name

    def is_free(self, name: str) -> bool:
        """Whether nobody reads ``name`` any more."""
        if name in self.outer or any(name in expression.names for expression in self.pending.values()):
            return False
        if name in (size for _, size in self.sizes):
            return False
        holders = [node for node, known in self.names.items() if known == name]
        # A statement may overwrite what it reads last; one put before it may not.
        return all(self.last.get(node, -1) < self.position + (not self.before) for node in holders)

    def source_name(self, node: Node) -> str | None:
        """What the line of torch source that made ``node`` assigns it to."""
        if "called" in node.meta:
            return str(node.meta["called"])
        if node.target is operator.getitem:
            return assigned(naming_line(node), node.args[1]) or assigned(naming_line(node.args[0]), node.args[1])
        if node.op == "placeholder":
            return None
        if "_scatter" in str(node.target) and isinstance(node.args[0], Node):
            return self.names.get(node.args[0])
        is_part = any(user.meta.get("stack_trace") == node.meta.get("stack_trace") for user in node.users)
        shown = _parameter_shown(node)
        return (shown if is_part else None) or assigned(naming_line(node)) or shown

    def call_name(self, call: Call) -> str | None:
        """What the torch source assigns the result of the call to."""
        attribute = call.path.rpartition(".")[2]
        lines = next(filter(None, map(source_lines, call.nodes())), [])
        for line in reversed(lines):
            if (not attribute.isdigit() and re.search(rf"\b{re.escape(attribute)}\b", line)) and (
                name := assigned(line)
            ):
                return name
        if call.leaf or type(call.module).__module__.startswith("torch.nn."):
            return None  # what a layer or a chain calls its argument says nothing here
        first = call.record.names.get(call.inputs[0].name) if call.record and call.inputs else None
        return first if first and first.isidentifier() else None


def _parameter_shown(node: Node) -> str | None:
    """The name of the parameter or buffer that ``node`` is a view of."""
    source: Any = node
    while isinstance(source, Node) and source.op == "call_function":
        source = source.args[0] if packet(source) in ("repeat", "tile") else base(source)
    path = source.meta.get("path") if isinstance(source, Node) else None
    return path.rpartition(".")[2] if path else None
