"""Lists of arrays that a module is given and joins as they are, as the layers of a DenseNet do."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.porting.graph.nodes import known_as, packet
from parity.porting.graph.recording import Reference
from parity.porting.operators.expression import ATOM, Expression
from parity.porting.source.call import Call

_JOINS = ("cat", "concat", "concatenate", "stack")


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
    """Whether ``node`` joins ``parts``, and nothing else."""
    return joined(node) == list(parts)


def joined(node: Node) -> list[Node]:
    """What ``node`` joins as it is: arrays of one dtype, with no empty vectors."""
    given = node.args[0] if packet(node) in _JOINS and node.args else None
    parts = list(given) if isinstance(given, list | tuple) else []
    values = [part.meta["val"] for part in parts]
    return parts if len({x.dtype for x in values}) == 1 and len({x.ndim for x in values}) == 1 else []


def joined_by(parts: list[Node], items: list[Any]) -> Node | None:
    """Which of ``items`` joins ``parts`` in a row, between others or alone."""
    readers = [user for user in parts[0].users if any(item is user for item in items)]
    return next((user for user in readers if _has(joined(user), parts)), None)


def _has(row: list[Node], parts: list[Node]) -> bool:
    """Whether ``parts`` stand in ``row``, one after the other."""
    at = row.index(parts[0]) if parts[0] in row else len(row)
    return row[at : at + len(parts)] == parts


def spread(lists: dict[tuple[Node, ...], str], nodes: list[Node], parts: list[Expression]) -> Expression:
    """``[a, b]``; of the ``lists`` that have a name, those that are in it whole by theirs.

    Args:
        lists: names by what is in them.
        nodes: what is joined.
        parts: how each of them is written.
    """
    entries: list[Expression] = []
    i = 0
    while i < len(parts):
        whole = max((known for known in lists if tuple(nodes[i : i + len(known)]) == known), key=len, default=())
        name = lists.get(whole)
        entries.append(parts[i] if name is None else Expression(f"*{name}", ATOM, frozenset([name])))
        i += len(whole) or 1
    names = frozenset[str]().union(*(entry.names for entry in entries))
    alone = len(entries) == 1 and entries[0].text.startswith("*")
    return Expression(entries[0].text[1:] if alone else f"[{', '.join(x.text for x in entries)}]", ATOM, names)
