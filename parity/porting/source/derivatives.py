"""``torch.autograd.grad`` as ``jax.grad`` of a function in the method: what the graph has between its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from parity.porting.graph.differentiation import ancestors
from parity.porting.graph.nodes import packet, written_path
from parity.porting.graph.rows import argument
from parity.porting.operators.expression import ATOM, Expression, several
from parity.porting.source.call import Call

if TYPE_CHECKING:
    from parity.porting.source.statements import Writer

_DRAWS_IF = {"rrelu": "training", "scaled_dot_product_attention": "dropout_p"} | dict.fromkeys(
    ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"), "train"
)
"""Which argument of which operator says whether it draws numbers; others with their tag always do."""


def outside(writer: Writer, node: Node) -> list[Node]:
    """What the derivative takes from around the function."""
    outputs, inputs, weights = _arguments(node)
    items = _between(writer, outputs, inputs)
    inside = nodes_within(items) | set(inputs)
    return [*inputs, *weights, *dict.fromkeys(x for item in items for x in writer.needs(item) if x not in inside)]


def derivative(writer: Writer, node: Node) -> Expression:
    """The gradients, the function written before; it reads what is around it."""
    outputs, inputs, weights = _arguments(node)
    items = _between(writer, outputs, inputs)
    _refuse(items, outputs, inputs)
    around = outside(writer, node)
    for x in around:
        if x in writer.pending:
            writer.settle_before(x)
    names = [writer.names[x] for x in inputs]
    # What is read beside an input and is the same array, it is not differentiated by.
    taken = frozenset(writer.names[x] for x in around if x not in inputs and x in writer.names)
    read = taken.union(names)  # where the function is called, and in it
    parameters = [writer.unused(name) if name in taken else name for name in names]
    call = Call(writer.call.path, writer.call.index, writer.call.module, writer.call.record, items, outputs=outputs)
    inner = writer.nested(call)
    again = nodes_within(items)
    inner.names = {x: name for x, name in writer.names.items() if x not in again}
    inner.bound = {name: x for name, x in writer.bound.items() if x not in again}
    for name, x in zip(parameters, inputs, strict=True):
        inner.bind(x, name)
    value = outputs[0].args[0] if packet(outputs[0]) == "sum" else outputs[0]
    body = inner.body(None if weights else _total, root_outputs=outputs)
    same = (tuple(parameters), tuple(body.lines), frozenset(around))
    if same not in writer.functions:
        name = f"{writer.names.get(value) or _name(writer, items, value)}_of_{'_'.join(names)}"
        writer.functions[same] = writer.unused(name)
        writer.lines += [
            f"def {writer.functions[same]}({', '.join(parameters)}):",
            *(f"    {line}" for line in body.lines),
        ]
    function = writer.functions[same]
    given = ", ".join(names)
    if weights:
        vectors = ", ".join(writer.value(x).text for x in weights)
        text = f"jax.vjp({function}, {given})[1]({vectors if len(weights) == 1 else f'({vectors})'})"
    elif len(names) == 1:
        return several(Expression(f"jax.grad({function})({given})", ATOM, read))
    else:
        text = f"jax.grad({function}, argnums={tuple(range(len(names)))})({given})"
    together = Expression(text, ATOM, read)
    return several(*(Expression(f"{text}[{i}]", ATOM, together.names) for i in range(len(names))), together=together)


def _name(writer: Writer, items: list[Node | Call], value: Any) -> str:
    """What the torch source calls what is differentiated."""
    call = next((item for item in items if isinstance(item, Call) and value in item.outputs), None)
    return (writer.call_name(call) if call is not None else writer.source_name(value)) or "value"


def _total(inner: Writer) -> Expression:
    """What the function returns: ``jax.grad`` takes one number."""
    parts = [(inner.value(x), x.meta["val"].ndim) for x in inner.call.outputs]
    text = " + ".join(f"{part.within(ATOM)}.sum()" if axes else part.text for part, axes in parts)
    return Expression(text)


def _arguments(node: Node) -> tuple[list[Node], list[Node], list[Node]]:
    """Outputs, inputs and weights; none of these where all are ones."""
    outputs, inputs, weights = map(list[Any], node.args)
    return outputs, inputs, [] if all(packet(x) in ("ones_like", "ones", "new_ones") for x in weights) else weights


def _between(writer: Writer, outputs: list[Node], inputs: list[Node]) -> list[Node | Call]:
    """What is to be computed again, of the statements of the method."""
    made: set[Node] = set()
    for node in outputs[0].graph.nodes:
        if any(x in made or x in inputs for x in node.all_input_nodes):
            made.add(node)
    needed = made & ancestors(list(outputs))
    items = [item for item in writer.call.items if nodes_within([item]) & needed]
    if not needed <= nodes_within(items):
        raise NotImplementedError("a gradient of what another module has computed")
    return items


def nodes_within(items: list[Node | Call]) -> set[Node]:
    """Every operator within."""
    return {node for item in items for node in (item.nodes() if isinstance(item, Call) else [item])}


def _refuse(items: list[Node | Call], outputs: list[Node], inputs: list[Node]) -> None:
    inside = nodes_within(items)
    if inside & set(inputs) or any(x.meta.get("path") for x in inputs):
        raise NotImplementedError("a gradient with regard to a parameter, or to what is made beside its own results")
    for node in inside:
        if draws(node):
            raise NotImplementedError("a gradient through what is drawn by chance")
        trains = packet(node) in ("batch_norm", "instance_norm") and node.args[5]
        if trains or str(node.target).startswith("parity.batch") or written_path(node) is not None:
            raise NotImplementedError("a gradient through what writes into buffers")


def draws(node: Node) -> bool:
    """Whether ``node`` is another each time that it is computed."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    said = _DRAWS_IF.get(packet(node))
    return said is None or bool(argument(node, said))
