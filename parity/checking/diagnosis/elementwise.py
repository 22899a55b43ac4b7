"""What people get wrong in activations and arithmetic."""

import itertools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutated, Mutation
from parity.checking.diagnosis.mutations import input_of, operands_of, other, suspects_of

PLAIN = (
    "relu", "relu6", "gelu", "silu", "elu", "selu", "celu", "leaky_relu", "tanh", "sigmoid", "hardswish", "hardsigmoid",
    "hardtanh", "mish", "softplus", "softsign", "logsigmoid", "tanhshrink",
)  # fmt: skip
FUNCTIONS = {name: getattr(F, name) for name in PLAIN} | {"tanh": torch.tanh, "sigmoid": torch.sigmoid}


@suspects_of(*PLAIN, "prelu", "rrelu", "hardshrink", "softshrink", "threshold")
def _activation(call: Call) -> Iterator[Mutation]:
    if call.name == "gelu":
        twin = "tanh" if (call["approximate"] or "none") == "none" else "none"
        said = f"gelu is computed with approximate={twin!r}, torch's with approximate={call['approximate'] or 'none'!r}"
        yield "gelu approximate", said, lambda c: F.gelu(input_of(c), approximate=twin)
        said = "gelu is computed as x * sigmoid(1.702 x)"
        yield "gelu approximate", said, lambda c: input_of(c) * torch.sigmoid(1.702 * input_of(c))
    yield from other(
        call, "negative_slope", "negative slope", *_grid(call, "negative_slope", 0.01, 0.2, 0.1, 0.3, 0.05)
    )
    yield from other(call, "alpha", "alpha", *_grid(call, "alpha", 1.0, 0.5, 2.0, 1.6732632423543772, 0.1))
    yield from other(call, "beta", "beta", *_grid(call, "beta", 1.0, 0.5, 2.0))
    yield from other(call, "lambd", "lambda", *_grid(call, "lambd", 0.5, 1.0, 0.1))
    yield from other(call, "max_val", "bounds", *_grid(call, "max_val", 1.0, 2.0, 6.0, 20.0))
    yield from other(call, "min_val", "bounds", *_grid(call, "min_val", -1.0, 0.0, -2.0))
    if call.name == "hardsigmoid":
        said = "its slope is 1/5, torch's is 1/6"
        yield "activation", said, lambda c: (input_of(c) * 0.2 + 0.5).clamp(0, 1)
    for slope in (0.25, 0.01, 0.1, 0.2, 0.3) if call.name == "prelu" else ():
        said = f"its slope is {slope} everywhere, torch's is the weight"
        yield "negative slope", said, lambda c, s=slope: F.leaky_relu(input_of(c), s)
    yield "activation", f"{call.name} is missing", input_of
    if call.name == "sigmoid":
        said = "what sigmoid gives is taken from one (the two sides of a gate are exchanged)"
        yield "order", said, lambda c: 1 - c.run()
    for name, function in FUNCTIONS.items():
        if name != call.name:
            yield "activation", f"it computes {name}, torch {call.name}", lambda c, f=function: f(input_of(c))


FAMILIES = (
    ("exp", "expm1", "exp2", "softplus", "sigmoid"),
    ("log", "log1p", "log2", "log10"),
    ("sqrt", "rsqrt"),
    ("sin", "cos"),
    ("floor", "ceil", "round", "trunc"),
)
"""Functions that are taken for each other."""


@suspects_of(*(name for family in FAMILIES for name in family if name not in PLAIN), "reciprocal", "abs")
def _function(call: Call) -> Iterator[Mutation]:
    yield "activation", f"{call.name} is missing", input_of
    for scale, word in ((0.5, "halved"), (2.0, "doubled")):
        yield "scale", f"what {call.name} gives is {word}", lambda c, s=scale: s * c.run()
        yield "scale", f"what {call.name} takes is {word}", lambda c, s=scale: c.function(s * input_of(c))
    for name in next((family for family in FAMILIES if call.name in family), ()):
        if name != call.name:
            function = getattr(torch, name, F.softplus)
            yield "activation", f"it computes {name}, torch {call.name}", lambda c, f=function: f(input_of(c))


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


