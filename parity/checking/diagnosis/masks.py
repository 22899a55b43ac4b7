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


@suspects_of("masked_fill")
def _masked(call: Call) -> Iterator[Mutation]:
    lowest = float(torch.finfo(torch.float32).min)
    values = (-math.inf, -1e9, -1e4, -1e3, -1e2, -50.0, -20.0, -10.0, -5.0, -2.0, -1.0, 0.0, 1.0, 1e-9, lowest)
    yield from other(call, "value", "masked value", *values)
    yield "mask", "the mask is not applied", input_of
    yield "mask", "the mask is inverted", lambda c: c.run(mask=~c["mask"])
    if call["mask"].ndim > 1 and call["mask"].shape[-1] == call["mask"].shape[-2]:
        yield "mask", "the mask is transposed", lambda c: c.run(mask=c["mask"].transpose(-1, -2))


@suspects_of("where")
def _where(call: Call) -> Iterator[Mutation]:
    if len(call.positional) == 3:
        yield "mask", "the condition is inverted", lambda c: torch.where(~c.positional[0], *c.positional[1:])
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
