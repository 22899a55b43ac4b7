"""Operators and calls as expressions."""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from parity.arrays import to_jax
from parity.porting.errors import PortError
from parity.porting.graph.differentiation import is_derivative
from parity.porting.graph.own_gradients import is_owned
from parity.porting.operators.expression import ATOM, Expression, Several
from parity.porting.operators.operation import Arguments, Operation, Tensor
from parity.porting.operators.registry import found
from parity.porting.source.body import Unsupported
from parity.porting.source.branches import conditional, is_conditional
from parity.porting.source.call import Call
from parity.porting.source.derivatives import derivative
from parity.porting.source.host import Host
from parity.porting.source.loops.lists import Listed, arguments, spread
from parity.porting.source.loops.runs import structure
from parity.porting.source.naming import access, source_line
from parity.porting.source.own_gradients import owned
from parity.porting.source.sizes import size, size_of

if TYPE_CHECKING:
    from parity.porting.source.statements import Writer


def _argument(writer: Writer, x: Any) -> Any:
    """An argument of an operator as what stands for it."""
    if isinstance(x, Node):
        value = x.meta.get("val")
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            return value
        if isinstance(value, int | float | bool) and x.op != "placeholder":
            return value
        expression = writer.value(x)
        return Tensor(expression, value) if isinstance(value, torch.Tensor) else expression
    if isinstance(x, list | tuple):
        return [_argument(writer, part) for part in x]
    return x


def operator_of(writer: Writer, node: Node) -> Expression:
    """What an operator computes; one that cannot be written is noted."""
    if is_conditional(node):
        return conditional(writer, node)
    if node.target is operator.getitem:
        return part_of(writer.value(node.args[0]), node)
    builder = found(node.target)
    try:
        if is_derivative(node):
            return derivative(writer, node)
        if is_owned(node):
            return owned(writer, node)
        if builder is None:
            raise NotImplementedError("")
        arguments, host = _bound_arguments(writer, node), Host(writer, node)
        operation = Operation(str(node.target), arguments, node.meta.get("val"), partial(size, writer), host)
        expression = builder(operation)
        if ignored := arguments.ignored():
            raise NotImplementedError(f"with {', '.join(ignored)}")
        several = isinstance(expression, Several)
        return expression if several else Expression(expression.text, expression.strength, expression.names)
    except (PortError, RecursionError):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, NotImplementedError) else f"{type(error).__name__}: {error}"
        writer.unsupported.append(Unsupported(str(node.target), writer.call.path, source_line(node), reason))
        return Expression("None")


def _bound_arguments(writer: Writer, node: Node) -> Arguments:
    arguments = Arguments()
    if not isinstance(node.target, torch._ops.OpOverload):
        arguments.update((f"arg{i}", _argument(writer, x)) for i, x in enumerate(node.args))
        return arguments
    for i, argument in enumerate(node.target._schema.arguments):
        if i < len(node.args):
            arguments[argument.name] = _argument(writer, node.args[i])
        elif argument.name in node.kwargs:
            arguments[argument.name] = _argument(writer, node.kwargs[argument.name])
        else:
            arguments[argument.name] = argument.default_value
        if argument.has_default_value():
            arguments.optional[argument.name] = argument.default_value
    for key in ("memory_format", "layout", "device", "pin_memory", "non_blocking", "implicit"):
        arguments.pop(key, None)
    return arguments


def _given(writer: Writer, given: Node | Listed) -> Expression:
    if isinstance(given, Node):
        return writer.value(given)
    return spread(writer.lists, list(given.nodes), [writer.value(node) for node in given.nodes])


def call_of(writer: Writer, call: Call) -> Expression:
    """What a module is called with."""
    operation = Operation(call.path, Arguments(), None, partial(size, writer))
    inherited = call.leaf and call.path == writer.call.path
    target = "super().__call__" if inherited else access(writer.call.path, call.path, writer.modules)
    if not call.leaf:
        name, sizes = writer.method(call)
        args = [_given(writer, given) for given in arguments(call)] + [size_of(writer, wanted) for wanted in sizes]
        return operation.call(target + ("" if name == "__call__" else f".{name}"), *args)
    resolve = writer.referred(call)

    def argument(x: Any) -> Any:
        x = resolve(x)
        return _argument(writer, x) if isinstance(x, Node) else x

    def rebuilt(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return [rebuilt(part) for part in x]
        return to_jax(x) if isinstance(x, torch.dtype) else argument(x)

    positional, keywords = structure(call)
    args = [rebuilt(x) for x in positional]
    while args and args[-1] is None:
        args.pop()
    return operation.call(target, *args, **{key: rebuilt(x) for key, x in keywords.items()})


def part_of(source: Expression, node: Node) -> Expression:
    """The result of ``source`` that ``node`` picks."""
    if isinstance(source, Several):
        return source.parts[node.args[1]]
    if is_conditional(node.args[0]) and len(node.args[0].meta["val"]) == 1:
        return source
    return Expression(f"{source.within(ATOM)}[{node.args[1]}]", ATOM, source.names)
