"""Values picked by a boolean mask, and put back by it or summed up.

``y[mask] = f(x[mask])`` has a shape in its middle that depends on the data. Where ``f`` treats every picked entry
alike, it is ``where(mask, f(x), y)``, whose shapes are known; so are those of ``x[mask].mean()``, which is a sum
over all entries, zero where the mask is false, by the number of the picked ones.
"""

from typing import Any, cast

import torch
from torch.fx import Graph, Node
from torch.utils import _pytree as torch_tree

from parity.porting.graph.nodes import in_place, is_symbolic, packet
from parity.porting.graph.rows import (
    argument,
    axes_from_the_end,
    by_rows,
    counted_from_the_end,
    is_check,
    is_elementwise,
    kind_of,
    only_checked,
)

aten = torch.ops.aten

# Infinite, or of infinite slope, at some entry; the first argument that makes it so.
SINGULAR_FROM = {
    "binary_cross_entropy": 0,
    "cosh": 0, "div": 1, "exp": 0, "expm1": 0, "float_power": 0, "log": 0, "log10": 0, "log1p": 0, "log2": 0, "pow": 0,
    "reciprocal": 0, "rsqrt": 0, "sinh": 0, "sqrt": 0, "tan": 0,
}  # fmt: skip

# Of one entry each, then summed or averaged as ``reduction`` says.
_LOSSES = {
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "huber_loss", "l1_loss", "mse_loss", "smooth_l1_loss",
}  # fmt: skip
_CLASS_LOSSES = {"cross_entropy_loss", "nll_loss", "nll_loss_nd"}
_ENDS = {"index_put", "sum", "mean"} | _LOSSES | _CLASS_LOSSES


def kept_whole(graph: Graph) -> None:
    """Compute for every entry what is picked by a mask, changed entry by entry, and put back or summed up."""
    for node in list(graph.nodes):
        mask = mask_of(node)
        members = _followed(graph, mask) if mask is not None else []
        picked = {member for member in members if not _is_end(member)}
        for member in picked:
            counted_from_the_end(member, _rows(member).meta["val"])
        for member in members:
            _rewritten(graph, member, mask, picked)


def mask_of(node: Node) -> Node | None:
    """The mask, where ``node`` is ``x[mask]``."""
    if packet(node) == "masked_select":
        x, chosen = cast(Any, node.args)
        return chosen if x.meta["val"].shape == chosen.meta["val"].shape else None
    if packet(node) != "index" or len(node.args[1]) != 1:
        return None
    mask: Any = cast(Any, node.args[1])[0]
    return mask if mask.meta["val"].dtype == torch.bool else None


def _is_end(node: Node) -> bool:
    """Whether picked entries are put back by ``node`` or summed up, not row by row."""
    kind = kind_of(node)
    return kind in _ENDS and (kind not in ("sum", "mean") or axes_from_the_end(node, _rows(node).meta["val"]) is None)


def _rows(node: Node) -> Node:
    """What ``node`` is made of, the first of them."""
    return node.all_input_nodes[0]


def _followed(graph: Graph, mask: Node) -> list[Node]:
    """All that is made of values picked by ``mask``, in order; nothing if a step is not of single entries."""
    members: dict[Node, None] = {}
    for node in graph.nodes:
        given = [x for x in node.all_input_nodes if x in members and not _is_end(x)]
        if _equal(mask_of(node), mask):
            members[node] = None
        elif given and is_symbolic(node):
            if not all(only_checked(user) for user in node.users):
                return []  # the number of the picked ones
        elif given and not is_check(node):
            if not _is_alike(node, given, mask):
                return []
            members[node] = None
    return list(members)


def _is_alike(node: Node, given: list[Node], mask: Node) -> bool:
    """Whether ``node`` does the same to every picked entry, in whatever shape they stand."""
    kind = kind_of(node)
    if packet(node) == "<built-in function getitem>" or not isinstance(given[0].meta["val"], torch.Tensor):
        return by_rows(node, given)
    behind = given[0].meta["val"].ndim - 1
    others = [x for x in node.all_input_nodes if x not in given and not is_symbolic(x)]
    if kind == "index_put":
        return (
            given == [node.args[2]] and len(node.args[1]) == 1 and _equal(node.args[1][0], mask) and not node.args[3:]
        )
    if by_rows(node, given):
        return True
    if kind in ("sum", "mean"):
        return argument(node, "dim") in (None, [], [0]) and not argument(node, "keepdim")
    if kind in _CLASS_LOSSES:
        classes = len(given) > 1 and given[1].meta["val"].ndim == 1 and behind == 1
        return classes and given == list(node.args[:2]) and bool(argument(node, "reduction"))
    if kind in _LOSSES and (given != list(node.args[:2]) or not argument(node, "reduction")):
        return False
    if kind in _LOSSES:
        alike = {x.meta["val"].ndim - 1 for x in given} == {behind}
        return alike and all(x.meta["val"].ndim <= behind for x in others)
    return is_elementwise(node, given)


