"""``torch.cond`` as ``jax.lax.cond``, its branches as functions in the method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.fx import Node

from parity.porting.operators.expression import Expression
from parity.porting.source.call import Call
from parity.porting.source.tree import is_silent

if TYPE_CHECKING:
    from parity.porting.source.statements import Writer


def is_conditional(node: Node) -> bool:
    """Whether ``node`` is a ``torch.cond``."""
    return node.op == "call_function" and str(node.target) == "cond"


def conditional(writer: Writer, node: Node) -> Expression:
    """The call, its branches written before it; they read what is around them and take no arguments."""
    predicate, *branches, operands = node.args
    for operand in operands:
        if isinstance(operand, Node) and operand in writer.pending:
            writer.settle_before(operand)
    condition = writer.value(predicate)
    names = [
        _branch(writer, branch, operands, name) for branch, name in zip(branches, ("if_true", "if_false"), strict=True)
    ]
    return Expression(f"jax.lax.cond({condition.text}, {', '.join(names)})", names=condition.names)


def _branch(writer: Writer, branch: Node, operands: list[Node], wanted: str) -> str:
    """Write one branch as a function, and give its name."""
    graph = getattr(branch.graph.owning_module, branch.target).graph
    nodes = list(graph.nodes)
    results = [x for x in nodes[-1].args[0] if isinstance(x, Node)]
    call = Call(writer.call.path, writer.call.index, writer.call.module, None, outputs=results)
    call.items = [x for x in nodes if not is_silent(x)]
    inner = writer.nested(call)
    for placeholder, operand in zip((x for x in nodes if x.op == "placeholder"), operands, strict=True):
        placeholder.meta = dict(operand.meta)
        if operand in writer.names:
            inner.bind(placeholder, writer.names[operand])
    name = writer.unused(wanted)
    body = inner.body(root_outputs=results)
    writer.lines += [f"def {name}():", *(f"    {line}" for line in body.lines)]
    return name
