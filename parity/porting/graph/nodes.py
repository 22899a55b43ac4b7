"""What a node of a graph is, and how it is called."""

from typing import Any

import torch
from torch.fx import Node


def packet(node: Node) -> str:
    """The operator's name without library and overload."""
    name = str(node.target)
    return name.split(".")[1] if name.startswith("aten.") else name


def is_symbolic(node: Node) -> bool:
    """Whether ``node`` is a size that is free, no array."""
    return isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool)


def is_floating(x: Any) -> bool:
    """Whether ``x`` is a node that stands for an array with fractions."""
    value = x.meta.get("val") if isinstance(x, Node) else None
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def in_place(node: Node) -> bool:
    """Whether the operator writes into its first argument."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    arguments = node.target._schema.arguments
    return bool(arguments and arguments[0].alias_info is not None and arguments[0].alias_info.is_write)


def written(node: Node) -> Any:
    """What an operator in place finally writes into: of ``x.mul_(2).add_(1)``, ``x``."""
    target = node.args[0]
    while isinstance(target, Node) and in_place(target):
        target = target.args[0]
    return target


def writes_input(node: Node) -> bool:
    """Whether an operator in place finally writes into an input of the graph."""
    return in_place(node) and isinstance(target := written(node), Node) and target.op == "placeholder"


def written_path(node: Node) -> str | None:
    """The path of the parameter or buffer that an operator in place writes into; None where it writes into none."""
    return written(node).meta.get("path") if writes_input(node) else None


def traced_name(node: Node) -> str:
    """The name that the tracer gave ``node``."""
    return str(node.meta.get("traced", node.name))


def known_as(node: Node) -> str:
    """The name under which the calls of modules know what ``node`` is."""
    return str(node.meta.get("behind", node.name))
