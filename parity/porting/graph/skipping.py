"""What a model passes over where nothing is picked, as in ``if mask.any():`` and ``if len(places) == 0: continue``.

The port does it all the same, with nothing picked. It has to be shown to give what the model gives where that passes.
"""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils import _pytree as torch_tree

from parity.porting.graph.nodes import packet

SAME = {"alias", "clone", "detach", "reshape", "view", "flatten", "to", "_to_copy", "unsqueeze", "transpose"}
NOT = {"logical_not", "bitwise_not"}

_PICKS = {getattr(of, name) for name in ("nonzero", "argwhere", "masked_select") for of in (torch, torch.Tensor)}
_SOME = range(1, 9)


def picked(func: Any, args: Any, kwargs: Any, result: Any) -> torch.Tensor | None:
    """What a call picked by a mask, as many as that has; None where it is no such call."""
    masked = func is torch.Tensor.__getitem__ and any(map(_is_mask, torch_tree.tree_leaves(args[1])))
    if func in _PICKS or masked or (func is torch.where and len(args) == 1 and not kwargs):
        return next((x for x in torch_tree.tree_leaves(result) if isinstance(x, torch.Tensor)), None)
    return None


def _is_mask(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype == torch.bool and x.ndim > 0


def rows_of(found: torch.Tensor) -> set[sympy.Symbol]:
    """The symbols for how many were picked."""
    return {symbol for size in found.shape for symbol in free_unbacked_symbols(size)}


def where_some(holds: Callable[[int], Any]) -> bool | None:
    """What holds of every number but of none at all; None where it is not that which is asked."""
    some = {bool(holds(n)) for n in _SOME}
    return some.pop() if len(some) == 1 and bool(holds(0)) not in some else None


def asked_mask(node: Node) -> tuple[Node, bool] | None:
    """The mask, and the answer where it picks some, if ``node`` is whether any, or every, entry of one is set."""
    negated = False
    while packet(node) in SAME | NOT:
        negated ^= packet(node) in NOT
        node = node.all_input_nodes[0]
    kind = packet(node)
    answer: bool | None = kind == "any" if kind in ("any", "all") and len(node.args) == 1 else None
    if kind in ("gt", "ge", "lt", "le", "eq", "ne") and isinstance(node.args[1], int | float):
        compares, number = getattr(operator, kind), node.args[1]
        answer, node = where_some(lambda n: compares(n, number)), node.all_input_nodes[0]
        while packet(node) in SAME:
            node = node.all_input_nodes[0]
        if packet(node) not in ("sum", "count_nonzero") or len(node.args) != 1:
            return None
    if answer is None:
        return None
    mask = node.all_input_nodes[0]
    while packet(mask) in SAME and mask.meta["val"].dtype != torch.bool:
        mask = mask.all_input_nodes[0]
    return (mask, answer ^ negated) if mask.meta["val"].dtype == torch.bool else None


@contextmanager
def sizes_asked(answer: Callable[[sympy.Basic], bool | None]) -> Iterator[None]:
    """Lets ``answer`` say what holds of sizes, where it knows."""
    original = torch.SymBool.__bool__

    def asked(self: torch.SymBool) -> bool:
        known = answer(self.node.expr)
        return original(self) if known is None else known

    torch.SymBool.__bool__ = asked  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.SymBool.__bool__ = original  # type: ignore[method-assign]