def _equal(a: Any, b: Any) -> bool:
    """Whether both are the same value, if computed twice: ``~mask`` and ``~mask``."""
    if not (isinstance(a, Node) and isinstance(b, Node)) or a is b:
        return a is b or (not isinstance(a, Node) and not isinstance(b, Node) and a is not None and a == b)
    pure = packet(a) in ("bitwise_not", "logical_not", "eq", "gt", "lt", "ge", "le", "ne")
    return pure and a.target == b.target and len(a.args) == len(b.args) and all(map(_equal, a.args, b.args))


def _rewritten(graph: Graph, node: Node, mask: Node, picked: set[Node]) -> None:
    """``node`` for every entry; where the mask is false it computes with ones, so that no gradient is infinite."""
    kind = kind_of(node)
    first = SINGULAR_FROM.get(kind)
    if first is not None:
        safe = [chosen(graph, node, mask, x, 1) if x in picked else x for x in node.args[first:]]
        node.args = (*node.args[:first], *safe)
    args: Any = node.args
    if kind == "index_put":
        node.target, node.args = aten.copy_.default, (args[0], chosen(graph, node, mask, args[2], args[0]))
    elif kind in ("sum", "mean") and node not in picked:
        _summed(graph, node, mask, args[0], kind == "mean")
    elif kind in _LOSSES:
        each = inserted(graph, node, node.target, *_without_reduction(node))
        _summed(graph, node, mask, each, argument(node, "reduction") == 1)
    elif kind in _CLASS_LOSSES:
        # Classes that are not picked are ones that the loss ignores.
        ignored = chosen(graph, node, mask, args[1], argument(node, "ignore_index"))
        last = mask.meta["val"].ndim - 1
        flat = [inserted(graph, node, aten.flatten.using_ints, (x, 0, last)) for x in (args[0], ignored)]
        node.args = (*flat, *args[2:])
    elif mask_of(node) is not None:
        filled = chosen(graph, node, mask, args[0], 1)
        node.target, node.args, node.meta["val"] = filled.target, filled.args, filled.meta["val"]
        node.meta["picked by"] = mask
        graph.erase_node(filled)
    else:
        node.meta["val"] = _value(node)


def _without_reduction(node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a loss that gives one number for every entry."""
    names = [entry.name for entry in cast(Any, node.target)._schema.arguments]
    position = names.index("reduction")
    given = [argument(node, name) for name in names[:position]] + [0]
    return (*given, *node.args[position + 1 :]), {k: v for k, v in node.kwargs.items() if k in names[position + 1 :]}


def _summed(graph: Graph, node: Node, mask: Node, x: Node, mean: bool) -> None:
    """Make ``node`` the sum or mean over the picked entries of ``x``; the mean of half precision is taken in single."""
    value, picked = x.meta["val"], mask.meta["val"].ndim
    result, rows = node.meta["val"].dtype, bool(argument(node, "dim"))
    half = mean and result in (torch.float16, torch.bfloat16)
    wanted = {"dtype": torch.float32 if half else result}
    zeroed = chosen(graph, node, mask, x, 0)
    if rows:
        total = inserted(graph, node, aten.sum.dim_IntList, (zeroed, list(range(picked))), wanted)
    else:
        total = inserted(graph, node, aten.sum.default, (zeroed,), wanted)
    if mean:
        count = inserted(graph, node, aten.sum.default, (mask,))
        for size in () if rows else value.shape[picked:]:
            count = inserted(graph, node, aten.mul.Tensor, (count, size))
        count = inserted(graph, node, aten.to.dtype, (count, total.meta["val"].dtype))
        total = inserted(graph, node, aten.div.Tensor, (total, count))
    node.target, node.args, node.kwargs = aten.to.dtype, (total, result), {}


def chosen(graph: Graph, before: Node, mask: Node, value: Node, other: Any) -> Node:
    """``value`` where the mask is true, else ``other``."""
    source: Any = value.args[1] if value.meta.get("picked by") is mask else None
    if source is not None and not any(map(in_place, source.users)):  # where it is read later, it is the same
        value = source
    where = aten.where.self if isinstance(other, Node) else aten.where.ScalarOther
    filling = bool(other) if value.meta["val"].dtype == torch.bool and not isinstance(other, Node) else other
    node = inserted(graph, before, where, (_expanded(graph, before, mask, value), value, filling))
    node.meta["picked by"] = mask
    return node


def _expanded(graph: Graph, before: Node, mask: Node, like: Node) -> Node:
    """``mask`` with as many axes as ``like``."""
    for _ in range(like.meta["val"].ndim - mask.meta["val"].ndim):
        mask = inserted(graph, before, aten.unsqueeze.default, (mask, -1))
    return mask


def inserted(
    graph: Graph, before: Node, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> Node:
    """A call of ``target`` in front of ``before``, as if the same line of the model had made it."""
    with graph.inserting_before(before):
        node = graph.call_function(target, args, kwargs)
    node.meta = dict(before.meta)
    node.meta.pop("traced", None)
    node.meta["val"] = _value(node)
    return node


def _value(node: Node) -> Any:
    """What stands for the result while nothing is computed."""
    given: Any = torch.fx.map_arg((node.args, node.kwargs), lambda x: x.meta["val"])
    mode = torch._guards.detect_fake_mode(torch_tree.tree_leaves(given))
    assert mode is not None
    with mode:
        return cast(Any, node.target)(*given[0], **given[1])
