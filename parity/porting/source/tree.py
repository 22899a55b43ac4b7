"""The graph as a tree of module calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.porting.graph.capture import Capture
from parity.porting.graph.nodes import in_place, is_symbolic, known_as
from parity.porting.graph.recording import Reference
from parity.porting.source.call import Call, array
from parity.porting.source.inheritance import mark_inherited
from parity.porting.source.layers import CONTAINERS, has_twin
from parity.porting.source.loops.lists import arguments
from parity.porting.source.statistics import with_statistics

_SILENT = (
    "_assert", "sym_constrain", "_guards", "sym_size", "_check", "sym_numel", "sym_stride", "_set_grad_enabled",
    "_enter_autocast", "_exit_autocast",
)  # fmt: skip


def is_silent(node: Node) -> bool:
    """Whether ``node`` computes no array: a size, an assertion."""
    return node.op != "call_function" or _is_silent(node.target) or is_symbolic(node)


@cache
def _is_silent(target: Any) -> bool:
    name = str(target)
    return any(part in name for part in _SILENT)


def call_tree(capture: Capture, model: torch.nn.Module) -> Call:
    """Every operator under the call of the module that it belongs to."""
    names = {node.name: node for node in capture.graph.nodes}
    modules = dict(model.named_modules(remove_duplicate=False))
    root = Call("", 0, model, capture.recording.records.get(("", 0)))
    stack, keys = [root], [("", 0)]
    for node in capture.graph.nodes:
        if is_silent(node):
            continue
        entered = [key for key in _chain(node, capture.recording.calls) if key[0] in modules and key[0]]
        chain = _within([("", 0), *entered], modules)
        shared = 0
        while shared < min(len(chain), len(keys)) and chain[shared] == keys[shared]:
            shared += 1
        del stack[shared:], keys[shared:]
        for path, index in chain[shared:]:
            call = Call(path, index, modules[path], capture.recording.records.get((path, index)))
            stack[-1].items.append(call)
            stack.append(call)
            keys.append((path, index))
        stack[-1].items.append(node)
    _mark_leaves(root, names, _lent(root, names))
    mark_inherited(root)
    with_statistics(root)
    _dissolve(root)
    _connect(root)
    _give_alike(root, names)
    return root


def _chain(node: Node, calls: dict[str, tuple[str, int]]) -> list[tuple[str, int]]:
    """The calls that led to ``node``, outermost first."""
    entered = [key.removeprefix("L__self__") for key in node.meta.get("nn_module_stack") or {}]
    return [calls[key] for key in entered if key in calls]


def _within(chain: list[tuple[str, int]], modules: dict[str, torch.nn.Module]) -> list[tuple[str, int]]:
    """The calls that are each of a module inside the one before; what a module was lent it does as its own."""
    kept = chain[:1]
    for path, index in chain[1:]:
        holder = kept[-1][0]
        if path.startswith(f"{holder}.") or not holder or modules[path] in modules[holder].modules():
            kept.append((path, index))
    return kept


def _lent(call: Call, names: dict[str, Node]) -> set[int]:
    """The modules that are not themselves in every call: none of their calls is the layer's, for they are one class."""
    found: set[int] = set()
    for child in call.calls():
        if not has_twin(child.module) or child.record is None or not _whole(child, names):
            found |= {id(child.module)} | _lent(child, names)
    return found


def _mark_leaves(call: Call, names: dict[str, Node], lent: set[int]) -> None:
    for child in call.calls():
        child.leaf = id(child.module) not in lent and has_twin(child.module)
        if child.leaf:
            child.items = list(child.nodes())
        else:
            _mark_leaves(child, names, lent)


def _whole(call: Call, names: dict[str, Node]) -> bool:
    """Whether all that the call was given and gave is known, it read its own arrays, and autocast left it as it is.

    What nobody reads is gone from the graph. ``torch.func.functional_call`` lends a module other arrays.
    """
    assert call.record is not None
    inner = set(call.nodes())
    if any("autocast" in node.meta for node in inner):
        return False
    given = torch_tree.tree_leaves((call.record.positional, call.record.keywords))
    known = all(not isinstance(x, torch.Tensor) and (not isinstance(x, Reference) or x.name in names) for x in given)
    returned = [x for x in torch_tree.tree_leaves(call.record.output) if x is not None]
    names_given = {x.name for x in given if isinstance(x, Reference)}
    own = {id(x) for x in (*call.module.parameters(), *call.module.buffers())}
    for node in inner:
        for source in node.all_input_nodes:
            if source in inner or is_symbolic(source) or id(array(source)) in own:
                continue
            if not names_given & {source.name, known_as(source)}:
                return False
    return known and all(isinstance(x, Reference) and (x.name not in names or names[x.name] in inner) for x in returned)


