"""A mistake made wherever a layer does the same."""

from collections.abc import Iterator
from typing import Any

import torch

from parity.checking.diagnosis.calls import Call, Mutated
from parity.checking.diagnosis.elementwise import PLAIN
from parity.checking.diagnosis.mutations import mutations

ANYWHERE = {*PLAIN, "roll", "flip"}
"""Functions that are written otherwise throughout a layer, whatever they work on."""


def alike(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """One mistake made in all calls that are alike, such as the split of queries, keys and values into heads."""
    families: dict[Any, list[Call]] = {}
    for call in calls:
        shapes = [tuple(x.shape) if isinstance(x, torch.Tensor) else repr(x) for x in call.positional]
        ranks = [x.ndim if isinstance(x, torch.Tensor) else repr(x) for x in call.positional]
        for key in ((call.name, *shapes), (call.name, *ranks), *([call.name] if call.name in ANYWHERE else ())):
            families.setdefault(key, []).append(call)
    distinct = {tuple(call.index for call in family): family for family in families.values()}
    for family in distinct.values():
        if 1 < len(family) <= 16:
            for made in zip(*map(mutations, family), strict=False):
                if len({sentence for _, sentence, _ in made}) == 1:
                    suspect, sentence, _ = made[0]
                    how = {call.index: mutate for call, (_, _, mutate) in zip(family, made, strict=True)}
                    yield suspect, f"in {len(family)} calls of {family[0].name}: {sentence}", how
