"""Lists of arrays that a module is given and joins as they are, as the layers of a DenseNet do."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.porting.call import Call
from parity.porting.capture import Reference
from parity.porting.functionalization import packet
from parity.porting.regions import known_as


@dataclass(frozen=True)
class Listed:
    """A list among the arguments of a call: the parameter's name, and what is in it."""

    name: str
    nodes: tuple[Node, ...]


def arguments(call: Call) -> list[Node | Listed]:
    """What a call takes, in order: arrays, and lists that stay lists."""
    of = {node: listed for listed in _lists(call) for node in listed.nodes}
    return list(dict.fromkeys(of.get(node, node) for node in call.inputs))


def _lists(call: Call) -> Iterator[Listed]:
    if call.leaf or call.record is None:
        return
    given = call.record.positional, call.record.keywords
    counts = Counter(x.name for x in torch_tree.tree_leaves(given) if isinstance(x, Reference))
    nodes = {name: node for node in call.inputs for name in (node.name, known_as(node))}
    for name, value in inspect.signature(call.module.forward).bind(*given[0], **given[1]).arguments.items():
        if not isinstance(value, list) or not value or not all(isinstance(x, Reference) for x in value):
            continue
        if all(x.name in nodes and counts[x.name] == 1 for x in value):
            listed = Listed(name, tuple(nodes[x.name] for x in value))
            if _is_only_joined(call, listed):
                yield listed


def _is_only_joined(call: Call, listed: Listed) -> bool:
    """Whether all that ``call`` does with the list is to join it as a whole."""
    inner, own = set(call.nodes()), {item for item in call.items if isinstance(item, Node)}
    users = {user for node in listed.nodes for user in node.users if user in inner}
    return all(user in own and is_joined(user, listed.nodes) for user in users)


def is_joined(node: Node, parts: tuple[Node, ...]) -> bool:
    """Whether ``node`` joins ``parts``, of one dtype and no empty vectors, and nothing else."""
    if packet(node) not in ("cat", "concat", "concatenate", "stack") or tuple(_sequence(node.args[0])) != parts:
        return False
    values = [part.meta["val"] for part in parts]
    return len({x.dtype for x in values}) == 1 and len({x.ndim for x in values}) == 1


def _sequence(x: Any) -> Any:
    return x if isinstance(x, list | tuple) else ()
