"""A mistake made wherever a layer does the same."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as torch_tree

from parity.checking.diagnosis.calls import Call, Mutated
from parity.checking.diagnosis.elementwise import PLAIN
from parity.checking.diagnosis.mutations import mutations
from parity.replay import memory

ANYWHERE = {*PLAIN, "roll", "flip", "pad"}
"""Functions that are written otherwise throughout a layer, whatever they work on."""

PICKING = {"__getitem__", "select", "narrow"}
"""Functions of which a family works on one tensor, such as the weights of experts."""


def alike(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """One mistake made in all calls that are alike, such as the split of queries, keys and values into heads."""
    families: dict[Any, list[Call]] = {}
    for call in calls:
        shapes = _described(call.positional, lambda x: tuple(x.shape))
        ranks = _described(call.positional, lambda x: x.ndim)
        whose = [memory(x) for x in call.positional[:1]] if call.name in PICKING else []
        keys = [(call.name, *shapes), (call.name, *ranks), *[(call.name, at) for at in whose if at]]
        for key in (*keys, *([call.name] if call.name in ANYWHERE else ())):
            families.setdefault(key, []).append(call)
    distinct = {tuple(call.index for call in family): family for family in families.values()}
    for family in distinct.values():
        if 1 < len(family) <= 16:
            for made in zip(*map(mutations, family), strict=False):
                if len({sentence for _, sentence, _ in made}) == 1:
                    suspect, sentence, _ = made[0]
                    how = {call.index: mutate for call, (_, _, mutate) in zip(family, made, strict=True)}
                    yield suspect, f"in {len(family)} calls of {family[0].name}: {sentence}", how


def _described(arguments: Any, of: Callable[[torch.Tensor], Any]) -> list[Any]:
    """Arguments by what they say and not by their numbers."""
    return [of(x) if isinstance(x, torch.Tensor) else repr(x) for x in torch_tree.tree_leaves(arguments)]
