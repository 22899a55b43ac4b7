"""What people get wrong in products, of numbers and of matrices."""

from collections.abc import Callable, Iterator

import torch

from parity.checking.diagnosis.calls import Call, Mutated, Mutation
from parity.checking.diagnosis.mutations import operands_of, suspects_of


@suspects_of("mul", "div")
def _product(call: Call) -> Iterator[Mutation]:
    a, b = operands_of(call)
    numbers = [x for x in (a, b) if not isinstance(x, torch.Tensor) or x.ndim == 0]
    scalar = min(numbers, key=lambda x: isinstance(x, torch.Tensor), default=None)  # a loss is no factor of two
    tensors = [i for i, x in enumerate((a, b)) if isinstance(x, torch.Tensor)]
    shown = f" by {float(scalar):.4g}" if isinstance(scalar, int | float | torch.Tensor) else ""
    for at in tensors:
        verb = "multiplied" if call.name == "mul" else "divided"
        said = "one factor of a product is missing"
        if call.name == "div":
            said = "the divisor stands for the quotient" if at else "the division is missing"
        said = f"what torch has {verb}{shown} is not" if scalar is not None else said
        yield "scale", said, lambda c, i=at: operands_of(c)[i]
    twin = torch.div if call.name == "mul" else torch.mul
    verb = "divided" if call.name == "mul" else "multiplied"
    yield "scale", f"it is {verb}{shown}, the other way round", lambda c: twin(*operands_of(c))
    if scalar is not None and float(scalar) > 0:
        for power, word in ((2.0, "the square of"), (0.5, "the square root of")):
            said = f"it takes {word} the factor{shown}"
            yield "scale", said, lambda c, p=power: c.function(operands_of(c)[tensors[0]], float(scalar) ** p)
    if len(tensors) == 2 and scalar is None:
        yield "combination", "the factors are added", lambda c: torch.add(*operands_of(c))
        for at, word in ((0, "first"), (1, "second")) if call.name == "mul" else ():
            said = f"one is added to the {word} factor (a weight that counts from zero)"
            yield "combination", said, lambda c, i=at: c.run() + operands_of(c)[1 - i]


def turned(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """A factor that runs backwards, such as the slopes of heads."""
    for call in calls:
        pair = operands_of(call) if call.name in ("mul", "div") else ()
        if not pair or not all(isinstance(x, torch.Tensor) for x in pair):
            continue
        for at, word in ((0, "first"), (1, "second")):
            for axis in range(pair[at].ndim) if pair[at].numel() < call.run().numel() else ():
                if pair[at].shape[axis] > 1:
                    said = f"the {word} factor of a {'product' if call.name == 'mul' else 'quotient'}"
                    yield "order", f"{said} is reversed along axis {axis}", {call.index: _turned(at, axis)}


def _turned(at: int, axis: int) -> Callable[[Call], torch.Tensor]:
    return lambda c: c.function(*(x.flip(axis) if i == at else x for i, x in enumerate(operands_of(c))))


@suspects_of("matmul", "bmm")
def _matrices(call: Call) -> Iterator[Mutation]:
    a, b = operands_of(call)
    for i, x in enumerate((a, b)):
        if x.ndim > 1 and x.shape[-1] == x.shape[-2]:
            said = f"the {('first', 'second')[i]} matrix of a product is transposed"
            yield (
                "transposed weight",
                said,
                lambda c, i=i: torch.matmul(
                    *(y.transpose(-1, -2) if i == j else y for j, y in enumerate(operands_of(c)))
                ),
            )
    if a.ndim > 1 and b.ndim > 1 and a.shape[-2] == b.shape[-1]:
        said = "a product is transposed (its factors are exchanged, such as query and key)"
        yield "order", said, lambda c: c.run().transpose(-1, -2)
    if a.shape == b.shape and a.ndim > 1 and a.shape[-1] == a.shape[-2]:
        yield "order", "the factors of a matrix product are swapped", lambda c: torch.matmul(*operands_of(c)[::-1])
    for word, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        said = f"a matrix product is taken of {word} factors"
        yield "precision", f"{said} and is {word} itself", lambda c, d=dtype: _of_few_bits(c, d).to(d).to(a.dtype)
        yield "precision", f"{said}, what it gives is not rounded", lambda c, d=dtype: _of_few_bits(c, d)
    for i, which in ((0, "first"), (1, "second")):
        said = f"the {which} factor of a matrix product is rounded to bfloat16"
        yield "precision", said, lambda c, i=i: _of_few_bits(c, torch.bfloat16, i)


def _of_few_bits(call: Call, dtype: torch.dtype, *which: int) -> torch.Tensor:
    """The product of rounded factors, those of ``which`` alone if there are any, summed in full."""
    rounded = (x.to(dtype).to(x.dtype) if not which or i in which else x for i, x in enumerate(operands_of(call)))
    return torch.matmul(*rounded)
