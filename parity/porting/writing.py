"""The body of one call as Python statements."""

from __future__ import annotations

import keyword
import operator
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.fx import Node
from torch.utils import _pytree as torch_tree
from torch.utils._sympy.printers import PythonPrinter

from parity.arrays import to_jax
from parity.porting.branches import conditional, is_conditional
from parity.porting.capture import Reference
from parity.porting.errors import PortError
from parity.porting.expression import ATOM, PRODUCT, Expression, constant, plain
from parity.porting.functionalization import in_place, known_as
from parity.porting.operation import Operation, Tensor, dtype_name, number
from parity.porting.operators.registry import found
from parity.porting.tree import Call

INLINE, LINE, DEPTH = 56, 100, 5
_RESERVED = {
    "self",
    "jnp",
    "jax",
    "nnx",
    "nn",
    "F",
    "rngs",
    "range",
    "slice",
    "bool",
    "dict",
    "getattr",
    *keyword.kwlist,
}


@dataclass
class Body:
    """One method: its parameters and statements, and what it needs of its class."""

    parameters: list[str]
    lines: list[str]
    sizes: list[Any] = field(default_factory=list)


@dataclass
class Extras:
    """What the statements of a class use beyond torch's own attributes.

    Attributes:
        layers: attribute name to the constructor of a layer for what torch has as a function.
        arrays: attribute name to a constant captured by the graph.
        random: whether keys are drawn.
        switched: whether something differs between training and evaluation.
    """

    layers: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, torch.Tensor] = field(default_factory=dict)
    random: bool = False
    switched: bool = False
    written: dict[Node, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unsupported:
    """An operator nobody said how to write."""

    operator: str
    path: str
    line: str
    reason: str = ""


class Writer:
    """Writes the statements of one call.

    Inlines values used once while lines stay short; gives the others the names they have in the torch source.
    """

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
        self.sizes: list[Any] = []
        self.last: dict[Node, int] = {}
        self.uses: Counter[Node] = Counter()
        self.position = 0
        self.before = False
        self.inner = set(call.nodes())
        self.outer: set[str] = set()

    def nested(self, call: Call) -> Writer:
        """A writer of a function inside the method: it reads the names around it and makes none of them anew."""
        inner = Writer(call, self.extras, self.method, self.constants, self.unsupported, self.modules)
        inner.outer = self.outer | set(self.bound)
        return inner

    def unused(self, wanted: str) -> str:
        """``wanted``, or the next like it; taken from now on."""
        name = self._free(wanted)
        self.outer.add(name)
        return name

    def settle_before(self, node: Node) -> None:
        """Give what waits for its reader a name now."""
        self._bind_before(node, self.pending.pop(node))

    # The plan: who uses what, when.

    def body(
        self, returned: Callable[[Writer], Expression] | None = None, root_outputs: list[Node] | None = None
    ) -> Body:
        """The method's parameters and lines."""
        self.items = self._looped(self.call.items)
        outputs = root_outputs if root_outputs is not None else self.call.outputs
        for i, item in enumerate(self.items):
            for node in self._needs(item):
                self.uses[node] += 1
                self.last[node] = i
        for node in outputs:
            self.uses[node] += 1
            self.last[node] = len(self.items)
        parameters = [self._parameter(node) for node in self.call.inputs] if root_outputs is None else []
        for position, item in enumerate(self.items):
            self.position = position
            self._write(item)
        self.position = len(self.items)
        if returned is not None:
            result = returned(self)
        else:
            parts = [self.value(node) for node in outputs]
            result = parts[0] if len(parts) == 1 else Expression(", ".join(part.text for part in parts))
        assigned, _, value = (self.lines or [""])[-1].partition(" = ")
        if assigned == result.text and len(plain(value)) <= LINE:
            self.lines[-1] = f"return {value}"
        else:
            self.lines.append(f"return {result.text}")
        return Body(parameters + [name for _, name in self.sizes], self.lines, [size for size, _ in self.sizes])

    def bind(self, node: Node, name: str) -> str:
        """Let ``name`` stand for ``node``."""
        self.names[node] = name
        self.bound[name] = node
        return name

    def _parameter(self, node: Node) -> str:
        given = self.call.record.names.get(known_as(node)) if self.call.record else None
        target = node.meta.get("path")
        wanted = given or (target.rpartition(".")[2] if target else None) or self._source_name(node) or "x"
        self.last.setdefault(node, 0)
        self.before = True  # a parameter nobody reads has a name of its own too
        name = self.bind(node, self._free(wanted))
        self.before = False
        return name

    def _needs(self, item: Any) -> list[Node]:
        if isinstance(item, Loop):
            return item.needs()
        if isinstance(item, Call):
            return self._given(item)
        leaves = torch_tree.tree_leaves((item.args, item.kwargs))
        return [x for x in leaves if isinstance(x, Node) and not _is_symbolic(x)]

    def _given(self, call: Call) -> list[Node]:
        if not call.leaf:
            return call.inputs
        return [
            node
            for node in map(self._referred(call), torch_tree.tree_leaves(self._structure(call)))
            if isinstance(node, Node)
        ]

    @staticmethod
    def _structure(call: Call) -> Any:
        assert call.record is not None
        return (call.record.positional, call.record.keywords)

    def _referred(self, call: Call) -> Callable[[Any], Any]:
        by_name = {name: node for node in call.inputs for name in (node.name, known_as(node))}

        def resolve(x: Any) -> Any:
            if not isinstance(x, Reference):
                return x
            if x.name in by_name:
                return by_name[x.name]
            everywhere = next((n for n in next(iter(call.nodes())).graph.nodes if n.name == x.name), None)
            if len(call.inputs) == 1 and (everywhere is None or everywhere not in self.names):
                return call.inputs[0]
            return everywhere

        return resolve

    # Statements.

    def _write(self, item: Any) -> None:
        if isinstance(item, Loop):
            self._write_loop(item)
        elif isinstance(item, Call):
            self._write_call(item)
        elif item in self.names:
            pass  # unpacked already
        elif item.target is not operator.getitem and isinstance(item.meta.get("val"), list | tuple):
            self._write_several(item)
        else:
            target = item.args[0] if in_place(item) else None
            writes = isinstance(target, Node) and target.op == "placeholder" and target.meta.get("path")
            if not self.uses[item] and not writes:
                return
            expression = self._built(lambda: self._operator(item))
            if writes:
                self._flush()
                self.lines.append(f"{self._attribute(target.meta['path'])}.set_value({expression.text})")
                if self.uses[item]:
                    self.pending[item] = Expression(f"{self._attribute(target.meta['path'])}[...]")
                return
            self._settle(item, expression, self._source_name(item))

    def _write_call(self, call: Call) -> None:
        if not call.outputs:
            return
        expression = self._built(lambda: self._called(call))
        if call.leaf:
            assert call.record is not None
            by_name = {node.name: node for node in call.outputs}
            structure = torch_tree.tree_map(
                lambda x: by_name.get(x.name) if isinstance(x, Reference) else None, call.record.output
            )
            if isinstance(structure, Node):
                self._settle(structure, expression, self._call_name(call))
            else:
                self._emit(f"{self._targets(structure, call)} = {expression.text}")
        elif len(call.outputs) == 1:
            self._settle(call.outputs[0], expression, self._call_name(call))
        else:
            self._emit(f"{self._targets(tuple(call.outputs), call)} = {expression.text}")

    def _targets(self, structure: Any, call: Call | None = None) -> str:
        if isinstance(structure, Node):
            if not self.uses[structure]:
                return "_"
            name = self._free(self._source_name(structure) or "x")
            return self.bind(structure, name)
        if isinstance(structure, tuple | list):
            if not any(self.uses[part] for part in torch_tree.tree_leaves(structure) if isinstance(part, Node)):
                return "_"
            parts = [self._targets(part) for part in structure]
            nested = [isinstance(s, tuple | list) and p != "_" for p, s in zip(parts, structure, strict=True)]
            inner = [f"({p})" if wrap else p for p, wrap in zip(parts, nested, strict=True)]
            return ", ".join(inner) + ("," if len(inner) == 1 else "")
        return "_"

    def _write_several(self, node: Node) -> None:
        parts = [user for user in node.users if user.target is operator.getitem]
        used = [part for part in parts if self.uses[part]]
        if not used and not self.uses[node]:
            return
        expression = self._built(lambda: self._operator(node))
        if len(used) == 1 and len(parts) == len(used) and self.uses[node] == len(node.users):
            self.pending[node] = expression
            return
        if self.uses[node] > len(parts):  # used whole, as a list
            self._bind_statement(node, expression, "parts")
            return
        structure: list[Any] = [None] * len(node.meta["val"])
        for part in used:
            structure[part.args[1]] = part
        names = []
        for i, part in enumerate(structure):
            names.append(self._targets(part) if part is not None else "_")
            del i
        self._emit(f"{', '.join(names)}{',' if len(names) == 1 else ''} = {expression.text}")

    def _settle(self, node: Node, expression: Expression, name: str | None) -> None:
        """Keep the expression for its only reader, or write it down."""
        text = plain(expression.text)
        simple = re.fullmatch(r"[\w.]+(\[\.\.\.\])?", text) is not None
        once = self.uses[node] == 1 and not self._in_loop(node)
        if not self.uses[node]:
            return
        if once and len(text) <= INLINE and _depth(text) <= DEPTH:
            self.pending[node] = expression
        elif simple and text in self.bound:
            self.names[node] = text  # another name for the same array
            self.last[self.bound[text]] = max(self.last.get(self.bound[text], -1), self.last[node])
        else:
            self._bind_statement(node, expression, name)

    def _in_loop(self, node: Node) -> bool:
        return any(isinstance(item, Loop) and node in item.needs() for item in self.items[self.position + 1 :])

    def _bind_statement(self, node: Node, expression: Expression, name: str | None) -> None:
        self.taken = [t for t in self.taken if t is not node]
        target = self._free(name or "x")
        self.bind(node, target)
        self._emit(f"{target} = {expression.text}")

    def _emit(self, line: str) -> None:
        self.lines.append(line)

    def _flush(self) -> None:
        """Write down what waits, before something that it might read changes."""
        for node in list(self.pending):
            self._bind_before(node, self.pending.pop(node))

    def _bind_before(self, node: Node, expression: Expression) -> None:
        self.before = True
        self._bind_statement(node, expression, self._source_name(node))
        self.before = False

    def _built(self, build: Callable[[], Expression]) -> Expression:
        """The expression; where it gets long, its longest parts are named first."""
        kept = dict(self.pending)
        while True:
            self.taken = []
            expression = build()
            consumed = [node for node in self.taken if len(kept[node]) > 12] if self.taken else []
            if len(expression) <= LINE or not consumed:
                return expression
            longest = max(consumed, key=lambda node: len(kept[node]))
            self.pending = dict(kept)
            del self.pending[longest]
            self._bind_before(longest, kept.pop(longest))

    # Expressions.

    def value(self, node: Node) -> Expression:
        """What ``node`` is called here."""
        if node in self.pending:
            self.taken.append(node)
            return self.pending.pop(node)
        if node in self.names:
            name = self.names[node]
            return Expression(name, ATOM, frozenset([name]))
        path = node.meta.get("path")
        if node.op == "placeholder" and path is not None:
            if node.meta.get("constant") is not None:
                return self._constant(node)
            return Expression(f"{self._attribute(path)}[...]")
        raise PortError(f"port: {node.name} is not at hand in {self.call.path or 'the model'} ({node.format_node()})")

    def _constant(self, node: Node) -> Expression:
        tensor = node.meta["constant"]
        if tensor.ndim == 0 and not tensor.is_complex():
            dtype = dtype_name(tensor.dtype)
            return Expression(f"jnp.array({number(tensor.item(), 'value').text}, {dtype})")
        for name, known in self.extras.arrays.items():
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
        return Expression(f"self.{name}[...]")

    def _attribute(self, path: str) -> str:
        return access(self.call.path, path, self.modules)

    def _argument(self, x: Any) -> Any:
        if isinstance(x, Node):
            value = x.meta.get("val")
            if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
                return value
            if isinstance(value, int | float | bool) and x.op != "placeholder":
                return value
            expression = self.value(x)
            return Tensor(expression, value) if isinstance(value, torch.Tensor) else expression
        if isinstance(x, list | tuple):
            return [self._argument(part) for part in x]
        return x

    def _operator(self, node: Node) -> Expression:
        if is_conditional(node):
            return conditional(self, node)
        if node.target is operator.getitem:
            source = self.value(node.args[0])
            if is_conditional(node.args[0]) and len(node.args[0].meta["val"]) == 1:
                return source
            return Expression(f"{source.within(ATOM)}[{node.args[1]}]", ATOM, source.names)
        builder = found(node.target)
        try:
            if builder is None:
                raise NotImplementedError("")
            operation = Operation(
                str(node.target), self._bound_arguments(node), node.meta.get("val"), self.size, Host(self, node)
            )
            expression = builder(operation)
            return Expression(expression.text, expression.strength, expression.names)
        except NotImplementedError as error:
            self.unsupported.append(Unsupported(str(node.target), self.call.path, source_line(node), str(error)))
            return Expression("None")
        except (PortError, RecursionError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self.unsupported.append(Unsupported(str(node.target), self.call.path, source_line(node), reason))
            return Expression("None")

    def _bound_arguments(self, node: Node) -> dict[str, Any]:
        if not isinstance(node.target, torch._ops.OpOverload):
            return {f"arg{i}": self._argument(x) for i, x in enumerate(node.args)}
        arguments: dict[str, Any] = {}
        for i, argument in enumerate(node.target._schema.arguments):
            if i < len(node.args):
                arguments[argument.name] = self._argument(node.args[i])
            elif argument.name in node.kwargs:
                arguments[argument.name] = self._argument(node.kwargs[argument.name])
            else:
                arguments[argument.name] = argument.default_value
        for key in ("memory_format", "layout", "device", "pin_memory", "non_blocking", "implicit"):
            arguments.pop(key, None)
        return arguments

    def _called(self, call: Call) -> Expression:
        operation = Operation(call.path, {}, None, self.size)
        target = access(self.call.path, call.path, self.modules)
        if not call.leaf:
            name, sizes = self.method(call)
            args = [self.value(node) for node in call.inputs] + [self.size_of(size) for size in sizes]
            return operation.call(target + ("" if name == "__call__" else f".{name}"), *args)
        resolve = self._referred(call)

        def argument(x: Any) -> Any:
            x = resolve(x)
            return self._argument(x) if isinstance(x, Node) else x

        def rebuilt(x: Any) -> Any:
            if isinstance(x, list | tuple):
                return [rebuilt(part) for part in x]
            return to_jax(x) if isinstance(x, torch.dtype) else argument(x)

        positional, keywords = self._structure(call)
        args = [rebuilt(x) for x in positional]
        while args and args[-1] is None:
            args.pop()
        return operation.call(target, *args, **{key: rebuilt(x) for key, x in keywords.items()})

    # Sizes.

    def size(self, value: Any) -> Expression:
        """A symbolic size by the shapes of what has a name here."""
        return self.size_of(value.node.expr)

    def size_of(self, wanted: Any) -> Expression:
        """A sympy expression of sizes as Python."""
        if wanted.is_number:
            return Expression(constant(int(wanted) if wanted.is_integer else float(wanted), "size"))
        direct = self._shape_equal(wanted)
        if direct is not None:
            return direct
        names: frozenset[str] = frozenset()
        text_of: dict[str, str] = {}
        for symbol in sorted(wanted.free_symbols, key=str):
            known = self._shape_equal(symbol) or self._multiple(symbol) or self._outer(symbol)
            text_of[str(symbol)] = known.within(ATOM)
            names |= known.names
        text = PythonPrinter().doprint(wanted)
        text = re.sub(r"\b[su]\d+\b", lambda m: text_of.get(m[0], m[0]), text)
        return Expression(text, ATOM if re.fullmatch(r"[\w.\[\]]+", text) else PRODUCT - 8, names)

    def _visible(self) -> list[tuple[str, torch.Tensor]]:
        return [
            (name, node.meta["val"])
            for name, node in self.bound.items()
            if isinstance(node.meta.get("val"), torch.Tensor)
        ]

    def _shape_equal(self, wanted: Any) -> Expression | None:
        for name, value in self._visible():
            for i, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt) and size.node.expr == wanted:
                    return Expression(f"{name}.shape[{i}]", ATOM, frozenset([name]))
        return None

    def _multiple(self, symbol: Any) -> Expression | None:
        for name, value in self._visible():
            for i, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt):
                    factor = sympy.simplify(size.node.expr / symbol)
                    if factor.is_integer and factor.is_number:
                        return Expression(f"({name}.shape[{i}] // {factor})", ATOM, frozenset([name]))
        return None

    def _outer(self, symbol: Any) -> Expression:
        for size, name in self.sizes:
            if size == symbol:
                return Expression(name, ATOM, frozenset([name]))
        if not self.call.path:
            raise PortError(f"port: the size {symbol} depends on the data, or on no argument at hand")
        name = "batch" if not self.sizes else f"size_{len(self.sizes)}"
        self.sizes.append((symbol, name))
        return Expression(name, ATOM, frozenset([name]))

    # Names.

    def _free(self, wanted: str) -> str:
        """``wanted``, or the next like it that nobody reads any more."""
        wanted = re.sub(r"\W", "_", wanted).strip("_") or "x"
        if wanted in _RESERVED or wanted[0].isdigit():
            wanted += "_"
        name, count = wanted, 1
        while not self._unused(name):
            count += 1
            name = f"{wanted}{count}"
        return name

    def _unused(self, name: str) -> bool:
        if name in self.outer or any(name in expression.names for expression in self.pending.values()):
            return False
        if name in (size for _, size in self.sizes):
            return False
        holders = [node for node, known in self.names.items() if known == name]
        # A statement may overwrite what it reads last; one put before it may not.
        return all(self.last.get(node, -1) < self.position + (not self.before) for node in holders)

    def _source_name(self, node: Node) -> str | None:
        """What the line of torch source that made ``node`` assigns it to."""
        if node.target is operator.getitem:
            return _assigned(source_line(node), node.args[1]) or _assigned(source_line(node.args[0]), node.args[1])
        if node.op == "placeholder":
            return None
        if "_scatter" in str(node.target) and isinstance(node.args[0], Node):
            return self.names.get(node.args[0])
        return _assigned(source_line(node))

    def _call_name(self, call: Call) -> str | None:
        attribute = call.path.rpartition(".")[2]
        for node in call.nodes():
            for line in source_lines(node):
                if (not attribute.isdigit() and re.search(rf"\b{re.escape(attribute)}\b", line)) and (
                    name := _assigned(line)
                ):
                    return name
            break
        first = call.record.names.get(call.inputs[0].name) if call.record and call.inputs else None
        return first if first and first.isidentifier() else None

    # Loops.

    def _looped(self, items: list[Any]) -> list[Any]:
        """``items`` with every run of calls that feed one another as one loop."""
        result: list[Any] = []
        i = 0
        while i < len(items):
            run = self._run(items, i)
            if run is None:
                result.append(items[i])
                i += 1
            else:
                result.append(run)
                i += len(run.calls)
        return result

    def _run(self, items: list[Any], start: int) -> Loop | None:
        first = items[start]
        if not isinstance(first, Call) or len(first.outputs) != 1:
            return None
        container, _, number = first.path.rpartition(".")
        parent = self.modules.get(container)
        if (
            not number.isdigit()
            or not isinstance(parent, torch.nn.Sequential | torch.nn.ModuleList)
            or container == self.call.path
        ):
            return None
        calls, slot = [first], None
        for item in items[start + 1 :]:
            previous = calls[-1]
            if (
                not isinstance(item, Call)
                or item.path != f"{container}.{int(number) + len(calls)}"
                or len(item.outputs) != 1
            ):
                break
            before, now = self._given(previous), self._given(item)
            changed = [k for k, (a, b) in enumerate(zip(before, now, strict=False)) if a is not b]
            if len(before) != len(now) or len(changed) != 1 or now[changed[0]] is not previous.outputs[0]:
                break
            if slot not in (None, changed[0]) or not self._alike(previous, item):
                break
            if (
                any(user in self.inner and user not in set(item.nodes()) for user in previous.outputs[0].users)
                or previous.outputs[0] in self.call.outputs
            ):
                break
            slot = changed[0]
            calls.append(item)
        if len(calls) < 2:
            return None
        assert slot is not None
        return Loop(calls, container, int(number), slot, self._given(first), len(parent))

    def _alike(self, a: Call, b: Call) -> bool:
        if a.leaf or b.leaf:
            return all(call.leaf and len(torch_tree.tree_leaves(self._structure(call))) == 1 for call in (a, b))
        return (
            type(a.module) is type(b.module)
            and self.method(a)[0] == self.method(b)[0] == "__call__"
            and not self.method(a)[1]
            and not self.method(b)[1]
        )

    def _write_loop(self, loop: Loop) -> None:
        carried = self.value(loop.given[loop.slot])
        wanted = self._call_name(loop.calls[0]) or "x"
        node = loop.given[loop.slot]
        others = {k: self.value(n) for k, n in enumerate(loop.given) if k != loop.slot}
        busy = {n for other in others.values() for n in other.names}
        dying = self.last.get(node, -1) <= self.position
        if carried.text in self.bound and dying and carried.text not in busy:
            name = carried.text
        else:
            name = self._free(wanted)
            if name in busy:
                name = self._free(f"{wanted}_out")
            self._emit(f"{name} = {carried.text}")
        layers = access(self.call.path, loop.container, self.modules)
        end = loop.start + len(loop.calls)
        cut = "" if end - loop.start == loop.length else f"[{loop.start or ''}:{end if end < loop.length else ''}]"
        item = _singular(loop.container.rpartition(".")[2])
        while item in self.bound or item in _RESERVED:
            item = f"{item}_"
        args = [name if k == loop.slot else others[k].text for k in range(len(loop.given))]
        self._emit(f"for {item} in {layers}{cut}:")
        self._emit(f"    {name} = {item}({', '.join(args)})")
        self.bind(loop.calls[-1].outputs[0], name)