def is_chain(call: Call) -> bool:
    """Whether the call feeds its children one after the other, as ``Sequential`` does."""
    if not all(isinstance(item, Call) for item in call.items):
        return False
    previous: Node | None = None
    numbered = list(call.module._modules)
    order = [
        numbered.index(child.path.rpartition(".")[2])
        for child in call.calls()
        if child.path.rpartition(".")[0] == call.path
    ]
    if len(order) != len(call.items) or order != sorted(set(order)):
        return False
    for child in call.calls():
        if len(child.inputs) != 1 or len(child.outputs) != 1 or arguments(child) != child.inputs:
            return False
        if previous is not None and child.inputs[0] is not previous:
            return False
        previous = child.outputs[0]
    skipped = [
        module for i, module in enumerate(call.module._modules.values()) if i not in order and module is not None
    ]
    return (
        previous is not None and call.outputs == [previous] and all(isinstance(m, torch.nn.Identity) for m in skipped)
    )


def _dissolve(call: Call) -> None:
    """Put what happens in containers that are no plain chains into the calls around them."""
    for child in call.calls():
        _dissolve(child)
    _connect(call)
    items: list[Node | Call] = []
    for item in call.items:
        if isinstance(item, Call) and not item.leaf and type(item.module) in CONTAINERS and not is_chain(item):
            items.extend(item.items)
        else:
            items.append(item)
    call.items = items


def _connect(call: Call) -> None:
    """Find what every call within takes from outside and gives back."""
    for child in call.calls():
        _connect(child)
    inner = set(call.nodes())
    own = {id(x) for x in (*call.module.parameters(), *call.module.buffers())}
    outside: dict[Node, None] = {}
    for node in call.nodes():
        for source in node.all_input_nodes:
            if (
                source not in inner
                and source.op != "get_attr"
                and not is_symbolic(source)
                and id(array(source)) not in own
                and not _is_written_inside(source, inner)
            ):
                outside.setdefault(source)
    given = list(call.record.names if call.record else {})
    rank = {name: i for i, name in enumerate(given)}
    call.inputs = sorted(outside, key=lambda node: rank.get(known_as(node), len(rank)))
    call.outputs = [
        node
        for node in call.nodes()
        if any(user not in inner and _reads(user) for user in node.users) and id(array(node)) not in own
    ]
    _sort_outputs(call)


def _sort_outputs(call: Call) -> None:
    """Give back in the order of ``forward``."""
    returned = torch_tree.tree_leaves(call.record.output) if call.record else []
    place = {x.name: i for i, x in enumerate(x for x in returned if isinstance(x, Reference))}
    call.outputs.sort(key=lambda node: place.get(node.name, len(place)))


def _give_alike(root: Call, names: dict[str, Node]) -> None:
    """Let every module of a class give back what any of them does, read or not: they stay one class."""
    groups: dict[tuple[type, int], list[tuple[Call, list[Node | None]]]] = defaultdict(list)
    for call in _classes(root):
        returned = torch_tree.tree_leaves(call.record.output) if call.record is not None else []
        inner = set(call.nodes())
        made = [names.get(x.name) if isinstance(x, Reference) else None for x in returned]
        made = [node if node in inner else None for node in made]
        groups[type(call.module), len(made)].append((call, made))
    more = True
    while more:
        more = False
        for group in groups.values():
            read = {place for call, made in group for place, node in enumerate(made) if node in call.outputs}
            for call, made in group:
                wanted = [node for place, node in enumerate(made) if place in read and node is not None]
                more |= _hand_up(call, wanted)


def _hand_up(call: Call, wanted: list[Node]) -> bool:
    """Let a call, and those within that make it, give back ``wanted``, too; whether one did not."""
    inner = set(call.nodes())
    missing = [node for node in dict.fromkeys(wanted) if node in inner and node not in call.outputs]
    if missing:
        call.outputs += missing
        _sort_outputs(call)
        for child in call.calls():
            _hand_up(child, missing)
    return bool(missing)


def _classes(call: Call) -> Iterator[Call]:
    """The calls within that are written as classes."""
    for child in call.calls():
        if not child.leaf:
            yield child
            yield from _classes(child)


def _is_written_inside(source: Node, inner: set[Node]) -> bool:
    """Whether ``source`` is a number, or an array that only ``inner`` reads, which ``forward`` made of Python's own."""
    constant = source.meta.get("constant")
    if constant is None or source.meta.get("path"):
        return False
    changes = any(in_place(user) for user in source.users)
    return (constant.ndim == 0 and not changes) or all(user in inner for user in source.users)


def _reads(user: Node) -> bool:
    return user.op == "output" or not is_silent(user)
