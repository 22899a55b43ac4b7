"""What people get wrong in how arrays are taken apart, turned and joined."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from parity.checking.diagnosis.calls import Call, Mutated, Mutation
from parity.checking.diagnosis.mutations import input_of, other, suspects_of


@suspects_of("cat", "stack")
def _joined(call: Call) -> Iterator[Mutation]:
    tensors = list(call["tensors"])
    said = "the parts are joined in the other order"
    yield "order", said, lambda c: c.run(tensors=list(c["tensors"])[::-1])
    orders = itertools.permutations(range(len(tensors))) if 2 < len(tensors) <= 4 else ()
    for order in orders:
        said = f"the parts are joined in the order {order}"
        yield "order", said, lambda c, o=order: c.run(tensors=[c["tensors"][i] for i in o])
    for dim in range(tensors[0].ndim):
        if all(t.shape == tensors[0].shape for t in tensors):
            yield from other(call, "dim", "axis", dim)
    if len(tensors) == 2 and tensors[0].shape == tensors[1].shape:
        yield "combination", "the parts are added, not joined", lambda c: sum(c["tensors"])
        yield "order", "the first part is joined to itself", lambda c: c.run(tensors=[c["tensors"][0]] * 2)
        yield "order", "the second part is joined to itself", lambda c: c.run(tensors=[c["tensors"][1]] * 2)


@suspects_of("flatten", "reshape", "unflatten")
def _flattened(call: Call) -> Iterator[Mutation]:
    x = input_of(call)
    if not isinstance(x, torch.Tensor):
        return
    shape = call.run().shape
    count = len(shape) - x.ndim + 1
    for axis in range(x.ndim if count in (2, 3) else 0):
        before, parts, behind = shape[:axis], tuple(shape[axis : axis + count]), shape[axis + count :]
        if before != x.shape[:axis] or behind != x.shape[axis + 1 :] or min(parts) == 1:
            continue
        for order in list(itertools.permutations(range(count)))[1:]:
            split = tuple(parts[i] for i in order)
            back = (*range(axis), *(axis + order.index(i) for i in range(count)), *range(axis + count, len(shape)))
            said = f"axis {axis} is split in another order: torch's parts {parts} stand as {order}"
            new = (*before, *split, *behind)
            yield "order", said, lambda c, s=new, b=back: input_of(c).reshape(s).permute(b)
    yield from _heads(call, x.shape, tuple(shape))
    if len(shape) > x.ndim and len(shape) > 2 and shape[0] == x.shape[0]:
        behind = (shape[0], *shape[2:], shape[1])
        said = "it is unflattened channels last (NHWC), torch's channels first (NCHW)"
        yield "NCHW/NHWC", said, lambda c: input_of(c).reshape(behind).movedim(-1, 1)
    if x.ndim < 3:
        return
    last = (0, *range(2, x.ndim), 1)
    said = "it is flattened channels last (NHWC), torch's channels first (NCHW)"
    yield "NCHW/NHWC", said, lambda c: input_of(c).permute(last).reshape(c.run().shape)
    for i in range(x.ndim):
        for j in range(i + 1, x.ndim):
            said = f"axes {i} and {j} are swapped before the reshape"
            yield "swapped axes", said, lambda c, i=i, j=j: input_of(c).transpose(i, j).reshape(c.run().shape)


def _heads(call: Call, before: tuple[int, ...], behind: tuple[int, ...]) -> Iterator[Mutation]:
    """The entries of an axis that is split off or merged, dealt in turn: grouped heads, counted the other way."""
    if len(before) == len(behind):
        return
    for axis, size in enumerate(before if len(before) > len(behind) else behind):
        for count in range(2, min(size // 2, 8) + 1) if size <= 64 else ():
            if size % count:
                continue
            order = torch.arange(size).reshape(count, -1).T.reshape(-1)
            said = f"of the {size} entries of axis {axis} each {size // count}th follows the last, as heads in "
            said += f"{count} groups that are counted across the groups"
            if len(behind) > len(before):
                yield "order", said, lambda c, a=axis, o=order: c.run().index_select(a, o)
            else:
                yield "order", said, lambda c, a=axis, o=order: input_of(c).index_select(a, o).reshape(behind)


@suspects_of("repeat_interleave")
def _repeated(call: Call) -> Iterator[Mutation]:
    shape, axis = call.run().shape, call["dim"]
    if not isinstance(call["repeats"], int) or not isinstance(axis, int):
        return
    times = [call["repeats"] if i == axis % len(shape) else 1 for i in range(len(shape))]
    said = f"axis {axis} is repeated as a whole, torch's entry by entry (as keys and values of grouped heads)"
    yield "order", said, lambda c: input_of(c).repeat(times)


@suspects_of("transpose", "permute", "movedim")
def _permuted(call: Call) -> Iterator[Mutation]:
    yield (
        "swapped axes",
        "axes are not swapped but reshaped",
        lambda c: input_of(c).reshape(c.run().shape),
    )


@suspects_of("__getitem__", "select", "narrow")
def _selected(call: Call) -> Iterator[Mutation]:
    x = input_of(call)
    if isinstance(x, torch.Tensor) and x.ndim > 1:
        for axis in range(x.ndim):
            for shift in (1, -1):
                said = f"the selection along axis {axis} is shifted by one"
                yield (
                    "index",
                    said,
                    lambda c, a=axis, s=shift: c.function(
                        torch.roll(input_of(c), s, a), *c.positional[1:], **c.keywords
                    ),
                )
        for axis in range(x.ndim):
            said = f"the selection along axis {axis} counts from the other end"
            yield "index", said, _of(lambda x, a=axis: x.flip(a))
        taken = call.run()
        if isinstance(taken, torch.Tensor) and taken.ndim == x.ndim - 1 and x.is_floating_point():
            for axis in range(x.ndim):
                for word, function in (("mean", torch.mean), ("sum", torch.sum), ("maximum", torch.amax)):
                    said = f"it takes the {word} over axis {axis}, torch one index of it"
                    yield "reduction", said, lambda c, f=function, a=axis: f(input_of(c), a).reshape(taken.shape)


@suspects_of("chunk", "split", "unbind")
def _parts(call: Call) -> Iterator[Mutation]:
    parts = call.run()
    if 1 < len(parts) <= 4:
        for order in list(itertools.permutations(range(len(parts))))[1:]:
            if all(parts[i].shape == parts[j].shape for j, i in enumerate(order)):
                said = f"the parts are taken in the order {order}"
                yield "order", said, lambda c, o=order: [c.run()[i] for i in o]


def counted(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """Numbers of positions, or heads, that start elsewhere or run backwards."""
    for call in calls:
        if call.name == "arange":
            for by, word in ((-1, "less"), (1, "more")):
                said = f"the numbers of an arange are each one {word} than torch's (it counts from elsewhere)"
                yield "index", said, {call.index: lambda c, b=by: c.run() + b}
            yield "order", "an arange counts backwards", {call.index: lambda c: c.run().flip(0)}


@suspects_of("flip")
def _unflipped(call: Call) -> Iterator[Mutation]:
    yield "order", "it is not flipped", input_of


@suspects_of("roll")
def _unrolled(call: Call) -> Iterator[Mutation]:
    yield "order", "it is not rolled", input_of
    shifts = call["shifts"] if isinstance(call["shifts"], tuple | list) else (call["shifts"],)
    back = tuple(-shift for shift in shifts)
    yield "order", "it is rolled the other way", lambda c: torch.roll(input_of(c), back, c["dims"] or ())
    if len(shifts) > 1:
        for shift, axis in zip(shifts, call["dims"], strict=True):
            said = f"it is rolled along axis {axis} alone, torch's along {tuple(call['dims'])}"
            yield "order", said, lambda c, s=shift, a=axis: torch.roll(input_of(c), s, a)
        said = "the shifts of the roll stand in the other order"
        yield "order", said, lambda c: torch.roll(input_of(c), tuple(shifts)[::-1], c["dims"])


@suspects_of("pixel_shuffle", "pixel_unshuffle")
def _shuffled(call: Call) -> Iterator[Mutation]:
    r = call["upscale_factor"] or call["downscale_factor"]

    def channels_last(c: Call) -> torch.Tensor:
        x = input_of(c)
        n, channels, h, w = x.shape
        if call.name == "pixel_shuffle":
            return x.reshape(n, r, r, channels // r**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * r, w * r)
        return x.reshape(n, channels, h // r, r, w // r, r).permute(0, 3, 5, 1, 2, 4).reshape(n, -1, h // r, w // r)

    yield "NCHW/NHWC", "depth and space are dealt in the other order", channels_last


def _of(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Call], Any]:
    """The call on what ``change`` makes of its first argument."""
    return lambda c: c.function(change(input_of(c)), *c.positional[1:], **c.keywords)