@dataclass(eq=False)
class Loop:
    """A run of calls, each fed with what the one before gave."""

    calls: list[Call]
    container: str
    start: int
    slot: int
    given: list[Node]
    length: int

    def needs(self) -> list[Node]:
        """What the first call takes."""
        return self.given


class Host:
    """What an operator may ask of the class it is written in."""

    def __init__(self, writer: Writer, node: Node) -> None:
        self.writer, self.node = writer, node

    def random_key(self) -> Expression:
        """A fresh random key."""
        self.writer.extras.random = True
        return Expression("self.rngs()")

    def while_training(self, probability: Expression) -> Expression:
        """``probability`` while the module trains, zero in evaluation."""
        if not self.writer.call.module.training:
            raise NotImplementedError("dropout that is active in evaluation too")
        self.writer.extras.switched = True
        return Expression(f"0.0 if self.deterministic else {probability.text}", 0)

    def dropout_layer(self, kind: str, p: float, train: bool) -> str | None:
        """The layer that does what the function did; None where it does nothing in any mode."""
        extras = self.writer.extras
        training = self.writer.call.module.training
        if train != training and not train:
            return None
        if train and not training:
            raise NotImplementedError("dropout that is active in evaluation too")
        if self.node not in extras.written:
            name, count = "dropout", 1
            while name in extras.layers or hasattr(self.writer.call.module, name):
                count += 1
                name = f"dropout_{count}"
            extras.written[self.node] = name
            extras.layers[name] = f"nn.{kind}({constant(p, 'p')}, rngs=rngs)"
        return f"self.{extras.written[self.node]}"


