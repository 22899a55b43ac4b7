"""A number in a layer that is neither torch's nor a usual one: any, found by a search along a line."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from parity.checking.diagnosis.calls import Call
from parity.checking.diagnosis.mutations import operands_of

SCALARS = {
    "eps": "epsilon",
    "negative_slope": "negative slope",
    "alpha": "alpha",
    "beta": "beta",
    "scale": "scale",
    "lambd": "lambda",
}
"""Arguments whose value may be any number, and their suspects."""

SMALL = 1e-2
"""What is added and smaller keeps a root or a quotient finite."""


@dataclass
class Number:
    """A positive number in a call.

    Attributes:
        suspect: the kind of mistake that another is.
        name: what it is.
        value: torch's.
        reach: how many powers of ten on either side are searched.
        instead: the call with another in its place.
    """

    suspect: str
    name: str
    value: float
    reach: float
    instead: Callable[[float], Callable[[Call], object]]


def named_numbers(call: Call) -> Iterator[Number]:
    """Those that a function's arguments have names for."""
    for name, suspect in SCALARS.items():
        value = call[name]
        if isinstance(value, float) and value > 0:
            reach = 4.0 if name == "eps" else 1.5
            yield Number(suspect, name, value, reach, lambda v, n=name: lambda c: c.run(**{n: v}))


def numbers_of_arithmetic(call: Call) -> Iterator[Number]:
    """A factor, a number of a power such as the period of a table of frequencies, or a small one that is added."""
    if call.name not in ("mul", "div", "add", "pow"):
        return
    for at, x in enumerate(operands_of(call)):
        number = float(x.detach() if isinstance(x, torch.Tensor) else x) if _is_number(x) else 0.0
        value, sign = abs(number), math.copysign(1.0, number)
        if not 0 < value < np.inf or (call.name == "add" and (value > SMALL or number < 0)):
            continue

        def instead(v: float, at: int = at, sign: float = sign) -> Callable[[Call], object]:
            return lambda c: c.function(
                *(_like(y, sign * v) if i == at else y for i, y in enumerate(c.positional)), **c.keywords
            )

        suspect, name = ("epsilon", "what is added") if call.name == "add" else ("scale", "a factor")
        if call.name == "pow":
            suspect, name = "exponent", "a number of the power"
        yield Number(suspect, name, value, 4.0 if call.name == "add" else 1.5, instead)


def searched(number: Number, left: Callable[[Callable[[Call], object]], float], before: float) -> tuple[str, float]:
    """The best value in words and what it leaves; infinitely much where none on a coarse grid helps."""

    def of(exponent: float) -> float:
        return left(number.instead(10.0**exponent))

    whole = number.value >= 2 and number.value == int(number.value)
    usual = [number.value * ratio for ratio in RATIOS] + [number.value + i for i in (1, -1) if whole]
    for value in usual:  # behind a sine no line leads there
        if (rest := left(number.instead(value))) < FOUND * before:
            return _said(number, value), rest
    middle = float(np.log10(number.value))
    step = 0.5 if number.reach > 2 else 0.25
    near = [middle + sign * step / part for sign in (-1, 1) for part in (10, 100)]
    coarse = np.sort([*np.arange(middle - number.reach, middle + number.reach + step / 10, step), *near])
    scores = [of(float(e)) for e in coarse]
    best = int(np.argmin(scores))
    if scores[best] > 0.9 * before:
        return "", np.inf
    low, high = float(coarse[max(best - 1, 0)]), float(coarse[min(best + 1, len(coarse) - 1)])
    for _ in range(24):
        third = (high - low) / 3
        if of(low + third) < of(high - third):
            high -= third
        else:
            low += third
    found = 10 ** ((low + high) / 2)
    return _said(number, found), of((low + high) / 2)


RATIOS = (0.5, 2.0, 0.75, 4 / 3, 0.1, 10.0)
"""Between what people write: one and two, or the logarithms of a thousand and ten thousand."""

FOUND = 1e-3
"""What leaves no more than this part of the difference is not met by chance."""


def _said(number: Number, value: float) -> str:
    return f"{number.name} is as if {value:.4g}, torch's is {number.value:g}"


def _like(x: object, value: float) -> object:
    return torch.full_like(x, value) if isinstance(x, torch.Tensor) else value


def _is_number(x: object) -> bool:
    if isinstance(x, torch.Tensor):
        return x.ndim == 0 and x.is_floating_point()
    return isinstance(x, int | float) and not isinstance(x, bool)
