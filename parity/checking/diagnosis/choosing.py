"""What people get wrong where the largest few are chosen, as experts by a router."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from parity.checking.diagnosis.calls import Call, Mutated
from parity.checking.diagnosis.mutations import equal, input_of, operands_of

WEIGHED = ("mul", "div", "softmax", "sigmoid", "to")
"""Functions that make weights of what was chosen."""

MOST = 16
"""Other numbers that may have been chosen, the nearest ones."""

SPREAD = ("scatter", "scatter_", "scatter_add", "scatter_add_", "masked_fill", "mul", "sum")
"""Functions that put those weights back in the places of all."""


def chosen(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """A choice made otherwise, or something else done with what was chosen."""
    for call in calls:
        x = input_of(call) if call.name == "topk" else None
        if not isinstance(x, torch.Tensor) or call["dim"] not in (None, -1, x.ndim - 1):
            continue
        values, _ = call.run()
        behind = [c for c in calls if c.index > call.index]
        count, size = values.shape[-1], x.shape[-1]
        others = sorted({*range(1, size)} - {count}, key=lambda k: abs(k - count))
        for other in others[:MOST]:
            yield (
                "top k",
                f"the largest {other} are chosen, torch's {count}",
                {call.index: lambda c, k=other: c.run(k=k)},
            )
        yield from _softmax(call, calls)
        for here in [call, *(c for c in behind if c.name in WEIGHED)]:
            if count > 1 and _shape(here, values) == values.shape:
                yield "top k", f"only the first of the {count} that are chosen counts", {here.index: _first_alone}
        yield from _all(call, calls, behind)


def _softmax(call: Call, calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """The softmax on the other side of the choice, or a sigmoid for it."""
    x, (values, indices) = input_of(call), call.run()
    for other in calls:
        if other.name != "softmax":
            continue
        if other.index < call.index and equal(other.run(), x):
            said = "the softmax is taken behind the choice, over the chosen alone; torch's before it, over all"
            said += "; or, which is the same, the weights of the chosen are divided by their sum"
            yield "softmax", said, {call.index: lambda c: _chosen(c, lambda v: v / v.sum(-1, keepdim=True))}
            gates = torch.sigmoid(input_of(other)).gather(-1, indices)
            said = "the weights of the chosen are a sigmoid of their scores, torch's a softmax of all"
            yield "softmax", said, {call.index: lambda c, g=gates: _chosen(c, lambda _: g)}
        if other.index > call.index and equal(input_of(other), values):
            gates = x.softmax(-1).gather(-1, indices)
            said = "the softmax is taken before the choice, over all; torch's behind it, over the chosen alone"
            yield "softmax", said, {other.index: lambda _, g=gates: g}


def _all(call: Call, calls: list[Call], behind: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """None is left out: each has its weight, as if there were no choice."""
    x, (values, indices) = input_of(call), call.run()
    made = any(c.name in ("softmax", "sigmoid") and c.index < call.index and equal(c.run(), x) for c in calls)
    shares = x if made else x.softmax(-1)
    said = f"all {x.shape[-1]} count with their weights, torch's are the largest {values.shape[-1]} alone"
    for end in behind:
        if end.name in SPREAD and _shape(end, x) == x.shape:
            yield "top k", said, {end.index: lambda _: shares}
    # Where each is asked whether it was chosen, its weight goes to the first place.
    asked = [c for c in behind if c.name in ("eq", "__eq__") and equal(c.positional[0], indices)]
    mutated: Mutated = {}
    for end in (c for c in behind if c.name == "mul"):
        mask = next((x for x in operands_of(end) if isinstance(x, torch.Tensor) and x.dtype == torch.bool), None)
        which = next((c for c in reversed(asked) if c.index < end.index and equal(c.run(), mask)), None)
        number = None if which is None else which.positional[1]
        if isinstance(number, int) and number < x.shape[-1]:
            weight = torch.zeros_like(values)
            weight[..., 0] = shares[..., number]
            mutated[end.index] = lambda _, w=weight: w
    if mutated:
        yield "top k", said, mutated


def _first_alone(call: Call) -> Any:
    def kept(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[..., :1], 0 * x[..., 1:]], -1)

    return _chosen(call, kept) if call.name == "topk" else kept(call.run())


def _chosen(call: Call, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """What was chosen, its values changed."""
    values, indices = call.run()
    return torch.return_types.topk((change(values), indices))


def _shape(call: Call, like: torch.Tensor) -> Any:
    """Of what a call gives, if that is of the dtype of ``like``; one that writes gives what it writes into."""
    found = input_of(call) if call.name.endswith("_") else call.run()
    if call.name == "topk":
        found = found[0]
    return found.shape if isinstance(found, torch.Tensor) and found.dtype == like.dtype else None
