"""What people get wrong in linear layers, convolutions and padding."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutation
from parity.checking.diagnosis.mutations import other, suspects_of


@suspects_of("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _weights(call: Call) -> Iterator[Mutation]:
    weight, bias = call["weight"], call["bias"]
    if bias is not None:
        yield "missing bias", "bias is not added", lambda c: c.run(bias=None)
        yield "scaled bias", "bias is added twice", lambda c: c.run(bias=2 * bias)
        yield "scaled bias", "bias is subtracted", lambda c: c.run(bias=-bias)
    if weight.shape[0] == weight.shape[1]:
        said = "weight is transposed (its first two axes are swapped)"
        yield "transposed weight", said, lambda c: c.run(weight=weight.transpose(0, 1))
    else:
        turned = weight.transpose(0, 1).reshape(weight.shape)
        said = "weight is reshaped where it should be transposed"
        yield "transposed weight", said, lambda c: c.run(weight=turned)
    spatial = tuple(range(2, weight.ndim))
    if spatial:
        said = "weight is flipped in its spatial axes (convolution for correlation)"
        yield "flipped weight", said, lambda c: c.run(weight=weight.flip(spatial))
        for axis in spatial if len(spatial) > 1 else ():
            said = f"weight is flipped along axis {axis}"
            yield "flipped weight", said, lambda c, a=axis: c.run(weight=weight.flip((a,)))
    if len(spatial) > 1 and weight.shape[-1] == weight.shape[-2]:
        said = "weight is transposed in its last two axes (height and width)"
        yield "transposed weight", said, lambda c: c.run(weight=weight.transpose(-1, -2))
        both = weight.transpose(0, 1) if weight.shape[0] == weight.shape[1] else None
        if both is not None:
            said = "weight is transposed and flipped"
            yield "transposed weight", said, lambda c: c.run(weight=both.flip(spatial))


@suspects_of("conv1d", "conv2d", "conv3d")
def _convolution(call: Call) -> Iterator[Mutation]:
    x, weight = call["input"], call["weight"]
    rank = weight.ndim - 2
    padding = as_tuple(call["padding"], rank) if not isinstance(call["padding"], str) else None
    if padding is None:
        yield "padding", "padding is missing", lambda c: c.run(padding=0)
        return
    strides, dilation = as_tuple(call["stride"] or 1, rank), as_tuple(call["dilation"] or 1, rank)
    if any(padding):
        yield "padding", "padding is missing", lambda c: c.run(padding=0)
    total = [2 * p for p in padding]
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    size = x.shape[-rank:]
    same = [max(0, (math.ceil(n / s) - 1) * s + r + 1 - n) for n, s, r in zip(size, strides, reach, strict=True)]
    amounts: list[tuple[str, list[tuple[int, int]]]] = [
        ("padding is one-sided: all of it behind", [(0, t) for t in total]),
        ("padding is one-sided: all of it in front", [(t, 0) for t in total]),
        ("padding is one-sided: only behind", [(0, p) for p in padding]),
        ("padding is one-sided: only in front", [(p, 0) for p in padding]),
        ("padding is as in SAME: the odd element behind", [(s // 2, s - s // 2) for s in same]),
        ("padding is as in SAME: the odd element in front", [(s - s // 2, s // 2) for s in same]),
        ("padding is causal: all in front", [(r, 0) for r in reach]),
        ("padding is the kernel's whole reach", [(r, r) for r in reach]),
    ]
    for shift in range(1 - max(padding), max(padding)):
        sides_of = [(max(p - shift, 0), max(p + shift, 0)) for p in padding]
        amounts.append((f"padding is as if {sides_of}, in front of each axis and behind it", sides_of))
    amounts += [(f"padding is as if {p}, torch's is {padding}", [(p, p)] * rank) for p in range(1, 5)]
    for said, pads in amounts:
        if pads != [(p, p) for p in padding]:
            yield "padding", said, lambda c, pads=pads: c.run(input=F.pad(c["input"], flat_pads(pads)), padding=0)
    if any(padding):
        for mode in ("reflect", "replicate", "circular"):
            flat = flat_pads([(p, p) for p in padding])
            said = f"padding is of mode {mode}, torch's of zeros"
            yield "padding mode", said, lambda c, m=mode, p=flat: c.run(input=F.pad(c["input"], p, mode=m), padding=0)
    yield from other(call, "stride", "stride", *(n for n in (1, 2, 3, 4) if (n,) * rank != strides))
    for n in range(1, 9):
        if (n,) * rank == dilation:
            continue
        yield from other(call, "dilation", "dilation", n)
        # With it, the padding that keeps the size: as torch's is split, or all in front where torch pads outside.
        total_now = [2 * p + n * (k - 1) - r for p, k, r in zip(padding, weight.shape[2:], reach, strict=True)]
        if all(t >= 0 for t in total_now):
            flat = flat_pads([(t // 2, t - t // 2) for t in total_now])
            said = f"dilation is as if {n} (with padding to match), torch's is {dilation}"
            yield "dilation", said, lambda c, n=n, p=flat: c.run(input=F.pad(c["input"], p), padding=0, dilation=n)
        if not any(padding):
            front = flat_pads([(t, 0) for t in total_now])
            said = f"dilation is as if {n} (with padding to match), torch's is {dilation}"
            yield "dilation", said, lambda c, n=n, p=front: c.run(input=F.pad(c["input"], p), dilation=n)
    groups = call["groups"] or 1
    if groups > 1:
        said = "the groups' channels are dealt in turn, not in blocks"
        order = torch.arange(x.shape[1]).reshape(groups, -1).T.reshape(-1)
        yield "groups", said, lambda c: c.run(input=c["input"][:, order])
        out = torch.arange(weight.shape[0]).reshape(groups, -1).T.reshape(-1)
        yield "groups", "the groups' output channels are dealt in turn", lambda c: c.run()[:, out]


@suspects_of("pad")
def _pad(call: Call) -> Iterator[Mutation]:
    yield "padding", "padding is missing", lambda c: c["input"]
    pairs = _by_axis(call)
    for said, sides_of in (
        ("all of the padding is in front", lambda a, b: (a + b, 0)),
        ("all of the padding is behind", lambda a, b: (0, a + b)),
        ("the sides of the padding are exchanged", lambda a, b: (b, a)),
        (
            "half of the padding is on either side, the odd element behind",
            lambda a, b: ((a + b) // 2, -(-(a + b) // 2)),
        ),
        (
            "half of the padding is on either side, the odd element in front",
            lambda a, b: (-(-(a + b) // 2), (a + b) // 2),
        ),
    ):
        if any(sides_of(*pair) != pair for pair in pairs):
            yield "padding", said, lambda c, f=sides_of: c.run(pad=[x for pair in _by_axis(c) for x in f(*pair)])
    yield from other(call, "mode", "padding mode", "constant", "reflect", "replicate", "circular")
    if call["mode"] == "constant":
        yield from other(call, "value", "padding", 0.0, -math.inf, 1.0)


def _by_axis(call: Call) -> list[tuple[int, int]]:
    """What ``pad`` adds in front of each axis and behind it, the last axis first."""
    return list(zip(call["pad"][::2], call["pad"][1::2], strict=True))


@suspects_of("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed(call: Call) -> Iterator[Mutation]:
    rank = call["weight"].ndim - 2
    yield from other(
        call, "padding", "padding", *(p for p in range(4) if as_tuple(call["padding"] or 0, rank) != (p,) * rank)
    )
    yield from other(call, "stride", "stride", 1, 2, 3)
    yield from other(call, "output_padding", "padding", *((n,) * rank for n in range(3)))
    for padding, more in itertools.product(range(4), range(3)):
        said = f"padding and output_padding are as if {padding} and {more}, torch's are {call['padding']} and "
        said += f"{call['output_padding']}"
        yield "padding", said, lambda c, p=padding, m=more: c.run(padding=p, output_padding=m)
    for shift in (1, -1):
        said = f"the output is shifted by {shift}: padding is one-sided"
        yield "padding", said, lambda c, s=shift: _shifted(c, rank, s)


def _shifted(call: Call, rank: int, by: int) -> torch.Tensor:
    """A transposed convolution cut out of the whole of it elsewhere; zeros are beyond that."""
    size = call.run().shape[-rank:]
    starts = as_tuple(call["padding"] or 0, rank)
    found = F.pad(call.run(padding=0, output_padding=0, bias=None), (8,) * (2 * rank))
    for axis, (start, length) in enumerate(zip(starts, size, strict=True), 2 if found.ndim > rank + 1 else 1):
        found = found.narrow(axis, 8 + start - by, length)
    return found if call["bias"] is None else found + call["bias"].reshape(-1, *[1] * rank)


def as_tuple(value: Any, rank: int) -> tuple[int, ...]:
    """``value`` for each of ``rank`` axes."""
    return tuple(value) * (rank if len(value) == 1 else 1) if isinstance(value, tuple | list) else (value,) * rank


def flat_pads(pads: list[tuple[int, int]]) -> list[int]:
    """Padding by axis as ``pad`` takes it: the last axis first."""
    return [x for pair in reversed(pads) for x in pair]
