"""What people get wrong in an optimizer: torch's steps with one thing changed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from parity.checking.runs import Stepping

Suggestion = tuple[str, str, Stepping]
"""The suspect, the mistake in words, and torch's step with it."""

FLAGS = {
    "nesterov": "nesterov",
    "amsgrad": "amsgrad",
    "maximize": "sign",
    "centered": "centered",
    "decoupled_weight_decay": "weight decay",
}
USUAL: dict[str, tuple[str, tuple[float, ...]]] = {
    "dampening": ("dampening", (0.0, 0.1, 0.5, 0.9)),
    "momentum": ("momentum", (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)),
    "weight_decay": ("weight decay", (0.0, 1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1)),
    "alpha": ("decay rate", (0.9, 0.95, 0.99, 0.999)),
    "rho": ("decay rate", (0.9, 0.95, 0.99)),
    "eps": ("epsilon", tuple(10.0**-i for i in range(1, 17))),
}
BETAS = ((0.5, 0.8, 0.85, 0.9, 0.95, 0.99), (0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999))
BOUNDS = (0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
RELATIVES = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad")


class Notes:
    """Steps as they are, and notes what of torch's optimizer only a run shows."""

    def __init__(self) -> None:
        self.optimizer: torch.optim.Optimizer | None = None
        self.rates: list[float] = []
        self.norms: list[float] = []
        self.later = 0.0

    def __call__(self, optimizer: torch.optim.Optimizer, _: int) -> None:
        """Step, and note."""
        self.optimizer = optimizer
        self.rates.append(float(optimizer.param_groups[0]["lr"]))
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(float(torch.stack([g.norm() for g in gradients]).norm()) if gradients else 0.0)
        optimizer.step()
        self.later = float(optimizer.param_groups[0]["lr"])


def suggestions(notes: Notes) -> Iterator[Suggestion]:
    """What to try, by what torch's optimizer has."""
    optimizer = notes.optimizer
    assert optimizer is not None
    group = optimizer.param_groups[0]
    yield from _of_schedule(notes)
    for key, suspect in FLAGS.items():
        if isinstance(group.get(key), bool):
            yield suspect, _said(key, not group[key], group[key]), _with(**{key: not group[key]})
    if group.get("weight_decay"):
        said = "weight decay is as if left out for biases and other vectors; torch's is for all parameters"
        yield "weight decay", said, _undecayed
        yield "weight decay", "weight decay is as if taken off the parameters, not added to gradients", _decoupled
    if "betas" in group:
        for which, said in (
            ((0, 1), "both averages"),
            ((0,), "the first average"),
            ((1,), "the second average"),
        ):
            how = f"{said} as if not corrected for starting at zero, in torch corrected"
            yield "bias correction", how, _uncorrected(which)
    if around(optimizer):
        said = "what torch does around the optimizer's step (such as clipping or a schedule) is as if left out"
        yield "clipping", said, bare
    yield from _of_betas(group)
    for key, (suspect, values) in USUAL.items():
        if not isinstance(group.get(key), float | int):
            continue
        for value in values:
            if value != group[key]:
                yield suspect, _said(key, value, group[key]), _with(**{key: value})
    for name in RELATIVES:
        if name != type(optimizer).__name__:
            yield "optimizer", f"the optimizer is as if {name}, torch's is {type(optimizer).__name__}", _other(name)
    if "betas" in group:
        alpha = group["betas"][1]
        said = f"the optimizer is as if RMSprop with alpha={alpha:g}, torch's is {type(optimizer).__name__}"
        yield "optimizer", said, _other("RMSprop", alpha=alpha, eps=group["eps"])
    for bound in BOUNDS:
        yield "clipping", f"gradients are as if cut to a norm of {bound:g} tensor by tensor", _cut(_each, bound)
        yield "clipping", f"gradients are as if each number were cut to {bound:g}", _cut(_numbers, bound)


@dataclass
class Line:
    """A number of the optimizer that may be any.

    Attributes:
        suspect: the kind of mistake.
        sentence: the mistake in words, with a place for the number.
        value: torch's, or one of the usual size.
        stepping: how to step with another.
    """

    suspect: str
    sentence: str
    value: float
    stepping: Callable[[float], Stepping]


def lines(notes: Notes) -> Iterator[Line]:
    """The numbers of torch's optimizer, and a norm that gradients may be cut to."""
    optimizer = notes.optimizer
    assert optimizer is not None
    group = optimizer.param_groups[0]
    for key, (suspect, _) in USUAL.items():
        value = group.get(key)
        if isinstance(value, float | int) and not isinstance(value, bool):
            usual = 1e-2 if key == "weight_decay" else 0.5
            said = f"{key} is as if {{:.3g}}, torch's is {value!r}"
            yield Line(suspect, said, value or usual, lambda v, k=key: _with(**{k: v}))
    betas = tuple(group.get("betas", ()))
    for i, beta in enumerate(betas):

        def kept(rest: float, i: int = i) -> Stepping:
            return _with(betas=tuple(1 - rest if j == i else x for j, x in enumerate(betas)))

        yield Line("betas", f"1 - betas[{i}] is as if {{:.3g}}, torch's is {1 - beta:.3g}", 1 - beta, kept)
    middle = max(notes.norms)
    if middle > 0:
        theirs = "torch's otherwise" if around(optimizer) else "torch's are not"
        yield Line("clipping", f"gradients are as if cut to a norm of {{:.3g}}, {theirs}", middle / 10, clipped)


def _of_schedule(notes: Notes) -> Iterator[Suggestion]:
    """Torch's learning rates, a step early or late."""
    rates = [*notes.rates, notes.later]
    if len(set(rates)) > 1:
        early, late = rates[1:], [rates[0], *rates]
        for moved, said in ((early, "one step ahead of"), (late, "one step behind")):
            yield "schedule", f"the learning rate is {said} torch's", _rated(moved)


def _of_betas(group: dict[str, Any]) -> Iterator[Suggestion]:
    betas = group.get("betas", ())
    for i, usual in enumerate(BETAS[: len(betas)]):
        for value in usual:
            if value != betas[i]:
                new = tuple(value if j == i else beta for j, beta in enumerate(betas))
                yield "betas", _said("betas", new, tuple(betas)), _with(betas=new)


def _said(key: str, value: Any, theirs: Any) -> str:
    return f"{key} is as if {value!r}, torch's is {theirs!r}"


def _with(**values: Any) -> Stepping:
    """A step with other values in every group of parameters that has them."""

    def step(optimizer: torch.optim.Optimizer, _: int) -> None:
        saved = [{key: group[key] for key in values if key in group} for group in optimizer.param_groups]
        for group, kept in zip(optimizer.param_groups, saved, strict=True):
            group.update({key: values[key] for key in kept})
        optimizer.step()
        for group, kept in zip(optimizer.param_groups, saved, strict=True):
            group.update(kept)

    return step


def _rated(rates: list[float]) -> Stepping:
    """A step at these learning rates, in the proportions that torch's groups have."""

    def step(optimizer: torch.optim.Optimizer, index: int) -> None:
        _with_rate(optimizer, rates[index] / optimizer.param_groups[0]["lr"])

    return step


def _uncorrected(which: tuple[int, ...]) -> Stepping:
    """Adam's step with these of its two averages as they are."""

    def step(optimizer: torch.optim.Optimizer, index: int) -> None:
        saved = [(group["lr"], group["eps"]) for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            first, second = (
                1 - beta ** (index + 1) if i in which else 1.0 for i, beta in enumerate(group["betas"][:2])
            )
            group["lr"] *= first / second**0.5
            group["eps"] /= second**0.5
        optimizer.step()
        for group, (rate, eps) in zip(optimizer.param_groups, saved, strict=True):
            group["lr"], group["eps"] = rate, eps

    return step


def _decoupled(optimizer: torch.optim.Optimizer, index: int) -> None:
    """A step with weight decay as in AdamW."""
    for group in optimizer.param_groups:
        torch._foreach_mul_([p.data for p in group["params"]], 1 - group["lr"] * group["weight_decay"])
    _with(weight_decay=0.0)(optimizer, index)


def _undecayed(optimizer: torch.optim.Optimizer, _: int) -> None:
    """A step whose weight decay leaves vectors alone."""
    if not any(group.get("vectors") for group in optimizer.param_groups):
        for group in list(optimizer.param_groups):
            vectors = [p for p in group["params"] if p.ndim < 2]
            group["params"] = [p for p in group["params"] if p.ndim >= 2]
            optimizer.param_groups.append({**group, "params": vectors, "weight_decay": 0.0, "vectors": True})
    optimizer.step()


def around(optimizer: torch.optim.Optimizer | None) -> bool:
    """Whether a step does more than the optimizer's class: hooks, or a method put in its place."""
    assert optimizer is not None
    return bool(optimizer._optimizer_step_pre_hooks) or "step" in vars(optimizer)


def as_it_is(optimizer: torch.optim.Optimizer, _: int) -> None:
    """Torch's own step."""
    optimizer.step()


def bare(optimizer: torch.optim.Optimizer, _: int) -> None:
    """The step of the optimizer's class alone."""
    hooks, optimizer._optimizer_step_pre_hooks = optimizer._optimizer_step_pre_hooks, {}
    type(optimizer).step(optimizer)
    optimizer._optimizer_step_pre_hooks = hooks


def clipped(bound: float) -> Stepping:
    """A bare step with gradients cut to a norm."""
    return _cut(torch.nn.utils.clip_grad_norm_, bound)


def _cut(cut: Callable[[list[torch.Tensor], float], Any], bound: float) -> Stepping:
    def step(optimizer: torch.optim.Optimizer, index: int) -> None:
        cut([p for group in optimizer.param_groups for p in group["params"] if p.grad is not None], bound)
        bare(optimizer, index)

    return step


def _each(parameters: list[torch.Tensor], bound: float) -> None:
    for parameter in parameters:
        torch.nn.utils.clip_grad_norm_(parameter, bound)


def _numbers(parameters: list[torch.Tensor], bound: float) -> None:
    torch.nn.utils.clip_grad_value_(parameters, bound)


def scaled(factor: float) -> Stepping:
    """A step at so many times the learning rate."""

    def step(optimizer: torch.optim.Optimizer, _: int) -> None:
        _with_rate(optimizer, factor)

    return step


def _other(name: str, **options: float) -> Stepping:
    """Steps of another optimizer with the same groups, as far as it knows what they say, and ``options``."""
    made: list[torch.optim.Optimizer] = []

    def step(optimizer: torch.optim.Optimizer, index: int) -> None:
        if index == 0:
            kind = getattr(torch.optim, name)
            known = kind([torch.nn.Parameter(torch.zeros(1))]).param_groups[0].keys() & {"lr", "momentum"}
            groups = [
                {"params": group["params"], **{key: group[key] for key in known if key in group}}
                for group in optimizer.param_groups
            ]
            made[:] = [kind(groups, **options)]
        made[0].step()

    return step


def _with_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= factor
    optimizer.step()
    for group in optimizer.param_groups:
        group["lr"] /= factor
