"""A function with a gradient of its own as a ``jax.custom_vjp`` in the method."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch.fx import Node

from parity.porting.operators.expression import ATOM, Expression, several
from parity.porting.source.call import Call
from parity.porting.source.derivatives import draws, nodes_within

if TYPE_CHECKING:
    from parity.porting.source.statements import Writer


def owned_inputs(node: Node) -> list[Node]:
    """The arrays that the function takes."""
    return list(node.args[1])


def owned(writer: Writer, node: Node) -> Expression:
    """The call of the function, it and what it does with what comes back written before.

    The way back computes anew what it needs of the way forward: under ``jit`` the two are one.
    """
    outputs, inputs, cotangents, gradients, kind, names = map(_plain, node.args)
    given = [writer.value(x) for x in inputs]
    parameters = dict(zip(inputs, names, strict=True))
    forward = _function(writer, outputs, parameters, {})
    several_come = sum(x is not None for x in cotangents) > 1
    incoming = {x: f"gradient{i}" if several_come else "gradient" for i, x in enumerate(cotangents, 1) if x is not None}
    backward = _function(writer, gradients, parameters, incoming)
    same = tuple(forward), tuple(backward)
    if same not in writer.functions:
        name = writer.functions[same] = writer.unused(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower())
        writer.lines += _definition(
            name, list(parameters.values()), [incoming.get(x, "_") for x in cotangents], forward, backward
        )
    text = f"{writer.functions[same]}({', '.join(x.text for x in given)})"
    read = frozenset[str]().union(*(x.names for x in given))
    if len(outputs) == 1:
        return several(Expression(text, ATOM, read))
    return several(*(Expression(f"{text}[{i}]", ATOM, read) for i in range(len(outputs))), together=Expression(text))


def _definition(
    name: str, parameters: list[str], incoming: list[str], forward: list[str], backward: list[str]
) -> list[str]:
    row, back = ", ".join(parameters), f"{name}_backward"
    reads = any(re.search(rf"\b{parameter}\b", line) for line in backward for parameter in parameters)
    alone = len(parameters) == 1
    unpacked = [f"    {row} = saved"] if reads and not alone else []
    given, kept = (row, row) if alone else ("*given", "given")
    arriving = incoming[0] if len(incoming) == 1 else "gradients"
    if len(incoming) > 1:
        unpacked.append(f"    {', '.join(incoming)} = gradients")
    return [
        "@jax.custom_vjp",
        f"def {name}({row}):",
        *(f"    {line}" for line in forward),
        f"def {back}({(row if alone else 'saved') if reads else '_'}, {arriving}):",
        *unpacked,
        *(f"    {line}" for line in backward),
        f"{name}.defvjp(lambda {given}: ({name}({given}), {kept if reads else None}), {back})",
    ]


def _function(
    writer: Writer, results: list[Node | None], parameters: dict[Node, str], incoming: dict[Node, str]
) -> list[str]:
    """The body of a function that makes ``results`` of its parameters."""
    bound = parameters | incoming
    items = _between([x for x in results if x is not None], bound, writer)
    wanted = [x for x in results if x is not None]
    call = Call(writer.call.path, writer.call.index, writer.call.module, writer.call.record, items, outputs=wanted)
    inner = writer.nested(call)
    inner.outer = set()
    for x, name in bound.items():
        inner.bind(x, name)

    def row(inner: Writer) -> Expression:
        parts = ["None" if x is None else inner.value(x).text for x in results]
        alone = len(parts) == 1 and not incoming
        return Expression(parts[0] if alone else f"({', '.join(parts)}{',' if len(parts) == 1 else ''})")

    return inner.body(row, root_outputs=wanted).lines


def _between(results: list[Node], bound: dict[Node, str], writer: Writer) -> list[Node | Call]:
    """What is to be computed in a function, of the statements of the method."""
    needed: set[Node] = set()
    pending = [x for x in results if x not in bound]
    while pending:
        node = pending.pop()
        if node in needed or node.op == "placeholder":
            continue
        needed.add(node)
        pending += [x for x in node.all_input_nodes if x not in bound]
    items = [item for item in writer.call.items if nodes_within([item]) & needed]
    if nodes_within(items) != needed:
        raise NotImplementedError("a function with a gradient of its own that reads what it is not given")
    if any(map(draws, needed)):
        raise NotImplementedError("a function with a gradient of its own that draws by chance")
    return items


def _plain(x: Any) -> Any:
    return list(x) if isinstance(x, list | tuple) else x
