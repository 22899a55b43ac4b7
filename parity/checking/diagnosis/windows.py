"""Windows that start elsewhere: inputs turned round, shifted, or cut."""

import itertools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutation
from parity.checking.diagnosis.convolution import as_tuple, flat_pads
from parity.checking.diagnosis.mutations import suspects_of

POOLS = tuple(
    f"{prefix}{kind}_pool{rank}d" for prefix in ("", "_") for kind in ("max", "avg", "lp") for rank in (1, 2, 3)
)
CONVOLUTIONS = tuple(f"conv{kind}{rank}d" for kind in ("", "_transpose") for rank in (1, 2, 3))

FAR = 4
"""Windows are moved by less than so much."""


@suspects_of(*POOLS)
def _shifted(call: Call) -> Iterator[Mutation]:
    """Windows that start a few places early or late."""
    rank = int(call.name[-2])
    kernel, padding = as_tuple(call["kernel_size"], rank), as_tuple(call["padding"] or 0, rank)
    fill = -math.inf if "max" in call.name else 0.0
    strides = as_tuple(call["stride"] or kernel, rank)
    # Turned round, windows that do not reach one end leave out the other.
    rest = [
        (n + 2 * p - k) % s for n, p, k, s in zip(call["input"].shape[-rank:], padding, kernel, strides, strict=True)
    ]

    def moved(amounts: list[tuple[int, int]]) -> Mutation:
        sides = [(p + front, p + behind) for p, (front, behind) in zip(padding, amounts, strict=True)]
        said = (
            f"its windows start elsewhere: padding in front of each axis and behind it is as if {sides} (less than 0 "
        )
        said += f"is cut off), torch's is {padding}"
        if all(-front in (0, r) for (front, _), r in zip(amounts, rest, strict=True)) and any(f for f, _ in amounts):
            said += "; so it is, too, where the input is turned round and the output turned back"
        flat = flat_pads(sides)
        return "padding", said, lambda c: c.run(input=F.pad(c["input"], flat, value=fill), padding=0)

    reach = min(max(kernel), FAR)
    amounts = itertools.product(range(1 - reach, reach), range(1 - reach, reach))
    for amount in sorted(amounts, key=lambda pair: abs(pair[0]) + abs(pair[1])):
        yield moved([amount] * rank)
        for axis in range(rank) if rank > 1 else ():
            yield moved([amount if i == axis else (0, 0) for i in range(rank)])
    for more in (1, 2) if "max" in call.name else ():
        said = f"it is padded by {more} zeros more on either side"
        flat = flat_pads([(more, more)] * rank)
        yield "padding", said, lambda c, f=flat: c.run(input=F.pad(c["input"], f))


@suspects_of(*POOLS, *CONVOLUTIONS)
def _turned(call: Call) -> Iterator[Mutation]:
    """The input turned round: another end of it is cut where the windows do not reach."""
    x, rank = call["input"], int(call.name[-2])
    spatial = tuple(range(-rank, 0))
    of_one = [(axis,) for axis in spatial] if rank > 1 else []
    for axes in (spatial, *of_one, *(pair for pair in itertools.combinations(spatial, 2) if rank > 2)):
        word = f"ax{'e' if len(axes) > 1 else 'i'}s {', '.join(str(axis % x.ndim) for axis in axes)}"
        said = f"its input is reversed along {word}, and its output turned back"
        yield "order", said, lambda c, a=axes: c.run(input=c["input"].flip(a)).flip(a)
        yield "order", f"its input is reversed along {word}", lambda c, a=axes: c.run(input=c["input"].flip(a))


@suspects_of(*(name for name in POOLS if "max" in name))
def _extremes(call: Call) -> Iterator[Mutation]:
    yield "sign", "it takes the minimum, torch the maximum", lambda c: -c.run(input=-c["input"])
    yield (
        "activation",
        "it takes the largest absolute value, torch the maximum",
        lambda c: c.run(input=c["input"].abs()),
    )


@suspects_of(*POOLS)
def _sizes(call: Call) -> Iterator[Mutation]:
    """Windows of another size, or with gaps."""
    rank = int(call.name[-2])
    kernel, now = as_tuple(call["kernel_size"], rank), call.run()
    if not isinstance(now, torch.Tensor):
        return
    for size in range(1, max(kernel) + 3):
        said = f"kernel_size is as if {size}, torch's is {kernel}"
        yield "kernel size", said, lambda c, k=size: _cut(c.run(kernel_size=k, stride=c["stride"] or kernel), now.shape)
    for gap in (1, 2, 3) if call["dilation"] is not None else ():
        said = f"dilation is as if {gap}, torch's is {call['dilation']}"
        yield "dilation", said, lambda c, d=gap: _cut(c.run(dilation=d), now.shape)


def _cut(x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """As much of it, from the front of each axis, as ``shape`` has."""
    return x[tuple(slice(n) for n in shape)]
