"""Calls of the layers within a layer: what each got and gave, and how to have it get or give another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from parity.checking.diagnosis.calls import Experiment

Change = Callable[[torch.nn.Module], None]
"""What is done to a copy of a layer."""

MOST = 64
"""The inputs and outputs of so many calls are kept at a time."""

NOTHING = torch.empty(0)


@dataclass(eq=False)
class Visit:
    """One call of a layer within the layer at fault.

    Attributes:
        path: relative to that layer.
        call: which of its calls.
        given: copies of its positional tensors by place, from before the call, which may write into them.
        gave: a copy of the first tensor it returned; empty if it returned none.
        ends: the first of either themselves, to see which layer feeds which.
    """

    path: str
    call: int
    given: dict[int, torch.Tensor] = field(default_factory=dict)
    gave: torch.Tensor = NOTHING
    ends: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return self.path + (f" (call {self.call + 1})" if self.call else "")


def visits_of(experiment: Experiment, *, of_torch_alone: bool = False) -> list[Visit]:
    """The calls of the outermost hidden layers, in order of their return; none where they are more than ``MOST``.

    Args:
        of_torch_alone: those of the other layers, too, which the port does not have or does not call.
    """
    visits: list[Visit] = []
    paths = list(experiment.hidden)
    if of_torch_alone:
        whole = [path for path, _ in experiment.layer.named_modules() if path]
        paths += [p for p in whole if not any(f"{hidden}.".startswith(f"{p}.") for hidden in experiment.hidden)]
    outermost = [p for p in paths if not any(p.startswith(f"{other}.") for other in paths)]
    if len(outermost) > MOST:
        return []

    def noted(visit: Visit, _: torch.nn.Module, output: Any) -> Any:
        if len(visits) <= MOST:
            visits.append(visit)
        return output

    def note(layer: torch.nn.Module) -> None:
        for path in outermost:
            _on_calls(layer, path, noted)

    experiment.outputs(change=note)
    return visits if len(visits) <= MOST else []


def _on_calls(layer: torch.nn.Module, path: str, then: Callable[[Visit, torch.nn.Module, Any], Any]) -> None:
    """What every call of the layer at ``path`` returns is what ``then`` makes of it."""
    begun: list[Visit] = []
    count = 0

    def before(_: torch.nn.Module, args: Any) -> None:
        nonlocal count
        given = {i: _copy(x) for i, x in enumerate(args) if isinstance(x, torch.Tensor)}
        begun.append(Visit(path, count, given, ends=[args[0] if args else None]))
        count += 1

    def behind(module: torch.nn.Module, _: Any, output: Any) -> Any:
        visit, first = begun.pop(), _first(output)
        visit.gave = visit.gave if first is None else _copy(first)
        visit.ends.append(first)
        return then(visit, module, output)

    layer.get_submodule(path).register_forward_pre_hook(before)
    layer.get_submodule(path).register_forward_hook(behind)


def _copy(x: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunction():  # the copy is no call of the layer's, whose calls are counted
        return x.clone()


def instead(here: Visit, make: Callable[[Visit, torch.nn.Module], torch.Tensor]) -> Change:
    """At one call, ``make`` gives the tensor that the layer returns."""

    def change(layer: torch.nn.Module) -> None:
        def then(visit: Visit, module: torch.nn.Module, output: Any) -> Any:
            return _with_first(output, make(visit, module)) if visit.call == here.call else output

        _on_calls(layer, here.path, then)

    return change


def together(changes: list[Change]) -> Change:
    """All of these."""

    def change(layer: torch.nn.Module) -> None:
        for each in changes:
            each(layer)

    return change


def sources(visits: list[Visit]) -> Iterator[tuple[str, torch.Tensor]]:
    """What calls before the last one's return got and gave, and that in words."""
    for visit in visits:
        yield from ((f"what {visit} {'gets' if i == 0 else 'gets too'}", x) for i, x in visit.given.items())
        if visit is not visits[-1]:
            yield f"what {visit} gives", visit.gave


def feeding(here: Visit, place: int, tensor: torch.Tensor) -> Change:
    """At one call, an argument is ``tensor``."""
    return passing(here, place, lambda _: tensor)


def passing(here: Visit, place: int, make: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """At one call, an argument is what ``make`` makes of it."""

    def change(layer: torch.nn.Module) -> None:
        count = -1

        def hook(_: torch.nn.Module, args: Any) -> Any:
            nonlocal count
            count += 1
            return tuple(make(x) if i == place and count == here.call else x for i, x in enumerate(args))

        layer.get_submodule(here.path).register_forward_pre_hook(hook)

    return change


def _first(output: Any) -> torch.Tensor | None:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, torch.Tensor) else None


def _with_first(output: Any, tensor: torch.Tensor) -> Any:
    """``output`` with ``tensor`` for the first of it."""
    if not isinstance(output, tuple | list):
        return tensor
    return type(output)((_with_first(output[0], tensor), *output[1:]))