def access(scope: str, path: str, modules: dict[str, torch.nn.Module]) -> str:
    """``self`` with the attributes and indices that lead from ``scope`` to ``path``."""
    if scope and not path.startswith(f"{scope}."):
        path = _alias(scope, path, modules)
    rest = path[len(scope) :].lstrip(".")
    text, at = "self", scope
    for name in rest.split(".") if rest else ():
        parent = modules.get(at)
        if type(parent) in (torch.nn.ModuleDict, torch.nn.ParameterDict):
            text += f'["{name}"]'
        elif name.isdigit() and at != scope and _is_indexed(parent):
            text += f"[{name}]"
        elif name.isidentifier() and not keyword.iskeyword(name):
            text += f".{name}"
        else:
            text = f'getattr({text}, "{name}")'
        at = f"{at}.{name}".lstrip(".")
    return text


def _is_indexed(module: torch.nn.Module | None) -> bool:
    """Whether the members are reached by number, as in a plain list or chain; a class of its own has attributes."""
    chained = isinstance(module, torch.nn.Sequential) and type(module).forward is torch.nn.Sequential.forward
    return chained or type(module) in (torch.nn.ModuleList, torch.nn.ParameterList)


def _alias(scope: str, path: str, modules: dict[str, torch.nn.Module]) -> str:
    """Another path of the same module, parameter or buffer, within ``scope``."""
    owner, _, name = path.rpartition(".")
    wanted = modules[path] if path in modules else getattr(modules[owner], name)
    inside = modules[scope]
    named = (
        inside.named_modules(remove_duplicate=False)
        if path in modules
        else (*inside.named_parameters(remove_duplicate=False), *inside.named_buffers(remove_duplicate=False))
    )
    return next((f"{scope}.{name}" for name, thing in named if thing is wanted), path)


def source_lines(node: Node) -> list[str]:
    """The lines of torch source that led to ``node``, innermost last."""
    lines = (node.meta.get("stack_trace") or "").strip().splitlines()
    return [line.strip() for line in lines if not line.strip().startswith(("File ", "^", "~"))]


def source_line(node: Node) -> str:
    """The innermost line of torch source of ``node``."""
    lines = source_lines(node)
    return lines[-1] if lines else ""


def _assigned(line: str, part: int | None = None) -> str | None:
    match = re.match(r"^([A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*,?)\s*(?::[^=]*)?[-+*/@]?=(?!=)", line)
    if match is None:
        return None
    names = [name.strip() for name in match[1].split(",")]
    if part is None:
        return names[0] if len(names) == 1 else None
    if len(names) == 1:
        return None
    return names[part] if part < len(names) and names[part] not in ("", "_") else None


def _singular(name: str) -> str:
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    return (
        name[:-1]
        if name.endswith("s") and not name.endswith("ss") and len(name) > 2
        else f"{name}_layer"
        if not name.isdigit()
        else "layer"
    )


def _depth(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += character in "([" or -(character in ")]")
        deepest = max(deepest, depth)
    return deepest


def _is_symbolic(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool)