@suspects_of("pow", "square")
def _power(call: Call) -> Iterator[Mutation]:
    now = 2 if call.name == "square" else operands_of(call)[1]
    yield "exponent", f"it takes the absolute value, torch the power {now}", lambda c: input_of(c).abs()
    for axis in (-1, 1) if now == 2 and isinstance(input_of(call), torch.Tensor) else ():
        if -input_of(call).ndim <= axis < input_of(call).ndim:
            said = f"the mean of axis {axis} is taken off before it is squared (a variance for a mean square)"
            yield "centred", said, lambda c, a=axis: (input_of(c) - input_of(c).mean(a, keepdim=True)) ** 2
    for power in (1, 2, 3, 4, 0.5):
        if power != now:
            yield "exponent", f"the exponent is {power}, torch's is {now}", lambda c, p=power: input_of(c) ** p


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


def exchanged(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """Two activations in each other's place, such as those of a gate."""
    found = [call for call in calls if call.name in FUNCTIONS and isinstance(input_of(call), torch.Tensor)]
    for one, two in itertools.combinations(found[:12], 2):
        if one.name != two.name and input_of(one).shape == input_of(two).shape:
            mistakes = {
                here.index: lambda c, f=FUNCTIONS[there.name]: f(input_of(c))
                for here, there in ((one, two), (two, one))
            }
            yield "activation", f"{one.name} and {two.name} are in each other's place", mistakes


@suspects_of("mean", "sum", "amax", "max", "logsumexp")
def _reduced(call: Call) -> Iterator[Mutation]:
    x = input_of(call)
    if not isinstance(x, torch.Tensor):
        return
    shape = call.run().shape if isinstance(call.run(), torch.Tensor) else None
    words = {"amax": "maximum", "max": "maximum"}
    for name, function in (("mean", torch.mean), ("sum", torch.sum), ("amax", torch.amax)):
        if name != call.name:
            said = f"it takes the {words.get(name, name)}, torch the {words.get(call.name, call.name)}"
            yield "reduction", said, lambda c, f=function: f(input_of(c), *c.positional[1:], **c.keywords)
    if call.name == "max" and len(call.positional) > 1 and isinstance(call.positional[1], int):
        for name, function in (("mean", torch.mean), ("sum", torch.sum), ("minimum", torch.amin)):
            said = f"it takes the {name}, torch the maximum"
            yield (
                "reduction",
                said,
                lambda c, f=function: torch.return_types.max(
                    (f(input_of(c), *c.positional[1:], **c.keywords), c.run().indices)
                ),
            )
    for dim in range(x.ndim):
        if call["dim"] is not None and shape is not None and torch.mean(x.double(), dim).shape == shape:
            yield from other(call, "dim", "axis", dim)
    for index, word in ((0, "first"), (-1, "last")):
        if isinstance(call["dim"], int):
            said = f"it takes the {word} element along axis {call['dim']}, torch the {call.name}"
            yield "reduction", said, lambda c, i=index: input_of(c).select(c["dim"], i).reshape(c.run().shape)


@suspects_of("var", "std")
def _spread(call: Call) -> Iterator[Mutation]:
    for correction, word, torchs in ((1, "unbiased", "biased"), (0, "biased", "unbiased")):
        said = f"it takes the {word} {'variance' if call.name == 'var' else 'deviation'}, torch the {torchs} one"
        kept = {k: v for k, v in call.keywords.items() if k not in ("unbiased", "correction")} | {
            "correction": correction
        }
        axes = [x for x in call.positional[1:] if not isinstance(x, bool)]
        yield "biased or unbiased variance", said, lambda c, a=axes, k=kept: c.function(input_of(c), *a, **k)


def _grid(call: Call, name: str, *values: float) -> Iterator[float]:
    if isinstance(call[name], int | float):
        yield from values


@suspects_of("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
def _running(call: Call) -> Iterator[Mutation]:
    x, dim = input_of(call), call["dim"] if call["dim"] is not None else call.positional[-1]
    if not isinstance(x, torch.Tensor) or not isinstance(dim, int):
        return
    said = f"it runs backwards along axis {dim}"
    yield "order", said, lambda c: torch.flip(c.function(torch.flip(input_of(c), [dim]), dim), [dim])
    if call.name in ("cumsum", "cumprod"):
        nothing = float(call.name == "cumprod")
        said = "each place's own number is left out (exclusive)"
        yield "index", said, lambda c: c.run().roll(1, dim).index_fill(dim, torch.tensor([0], device=x.device), nothing)
        twin = torch.cumprod if call.name == "cumsum" else torch.cumsum
        yield "reduction", f"it computes {twin.__name__}, torch {call.name}", lambda c: twin(input_of(c), dim)
    for axis in range(x.ndim):
        if axis != dim % x.ndim:
            said = f"{call.name} runs along axis {axis}, torch's along {dim % x.ndim}"
            yield "axis", said, lambda c, a=axis: c.function(input_of(c), a)
