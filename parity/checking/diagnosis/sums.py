"""What people get wrong in sums: a term left out, of the other sign, along another axis, scaled."""

import itertools
import math
from collections.abc import Iterator

import torch

from parity.checking.diagnosis.calls import Call, Mutated, Mutation
from parity.checking.diagnosis.mutations import operands_of, suspects_of

MOST = 8
"""Factors of a layer that a term may be scaled by."""


@suspects_of("add", "sub")
def _sum(call: Call) -> Iterator[Mutation]:
    a, b = operands_of(call)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape:
        hint = " (a residual connection left out)" if a.ndim else ""
        for kept, left_out in ((0, "second"), (1, "first")):
            said = f"the sum's {left_out} term is missing{hint}"
            yield "missing residual", said, lambda c, k=kept: operands_of(c)[k]
        twin, word = (torch.sub, "subtracted") if call.name == "add" else (torch.add, "added")
        yield "sign", f"the second term is {word}", lambda c: twin(*operands_of(c))
        if call.name == "add":
            for scale in (0.5, math.sqrt(0.5)):
                said = f"the sum is multiplied by {scale:.3g}"
                yield "scale", said, lambda c, s=scale: c.run() * s
            yield "scale", "the first term is added twice", lambda c: c.run() + operands_of(c)[0]
            yield "scale", "the second term is added twice", lambda c: c.run() + operands_of(c)[1]
            for kept, word, lost in ((0, "first", "second"), (1, "second", "first")) if not a.ndim else ():
                said = f"the {word} term stands for the {lost}, too"  # as where a loss is taken of one side only
                yield "wrong input", said, lambda c, k=kept: 2 * operands_of(c)[k]
            yield "combination", "the terms are multiplied", lambda c: torch.mul(*operands_of(c))
    else:
        at = 0 if isinstance(a, torch.Tensor) else 1
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.numel() < b.numel():
            at = 1
        said = "a term is not added (such as positions or a bias)"
        yield "missing bias", said, lambda c: operands_of(c)[at]
        if call.name == "add":
            yield "scaled bias", "the second term is added twice", lambda c: torch.add(c.run(), operands_of(c)[1 - at])
        else:
            yield "sign", "the second term is added", lambda c: torch.add(*operands_of(c))
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and call.name == "add":
            yield "combination", "the terms are multiplied", lambda c: torch.mul(*operands_of(c))
            said = "the first term is multiplied by one plus the second, torch adds the two"
            yield "combination", said, lambda c: operands_of(c)[0] * (1 + operands_of(c)[1])
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and max(a.ndim, b.ndim) > 1:
            small = b if at == 0 else a
            yield from _along_another_axis(a, b, at)
            yield from _dealt(a, b, at)
            for axis in range(small.ndim):
                if small.shape[axis] > 1:
                    said = f"the added term is shifted by one along axis {axis}"
                    yield (
                        "index",
                        said,
                        lambda c, d=axis: _with_term(c, 1 - at, torch.roll(operands_of(c)[1 - at], 1, d)),
                    )


def _with_term(call: Call, at: int, term: torch.Tensor) -> torch.Tensor:
    """The sum, or difference, with another term in one of its places."""
    function = torch.add if call.name == "add" else torch.sub
    return function(*(term if i == at else x for i, x in enumerate(operands_of(call))))


def _along_another_axis(a: torch.Tensor, b: torch.Tensor, at: int) -> Iterator[Mutation]:
    """A term of fewer axes, such as positions, added along another axis of the same size."""
    large, small = (a, b) if at == 0 else (b, a)
    if small.ndim > large.ndim or any(
        n not in (1, m) for n, m in zip(small.shape[::-1], large.shape[::-1], strict=False)
    ):
        return
    whole = (*[1] * (large.ndim - small.ndim), *small.shape)
    for i, j in itertools.combinations(range(large.ndim), 2):
        if large.shape[i] == large.shape[j] and (whole[i] > 1) != (whole[j] > 1):
            here, there = (i, j) if whole[i] > 1 else (j, i)
            said = f"the added term runs along axis {there}, torch's along axis {here}"
            yield (
                "swapped axes",
                said,
                lambda c, i=i, j=j: _with_term(c, 1 - at, operands_of(c)[1 - at].reshape(whole).transpose(i, j)),
            )


def _dealt(a: torch.Tensor, b: torch.Tensor, at: int) -> Iterator[Mutation]:
    """A term for each window where one axis holds all windows of all samples: sample by sample, or window by window."""
    large, small = (a, b) if at == 0 else (b, a)
    if small.ndim != large.ndim:
        return
    for i in range(large.ndim - 1):
        m, n = large.shape[i : i + 2]
        if min(m, n) > 1 and (small.shape[i] == 1) != (small.shape[i + 1] == 1):
            shape = [*small.shape[:i], n, m, *small.shape[i + 2 :]]
            whole = [*small.shape[:i], m, n, *small.shape[i + 2 :]]
            said = f"the added term is dealt over axes {i} and {i + 1} as if they stood in the other order"

            def dealt(c: Call, i: int = i, shape: list[int] = shape, whole: list[int] = whole) -> torch.Tensor:
                term = operands_of(c)[1 - at].transpose(i, i + 1).expand(shape)
                return _with_term(c, 1 - at, term.reshape(whole))

            yield "order", said, dealt


def scaled(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """A term that is added on the other side of a scaling, as the bias of attention's scores is."""
    factors: dict[float, str] = {}
    for call in calls:
        pair = operands_of(call) if call.name in ("mul", "div") else ()
        whole = any(isinstance(x, torch.Tensor) and x.ndim > 1 for x in pair)  # not the exponents of slopes
        for x in pair if whole else ():
            if isinstance(x, int | float) and x not in (0, 1):
                value = float(x) if call.name == "mul" else 1 / float(x)
                factors.setdefault(value, "before the scores or sums are scaled, torch's behind it")
                factors.setdefault(1 / value, "behind the scaling of the scores or sums, torch's before it")
    for call in calls:
        if call.name not in ("add", "sub") or not all(isinstance(x, torch.Tensor) for x in operands_of(call)):
            continue
        for (factor, where), at in itertools.product(list(factors.items())[:MOST], (1, 0)):
            said = f"a term of the {call.name} is added {where}: it is multiplied by {factor:.4g}"
            yield "scale", said, {call.index: lambda c, f=factor, i=at: _with_term(c, i, f * operands_of(c)[i])}
