"""Layers of torch.nn with something added: subclasses whose ``forward`` calls the layer's operator itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node

from parity.porting.graph.nodes import in_place, packet
from parity.porting.graph.recording import Record, Reference
from parity.porting.source.call import Call, array
from parity.porting.source.layers import ancestor
from parity.porting.source.statistics import is_said

ARRAYS = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
"""What the layers hold that an operator stands for."""

_SPEED = ("cudnn_enable", "cudnn_enabled")
"""Arguments that say how the operator is computed."""


def mark_inherited(root: Call) -> None:
    """Make a leaf of what a subclass does as the layer that it is derived from does it.

    So batch normalization with an activation behind it trains as batch normalization does. Where the subclass does
    nothing else, its call is the leaf.
    """
    calls: dict[int, list[Call]] = defaultdict(list)
    for call in _composed(root):
        calls[id(call.module)].append(call)
    for same in calls.values():
        leaves = [_leaf(call) for call in same]
        found = [leaf for leaf in leaves if leaf is not None]
        if len(found) < len(leaves):
            continue
        if all(_is_all(call, leaf) for call, leaf in zip(same, found, strict=True)):
            for call, leaf in zip(same, found, strict=True):
                call.leaf, call.record, call.items = True, leaf.record, leaf.items
            continue
        for call, leaf in zip(same, found, strict=True):
            *counts, operator = leaf.items
            call.items = [leaf if item is operator else item for item in call.items if item not in counts]


def _composed(call: Call) -> Iterator[Call]:
    for child in call.calls():
        if not child.leaf:
            yield child
            yield from _composed(child)


def _leaf(call: Call) -> Call | None:
    """What in ``call`` is the layer's own operator, as a call of the layer."""
    kind = ancestor(call.module)
    if kind is None or call.record is None:
        return None
    nodes = [item for item in call.items if isinstance(item, Node)]
    found = [node for node in nodes if _is_own(node, call.module, kind)]
    counter = getattr(call.module, "num_batches_tracked", None)
    counts = [node for node in nodes if counter is not None and in_place(node) and array(node) is counter]
    counting = call.module.training and counter is not None
    if len(found) != 1 or len(counts) != counting:
        return None
    given = found[0].args[0]
    assert isinstance(given, Node)
    record = Record((Reference(given.name),), {}, {}, Reference(found[0].name))
    return Call(call.path, call.index, call.module, record, [*counts, *found], leaf=True)


def _is_own(node: Node, module: Any, kind: type[torch.nn.Module]) -> bool:
    """Whether ``node`` is the operator of ``kind`` with what ``module`` holds for its arguments."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if not kind.__name__.lower().startswith(packet(node).replace("_", "")):
        return False
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return False
    schema = node.target._schema.arguments
    values = [*node.args, *(node.kwargs.get(a.name, a.default_value) for a in schema[len(node.args) :])]
    arguments = {a.name: value for a, value in zip(schema, values, strict=True)}
    if not isinstance(arguments.pop(schema[0].name), Node):
        return False
    training = arguments.pop("training", None)
    if training is not None and is_said(module):
        return False
    if training not in (None, module.training or arguments.get("running_mean") is None):
        return False
    return all(_holds(module, name, value) for name, value in arguments.items() if name not in _SPEED)


def _holds(module: Any, name: str, value: Any) -> bool:
    """Whether the attribute ``name`` of ``module`` is ``value``."""
    if not hasattr(module, name):
        return False
    held = getattr(module, name)
    if isinstance(value, Node):
        return held is not None and array(value) is held
    return bool(tuple(value) == held if isinstance(value, list) else value == held)


def _is_all(call: Call, leaf: Call) -> bool:
    """Whether ``leaf`` is everything that ``call`` does, and gives what it gives."""
    assert call.record is not None
    assert leaf.record is not None
    return set(call.nodes()) == set(leaf.items) and call.record.output == leaf.record.output
