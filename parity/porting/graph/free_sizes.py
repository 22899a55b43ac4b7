"""Which sizes of a model's inputs are free while it is exported, and what it asks of them."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import sympy
import torch
from torch.utils import _pytree as torch_tree

from parity.porting.lines import TORCH

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def batch_axes(arguments: Arguments, signature: inspect.Signature) -> dict[str, Any]:
    """Every tensor's first axis that is as long as the first tensor's, marked as free."""
    args, kwargs = arguments
    size = first_size(arguments)

    def free(x: Any) -> Any:
        automatic = isinstance(x, torch.Tensor) and x.ndim and x.shape[0] == size and size > 1
        return {0: torch.export.Dim.AUTO} if automatic else None

    marked_args, marked_kwargs = torch_tree.tree_map(free, (args, kwargs))
    bound = signature.bind(*marked_args, **marked_kwargs).arguments
    flat: dict[str, Any] = {}
    for name, value in bound.items():
        kind = signature.parameters[name].kind
        flat |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return flat


def more_than_one(arguments: Arguments) -> list[Arguments]:
    """Arguments whose first axes have a size that export can leave free: it takes one for a constant.

    Args:
        arguments: of the example.

    Returns:
        The example's own where it has more than one; else every first axis of one repeated, or the first tensor's
        alone, as others may be of something else.
    """
    if first_size(arguments) != 1:
        return [arguments]
    tensors = [x for x in torch_tree.tree_leaves(arguments) if isinstance(x, torch.Tensor) and x.ndim]

    def repeated(x: Any, chosen: list[torch.Tensor]) -> Any:
        if not any(x is each for each in chosen) or x.shape[0] != 1:
            return x
        return torch.cat([x.detach()] * 2).requires_grad_(x.requires_grad)

    several = [tensors] if len(tensors) == 1 else [tensors, tensors[:1]]
    return [torch_tree.tree_map(partial(repeated, chosen=chosen), arguments) for chosen in several]


def first_size(arguments: Arguments) -> int:
    """How long the first axis of the first tensor is that has any; 0 if there is none."""
    return next((x.shape[0] for x in torch_tree.tree_leaves(arguments) if isinstance(x, torch.Tensor) and x.ndim), 0)


def has_free_sizes(graph: torch.fx.Graph) -> bool:
    """Whether an input has an axis of any size."""
    values = [node.meta.get("val") for node in graph.nodes if node.op == "placeholder"]
    return any(is_free(size) for x in values if isinstance(x, torch.Tensor) for size in x.shape)


def fixed_inputs(program: torch.export.ExportedProgram, size: int) -> list[str]:
    """The inputs whose first axis, ``size`` long as the first one's, export has not left free."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    given = {name: values.get(name) for name in program.graph_signature.user_inputs if isinstance(name, str)}
    arrays = {name: x for name, x in given.items() if isinstance(x, torch.Tensor) and x.ndim}
    return [name for name, x in arrays.items() if not is_free(x.shape[0]) and x.shape[0] == size]


@contextmanager
def looked_at(found: set[sympy.Basic]) -> Iterator[None]:
    """Adds to ``found`` what held of free sizes where the model asked.

    Export takes it that no free size is one, and says nothing of who asks for that.
    """
    original = torch.SymBool.__bool__

    def asked(self: torch.SymBool) -> bool:
        answer = original(self)
        if not sys._getframe(1).f_code.co_filename.startswith(TORCH):
            found.add(self.node.expr if answer else sympy.Not(self.node.expr))
        return answer

    torch.SymBool.__bool__ = asked  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.SymBool.__bool__ = original  # type: ignore[method-assign]


def limits_of(graph: torch.fx.Graph, asked: set[sympy.Basic]) -> list[sympy.Basic]:
    """What held of free sizes where the model looked at them, and does not of every one.

    Args:
        graph: that was exported.
        asked: what held where the model itself asked, of one too.
    """
    mode = torch._guards.detect_fake_mode([node.meta.get("val") for node in graph.nodes])
    free = {
        symbol
        for node in graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)
        for size in node.meta["val"].shape
        if is_free(size)
        for symbol in size.node.expr.free_symbols
    }
    guards = mode.shape_env.guards if mode is not None and mode.shape_env is not None else []
    found = dict.fromkeys(guard.expr for guard in guards if guard.expr.free_symbols and guard.expr.free_symbols <= free)
    looked = [limit for limit in found if not _is_of_one(limit) and not all(holds(limit, n) for n in range(2, 34))]
    of_one = [limit for limit in sorted(asked, key=str) if not holds(limit, 1) and limit not in looked]
    of_one += [sympy.Ne(size, 1) for size in squeezed(graph)]
    return looked + [limit for limit in dict.fromkeys(of_one) if limit.free_symbols and limit.free_symbols <= free]


def squeezed(graph: torch.fx.Graph) -> Iterator[sympy.Expr]:
    """The free sizes whose axes the model drops if they are one."""
    for node in graph.nodes:
        if str(node.target).startswith("aten.squeeze"):
            shape = node.args[0].meta["val"].shape
            dims = node.args[1] if len(node.args) > 1 else range(len(shape))
            sizes = [shape[dim] for dim in ([dims] if isinstance(dims, int) else dims)] if shape else []
            yield from (size.node.expr for size in sizes if is_free(size))


def _is_of_one(limit: sympy.Basic) -> bool:
    """Whether export only notes that something is not one or none, as it takes of every size that is free."""
    return isinstance(limit, sympy.Ne) and limit.args[1] in (0, 1)


def holds(limit: sympy.Basic, size: int) -> bool:
    """Whether what is asked of the free sizes may be true where all of them are ``size``."""
    return limit.subs(dict.fromkeys(limit.free_symbols, size)) != sympy.false


def is_of_one_only(limit: sympy.Basic) -> bool:
    """Whether what is asked of the free sizes excludes nothing but one."""
    return not holds(limit, 1) and all(holds(limit, n) for n in range(2, 34))


def at_one(size: torch.SymInt) -> int:
    """A free size where every symbol is one."""
    return int(size.node.expr.subs(dict.fromkeys(size.node.expr.free_symbols, 1)))


def is_free(size: Any) -> bool:
    """Whether a size is a symbol, and export found no number that it must be."""
    return isinstance(size, torch.SymInt) and bool(size.node.expr.free_symbols)
