"""Reshapes of reshapes, which are one."""

from typing import Any

import torch
from torch.fx import Graph, Node

from parity.porting.graph.nodes import packet

aten = torch.ops.aten

_RESHAPES = {"view", "reshape", "flatten", "unflatten", "_unsafe_view"}
_SAME_ORDER = _RESHAPES | {"squeeze", "unsqueeze"}


def joined(graph: Graph) -> None:
    """Let every reshape of what only it reads, and what is a reshape itself, begin at the first."""
    for node in list(graph.nodes):
        if not _is(node, _RESHAPES):
            continue
        source = _behind_aliases(node, node.args[0])
        if not _is(source, _SAME_ORDER) or not _is_only_read_by(source, node):
            continue
        before, first = node.args[0], source.args[0]
        node.target, node.args, node.kwargs = aten.reshape.default, (first, list(node.meta["val"].shape)), {}
        while before is not first:
            unread, before = before, before.args[0]
            graph.erase_node(unread)


def _is(node: Any, kinds: set[str]) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and packet(node) in kinds


def _behind_aliases(reader: Node, node: Any) -> Any:
    while _is(node, {"alias"}) and _is_only_read_by(node, reader):
        reader, node = node, node.args[0]
    return node


def _is_only_read_by(node: Node, reader: Node) -> bool:
    """Whether nothing else reads ``node``, and both are of one call of a module."""
    return len(node.users) == 1 and _call(node) == _call(reader)


def _call(node: Node) -> list[str]:
    return list(node.meta.get("nn_module_stack") or {})
