"""Batches by which a model decides otherwise than by its example."""

from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
from torch.utils import _pytree as torch_tree

from parity.porting.graph.deciding import Answers, decisions, is_of_integers
from parity.porting.graph.free_sizes import Arguments

_TRIES = 40  # of each kind


def witnesses(module: torch.nn.Module, arguments: Arguments, places: Answers) -> list[Arguments] | None:
    """Batches by which each of ``places`` is decided either way, the example being one; None if there are none."""
    missing = {(place, answer) for place in places for answer in (True, False)}
    found: list[Arguments] = []
    tries = islice(_changed(arguments), _TRIES), islice(_moved(arguments), _TRIES)
    for batch in chain([arguments], *tries):
        if not missing:
            break
        try:
            answers = decisions(module, batch)
        except Exception:  # whatever the model says of it
            continue
        if not missing.isdisjoint(answers.items()):
            missing -= set(answers.items())
            found.append(batch)
    return None if missing else [batch for batch in found if batch is not arguments]


def _changed(arguments: Arguments) -> Iterator[Arguments]:
    """``arguments`` with all masks and ids drawn but one, and with one number throughout one, or at its end."""
    leaves, spec = torch_tree.tree_flatten(arguments)
    generator = torch.Generator().manual_seed(0)

    def drawn(x: Any) -> Any:
        if not is_of_integers(x):
            return x
        values = torch.cat([x.reshape(-1), torch.tensor([0, 1]).to(x.dtype)])
        return values[torch.randint(0, len(values), x.shape, generator=generator)]

    numbers = [i for i, x in enumerate(leaves) if is_of_integers(x)]
    for i in numbers:
        others = [x if i == j else drawn(x) for j, x in enumerate(leaves)]
        yield torch_tree.tree_unflatten(others, spec)
        own = leaves[i].unique().tolist()
        wholes = [torch.full_like(leaves[i], value) for value in dict.fromkeys([*own[:3], own[-1], 1])]
        for new in wholes + [_ending(leaves[i], value) for value in range(4)]:
            yield torch_tree.tree_unflatten([*others[:i], new, *others[i + 1 :]], spec)
            yield torch_tree.tree_unflatten([*leaves[:i], new, *leaves[i + 1 :]], spec)


def _moved(arguments: Arguments) -> Iterator[Arguments]:
    """``arguments`` with all rows of the arrays with fractions alike, and with others drawn of their numbers."""
    leaves, spec = torch_tree.tree_flatten(arguments)
    generator = torch.Generator().manual_seed(0)

    def alike(x: torch.Tensor, row: int) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        return rows[row % len(rows)].expand(x.shape).clone()

    def drawn(x: torch.Tensor, scale: float) -> torch.Tensor:
        return scale * x.reshape(-1)[torch.randint(0, x.numel(), x.shape, generator=generator)]

    for i in range(_TRIES // 2):
        for change in (partial(alike, row=i), partial(drawn, scale=(1, -1, 3, 0)[i % 4])):
            yield torch_tree.tree_unflatten([change(x) if _is_of_fractions(x) else x for x in leaves], spec)


def _is_of_fractions(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim > 0 and x.numel() > 0


def _ending(x: torch.Tensor, value: int) -> torch.Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    x.view(-1)[-1] = value
    return x
