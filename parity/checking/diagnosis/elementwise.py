"""What people get wrong in activations and arithmetic."""

import itertools
from collections.abc import Iterator
from typing import Any

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


REDUCTIONS = ("mean", "sum", "amax", "max", "var", "std", "norm")


def reduced_along(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """Mean and deviation, or whatever else is taken of one axis, taken of another, as in a normalization by hand."""
    found: dict[Any, list[Call]] = {}
    for call in calls:
        if call.name in REDUCTIONS and isinstance(call["dim"], int) and isinstance(input_of(call), torch.Tensor):
            rank = input_of(call).ndim
            found.setdefault((call["dim"] % rank, rank), []).append(call)
    for (dim, rank), family in found.items():
        for axis in range(rank) if len(family) > 1 else ():
            if axis != dim:
                said = f"{', '.join(c.name for c in family)} run along axis {axis}, torch's along axis {dim}"
                yield "axis", said, {call.index: lambda c, a=axis: c.run(dim=a) for call in family}


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
