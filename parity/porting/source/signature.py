"""The model's own arguments and results: their structure in Python."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import sympy
import torch
from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.porting.errors import PortError
from parity.porting.graph.capture import Capture
from parity.porting.graph.nodes import is_symbolic
from parity.porting.operators.expression import ATOM, Expression, plain
from parity.porting.source.body import Body
from parity.porting.source.call import Call
from parity.porting.source.loops.lists import spread
from parity.porting.source.sizes import size, size_of
from parity.porting.source.statements import Writer
from parity.porting.source.structure import classes, guards, structured


class Face:
    """How the model is called and what it returns."""

    def __init__(self, capture: Capture, root: Call, model: torch.nn.Module) -> None:
        self.nodes = {node.name: node for node in capture.graph.nodes}
        specs = capture.program.graph_signature.input_specs
        given = [spec.arg for spec in specs if spec.kind is torch.export.graph_signature.InputKind.USER_INPUT]
        assert capture.program.call_spec.in_spec is not None
        assert capture.program.call_spec.out_spec is not None
        leaves = [self.nodes.get(arg.name, None) if not hasattr(arg, "value") else Fixed(arg.value) for arg in given]
        args, kwargs = torch_tree.tree_unflatten(leaves, capture.program.call_spec.in_spec)
        self.given = torch_tree.tree_map(lambda x: x.meta["val"] if isinstance(x, Node) else 0, (args, kwargs))
        self.parameters = _parameters(inspect.signature(model.forward), args, kwargs)
        output = next(node for node in capture.graph.nodes if node.op == "output")
        flat = torch_tree.tree_leaves(output.args[0])
        kinds = list(capture.program.graph_signature.output_specs)
        user = [
            x if isinstance(x, Node) else Fixed(x)
            for x, spec in zip(flat, kinds, strict=True)
            if spec.kind is torch.export.graph_signature.OutputKind.USER_OUTPUT
        ]
        self.results = user
        self.result_spec = capture.program.call_spec.out_spec
        self.classes = classes(self.result_spec, map(_type_of, user))
        self.limits = capture.limits
        self.fixed = capture.fixed

    def body(self, writer: Writer) -> Body:
        """The model's ``__call__``."""
        names: list[str] = []
        opening: list[str] = []
        fixed: dict[str, Any] = {}
        later: list[tuple[Node, str, str]] = []
        for name, value in self.parameters:
            if isinstance(value, Node):
                names.append(writer.bind(value, writer.free(name)))
            elif isinstance(value, Fixed):
                names.append(writer.unused(name))
                fixed[names[-1]] = value.value
                opening += guards(names[-1], value.value)
            else:
                names.append(writer.free(name))
                for path, leaf in torch_tree.tree_flatten_with_path(value)[0]:
                    if isinstance(leaf, Node) and leaf.users:
                        last = str(getattr(path[-1], "key", getattr(path[-1], "idx", "")))
                        wanted = last if last.isidentifier() else f"{name}_{last}"
                        later.append((leaf, wanted, names[-1] + torch_tree.keystr(path).replace("'", '"')))
        for node, wanted, text in later:
            target = wanted
            while target in writer.bound or target in names:
                target += "_"
            opening.append(f"{writer.bind(node, target)} = {text}")
        opening += self._limited(writer)
        arrays = [x for x in self.results if isinstance(x, Node) and not is_symbolic(x)]
        body = writer.body(self._returned, arrays)
        for i in reversed(range(len(names))):
            if names[i] not in fixed:
                break  # what has no default follows none that has
            names[i] += f"={fixed[names[i]]!r}".replace("'", '"')
        return Body(names, opening + body.lines, body.sizes)

    def _limited(self, writer: Writer) -> Iterator[str]:
        """What refuses sizes for which the model may do something else."""
        for limit in self.limits:
            yield f"if {plain(size_of(writer, sympy.Not(limit)).text)}:"
            yield f'    raise ValueError("only ported for {plain(size_of(writer, limit).text)}")'
        for name, x in writer.bound.items():
            axes = self.fixed.get(x.name, [])
            shape = list(x.meta["val"].shape) if axes else []
            if len(axes) > 1 and axes == [*range(axes[0], axes[-1] + 1)]:
                stop = axes[-1] + 1 if axes[-1] + 1 < len(shape) else ""
                yield from guards(f"{name}.shape[{axes[0]}:{stop}]", tuple(shape[axes[0] :][: len(axes)]))
            else:
                for axis in axes:
                    yield from guards(f"{name}.shape[{axis}]", shape[axis])

    def _returned(self, writer: Writer) -> Expression:
        def text(x: Any) -> str:
            if isinstance(x, Fixed):
                return repr(x.value)
            if is_symbolic(x):
                return size(writer, x.meta["val"]).text
            return writer.value(x).text

        def row(leaves: list[Any]) -> str:
            return spread(writer.lists, leaves, [Expression(text(x)) for x in leaves]).text

        return Expression(structured(self.result_spec, iter(self.results), text, row), ATOM)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """An argument or result that is no array: what it was in the example."""

    value: Any


def _type_of(result: Node | Fixed) -> str:
    value = result.value if isinstance(result, Fixed) else result.meta["val"]
    if isinstance(value, torch.Tensor):
        return "jax.Array"
    numbers = {torch.SymInt: "int", torch.SymFloat: "float", torch.SymBool: "bool", type(None): "None"}
    return numbers.get(type(value), type(value).__name__)


def _parameters(signature: inspect.Signature, args: Any, kwargs: Any) -> list[tuple[str, Any]]:
    bound = signature.bind(*args, **kwargs).arguments
    flat: list[tuple[str, Any]] = []
    for name, value in bound.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            flat += list(value.items())
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            flat += [(f"{name}_{i}", entry) for i, entry in enumerate(value)]
        else:
            flat.append((name, value))
    if any(
        isinstance(value, Fixed) and not isinstance(value.value, Mapping | bool | int | float | str | None)
        for _, value in flat
    ):
        raise PortError("port: an argument is neither array nor number, nor a container of them")
    return flat
