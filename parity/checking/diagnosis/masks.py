"""What people get wrong in masks."""

import math
from collections.abc import Iterator

import torch

from parity.checking.diagnosis.calls import Call, Mutation
from parity.checking.diagnosis.mutations import input_of, operands_of, other, suspects_of

_JOINS = (
    "__or__", "__and__", "__ior__", "__iand__", "logical_or", "logical_and", "bitwise_or", "bitwise_and",
)  # fmt: skip

_OTHER_BOUND = {"lt": torch.le, "le": torch.lt, "gt": torch.ge, "ge": torch.gt}


@suspects_of(*_OTHER_BOUND)
def _bounded(call: Call) -> Iterator[Mutation]:
    word = "leaves the bound itself out" if call.name in ("le", "ge") else "takes the bound itself in"
    yield "index", f"the comparison {word}", lambda c: _OTHER_BOUND[c.name](*c.positional[:2])
    for by in (1, -1):
        said = f"the bound of the comparison is off by {by:+d}"
        yield "index", said, lambda c, b=by: c.function(c.positional[0], c.positional[1] + b)


def bands(kept: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """What one may see otherwise where ``kept`` lets each position see those in a window around it, as a causal mask or
    one of local attention does: the mistake in words, and the mask with it."""
    if kept.ndim < 2 or min(kept.shape[-2:]) < 2 or not torch.equal(kept[..., 1:, 1:], kept[..., :-1, :-1]):
        return
    rows, columns = kept.shape[-2:]
    offsets = torch.arange(columns) - torch.arange(rows)[:, None]
    seen = offsets[kept.reshape(-1, rows, columns).any(0)].unique().tolist()
    if not seen or len(seen) != seen[-1] - seen[0] + 1:
        return
    first, last, far = seen[0], seen[-1], max(rows, columns)
    if not torch.equal(kept, ((offsets >= first) & (offsets <= last)).expand(kept.shape)):
        return
    behind, ahead = first > 1 - rows, last < columns - 1
    others: list[tuple[str, int, int]] = []
    for by, word in ((1, "one more"), (-1, "one fewer")):
        if behind:
            others.append((f"a position sees {word} of those behind it", first - by, last))
        if ahead:
            said = f"a position sees {word} of those ahead of it"
            if last == 0:
                said = "a position sees the one ahead of it, too" if by > 0 else "a position does not see itself"
            others.append((said, first, last + by))
    if behind and ahead:
        others.append(("the window has no end behind a position, torch's has", -far, last))
        others.append(("the window has no end ahead of a position, torch's has", first, far))
        if last == 0:
            others.append(
                ("the window reaches as far ahead of a position as behind it, torch's ends at it", first, -first)
            )
        others.append(("the window is shifted by one, ahead", first + 1, last + 1))
        others.append(("the window is shifted by one, back", first - 1, last - 1))
        if first < -1:
            others.append(("the window reaches twice as far", 2 * first, 2 * last))
            others.append(("the window reaches half as far", -(-first // 2), last // 2))
    for said, low, high in others:
        yield said, ((offsets >= low) & (offsets <= high)).expand(kept.shape)


@suspects_of("masked_fill")
def _masked(call: Call) -> Iterator[Mutation]:
    lowest = float(torch.finfo(torch.float32).min)
    values = (-math.inf, -1e9, -1e4, -1e3, -1e2, -50.0, -20.0, -10.0, -5.0, -2.0, -1.0, 0.0, 1.0, 1e-9, lowest)
    yield from other(call, "value", "masked value", *values)
    yield "mask", "the mask is not applied", input_of
    yield "mask", "the mask is inverted", lambda c: c.run(mask=~c["mask"])
    if call["mask"].ndim > 1 and call["mask"].shape[-1] == call["mask"].shape[-2]:
        yield "mask", "the mask is transposed", lambda c: c.run(mask=c["mask"].transpose(-1, -2))
    for said, kept in bands(~call["mask"]):
        # A row of which nothing is left is NaN with minus infinity, alike everywhere with the large numbers of a port.
        value = call["value"] if kept.any(-1).all() else max(call["value"], lowest)
        yield "mask", said, lambda c, k=kept, v=value: c.run(mask=~k, value=v)


@suspects_of("where")
def _where(call: Call) -> Iterator[Mutation]:
    if len(call.positional) == 3:
        yield "mask", "the condition is inverted", lambda c: torch.where(~c.positional[0], *c.positional[1:])
        for at in (1, 2):
            kept = call.positional[0] if at == 1 else ~call.positional[0]
            if isinstance(call.positional[at], torch.Tensor) and call.positional[at].ndim > 1:
                yield "mask", "the mask is not applied", lambda c, i=at: _whole(c, i)
                for said, band in bands(kept):
                    condition = band if at == 1 else ~band
                    yield "mask", said, lambda c, m=condition: torch.where(m, *c.positional[1:])
        for value in (-math.inf, -1e9, -1e4, 0.0, 1.0):
            for at in (1, 2):
                x = call.positional[at]
                if not isinstance(x, torch.Tensor) or x.ndim == 0:
                    said = f"the masked value is {value:g}, torch's is {float(x):g}"
                    yield (
                        "masked value",
                        said,
                        lambda c, i=at, v=value: torch.where(*(v if i == j else y for j, y in enumerate(c.positional))),
                    )


def _whole(call: Call, kept: int) -> torch.Tensor:
    return call.positional[kept].expand(torch.broadcast_shapes(*(getattr(x, "shape", ()) for x in call.positional)))


@suspects_of(*_JOINS)
def _two_masks(call: Call) -> Iterator[Mutation]:
    a, b = operands_of(call)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.dtype == b.dtype == torch.bool:
        shape = torch.broadcast_shapes(a.shape, b.shape)
        for kept, word in ((0, "second"), (1, "first")):
            said = f"the {word} of two masks is missing"
            yield "mask", said, lambda c, k=kept: operands_of(c)[k].expand(shape)
        joined, torchs = (torch.logical_and, "or") if "or" in call.name else (torch.logical_or, "and")
        said = f"the masks are joined by {'and' if torchs == 'or' else 'or'}, torch's by {torchs}"
        yield "mask", said, lambda c: joined(*operands_of(c))


@suspects_of("tril", "triu")
def _triangle(call: Call) -> Iterator[Mutation]:
    now = call["diagonal"] or 0
    yield from other(call, "diagonal", "mask", now - 1, now + 1)
    twin = torch.triu if call.name == "tril" else torch.tril
    yield "mask", "the triangle is the other one", lambda c: twin(input_of(c), now)
    yield "mask", "the mask is not applied", input_of
