"""Other batches than the example, on which a port is held against its original, too."""

from collections.abc import Iterator
from typing import Any

import sympy
import torch
from torch.utils import _pytree as torch_tree

from parity.porting.errors import DECIDES, PortError
from parity.porting.graph.capture import Capture
from parity.porting.graph.deciding import decisions, place_text
from parity.porting.graph.free_sizes import Arguments, is_free
from parity.porting.graph.packing import length_sources
from parity.porting.proof.verification import Trial, awake_trial


def other_trials(
    capture: Capture, module: torch.nn.Module, arguments: Arguments, given: Any, differentiates: bool
) -> Iterator[Trial]:
    """The model on batches of other values, if it takes them.

    Args:
        capture: of the model; where it takes no other batch, that is noted.
        module: the model.
        arguments: of the example.
        given: the same, as export sees them: with symbols for the sizes that are free.
        differentiates: whether the model needs gradients to run.

    Raises:
        PortError: the model takes no other batch that decides as the example does, and it matters.
    """
    kinds: list[list[Arguments]] = [[], [alike(arguments)] if capture.skips else []]
    if any(isinstance(x, torch.Tensor) and x.ndim for x in torch_tree.tree_leaves(arguments)):
        kinds[0] = [another(arguments, given, capture, in_rows=rows) for rows in (False, True)]
    for candidates in filter(None, kinds):
        refusals: list[PortError] = []
        for other in candidates:
            try:
                _decides_alike(capture, module, other)
                yield awake_trial(module, other, differentiates) or Trial(module, other, differentiates)
                break
            except PortError as error:  # as where offsets have to rise
                refusals.append(error)
        else:
            if capture.decided and not capture.told and candidates is kinds[0]:
                raise refusals[-1]
            capture.notes.append(f"not compared on another batch: {refusals[0]}")


def _decides_alike(capture: Capture, module: torch.nn.Module, other: Arguments) -> None:
    """Refuse a batch for which the model takes another branch than the port has."""
    if capture.told or not capture.decided:
        return
    try:
        answers = decisions(module, other)
    except Exception as error:
        raise PortError(f"port: the model cannot be compared with: {type(error).__name__}: {error}") from error
    for place, answer in capture.decided.items():
        if answers.get(place, answer) != answer:
            raise PortError(f"port: another batch decides otherwise than the example: {place_text(place)}; {DECIDES}")


def another(arguments: Any, given: Any, capture: Capture, *, in_rows: bool) -> Any:
    """Arguments of other values, drawn from the example's own, the sizes that are free larger, by one if that may be.

    Lengths of sequences fall from the longest; what lengths are computed of keeps its rows.

    Args:
        arguments: of the example.
        given: the same, as export sees them: with symbols for the sizes that are free.
        capture: of the model, with what must hold of the sizes.
        in_rows: whether what has no fractions keeps its rows, as a model may ask it of ids and masks.
    """
    generator = torch.Generator().manual_seed(0)

    free = {
        free.node.expr: size
        for x, seen in zip(torch_tree.tree_leaves(arguments), torch_tree.tree_leaves(given), strict=True)
        if isinstance(seen, torch.Tensor)
        for size, free in zip(x.shape, list[Any](seen.shape), strict=True)
        if is_free(free)
    }
    # Where none larger may be, a smaller one; the example's own where that is the only one.
    changes = ({symbol: size + more for symbol, size in free.items()} for more in (*range(1, 9), *range(-1, -9, -1), 0))
    allowed = (sizes for sizes in changes if min(sizes.values(), default=2) > 1)
    sizes = next(sizes for sizes in allowed if all(limit.subs(sizes) != sympy.false for limit in capture.limits))

    def grown(size: Any) -> int:
        return int(size.node.expr.subs(sizes)) if is_free(size) else int(size)

    lengths_given, behind = length_sources(capture.graph)
    steps_of = {id(node.meta["val"]): steps for node, steps in lengths_given}
    rows = {id(node.meta["val"]) for node in behind}

    def drawn(x: Any, seen: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not x.ndim or not x.numel():
            return x
        shape = [grown(size) for size in seen.shape] if isinstance(seen, torch.Tensor) else x.shape
        if id(seen) in steps_of:
            longest = grown(steps_of[id(seen)])
            lengths = torch.randint(1, longest + 1, shape, generator=generator, dtype=x.dtype)
            lengths[0] = longest
            return lengths.sort(descending=True).values
        if id(seen) in rows or (in_rows and not x.is_floating_point()):
            for axis, size in enumerate(shape):
                x = x.index_select(axis, (torch.arange(size) - (size - x.shape[axis])).clamp(0))
            return x
        picked = torch.randint(0, x.numel(), shape, generator=generator)
        values = x.detach().reshape(-1)[picked]
        if x.is_floating_point() and x.unique().numel() == x.numel():
            # No two were equal: equal ones would leave the order of topk and sort to chance.
            values = values * (1 - torch.rand(values.shape, generator=generator) / 100).to(x.dtype)
        return values

    return torch_tree.tree_map(drawn, arguments, given)


def alike(arguments: Any) -> Any:
    """Arguments whose rows are all the first one, so that of the experts of a mixture few are chosen."""

    def repeated(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not x.numel():
            return x
        first = x
        for axis in range(x.ndim - x.is_floating_point()):  # a row of floats is a vector, one of indices has them
            first = first.narrow(axis, 0, 1)
        return first.expand(x.shape).clone()

    return torch_tree.tree_map(repeated, arguments)
