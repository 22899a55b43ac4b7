"""What people get wrong in how a layer's own code joins the layers in it: left out, turned round, fed with another."""

import copy
from collections.abc import Callable, Iterator
from itertools import chain, combinations, pairwise
from typing import Any

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Experiment, Mutated
from parity.checking.diagnosis.mutations import equal
from parity.checking.diagnosis.visits import Change, Visit, feeding, instead, passing, sources, together, visits_of

Wiring = tuple[str, str, Change]
"""A suspect, the mistake in words, and what to do to a copy of torch's layer so that it makes that mistake."""

AFTER = {"relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": F.gelu, "silu": F.silu}


def mutations(experiment: Experiment) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """Every wiring of the hidden layers of ``experiment`` that is worth a try."""
    visits = visits_of(experiment)
    yield from _norms(experiment, visits)
    yield from _norms_of_branches(experiment, visits)
    # A layer left out is also another operand of the sum behind it: the plainer words come first.
    for suspect, sentence, change in _left_out(experiment, visits_of(experiment, of_torch_alone=True)):
        yield suspect, sentence, lambda c=change: experiment.outputs(change=c)
    yield from _operands(experiment, visits)
    for suspect, sentence, change in chain(
        _turned(visits),
        _appended(visits),
        _rescaled(experiment, visits),
        _exchanged(visits),
        _fed(visits),
    ):
        yield suspect, sentence, lambda c=change: experiment.outputs(change=c)


def _left_out(experiment: Experiment, visits: list[Visit]) -> Iterator[Wiring]:
    """A layer, or all that are of one kind, such as the norms of queries and keys; those the port never calls, too."""
    kinds: dict[type, list[Visit]] = {}
    for visit in visits:
        if 0 in visit.given and visit.given[0].shape == visit.gave.shape:
            kinds.setdefault(type(experiment.layer.get_submodule(visit.path)), []).append(visit)
            said = f"{visit} is not applied: what it gets goes on"
            yield "missing layer", said, instead(visit, lambda v, _: v.given[0])
    for alike in kinds.values():
        if len(alike) > 1:
            said = f"{', '.join(map(str, alike))} are not applied: what they get goes on"
            yield "missing layer", said, together([instead(visit, lambda v, _: v.given[0]) for visit in alike])


def _turned(visits: list[Visit]) -> Iterator[Wiring]:
    """Two layers, one behind the other, in the other order."""
    for first, second in pairwise(visits):
        if first.ends[1] is None or first.ends[1] is not second.ends[0] or first.path == second.path:
            continue

        def change(layer: torch.nn.Module, a: Visit = first, b: Visit = second) -> None:
            one, other = layer.get_submodule(a.path), layer.get_submodule(b.path)
            instead(a, lambda v, _: other.forward(v.given[0]))(layer)
            instead(b, lambda v, _: one.forward(v.given[0]))(layer)

        yield "order of layers", f"{second} comes before {first}, in torch behind it", change


def _appended(visits: list[Visit]) -> Iterator[Wiring]:
    """Something is done to what a layer gives that torch does not do."""
    for visit in visits:
        if not (visit.gave.numel() and visit.gave.is_floating_point()):
            continue
        for name, function in AFTER.items():
            said = f"what {visit} gives is passed through {name}, in torch it is not"
            yield "activation", said, instead(visit, lambda v, _, f=function: f(v.gave))
        if 0 in visit.given and visit.given[0].shape == visit.gave.shape:
            said = f"what {visit} gets is added to what it gives, in torch it is not"
            yield "residual", said, instead(visit, lambda v, _: v.gave + v.given[0])
        for power, word in ((0.5, "multiplied"), (-0.5, "divided")):
            said = f"what {visit} gives is {word} by the root of its width, in torch it is not"
            yield "scale", said, instead(visit, lambda v, _, p=power: v.gave * v.gave.shape[-1] ** p)
        yield "missing layer", f"what {visit} gives is lost: zeros go on", instead(visit, lambda v, _: 0 * v.gave)


def _rescaled(experiment: Experiment, visits: list[Visit]) -> Iterator[Wiring]:
    for visit in visits:
        layer = experiment.layer.get_submodule(visit.path)
        rate = getattr(layer, "p", None)
        if layer.training and isinstance(rate, float) and rate < 1:
            said = f"what {visit} keeps is not divided by 1 - p"
            yield "scale", said, instead(visit, lambda v, _, p=rate: v.gave * (1 - p))


def _norms(experiment: Experiment, visits: list[Visit]) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """Normalization before a branch for behind the sum that ends it, and the reverse; in all branches at once."""
    sums = [c for c in experiment.noted if c.name == "add" and len(c.positional) == 2]
    norms = [v for v in visits if "Norm" in type(experiment.layer.get_submodule(v.path)).__name__ and 0 in v.given]
    behind: Mutated = {}
    moved_back: list[Change] = []
    moved_forth: list[Change] = []
    for visit in norms:
        norm, x = copy.deepcopy(experiment.layer.get_submodule(visit.path)), visit.given[0]
        end = next((c for c in sums if c.index not in behind and any(equal(x, y) for y in c.positional)), None)
        if end is not None:
            behind[end.index] = lambda c, n=norm: n.forward(c.run())
            moved_back.append(instead(visit, lambda v, _: v.given[0]))
        start = next((c for c in sums if equal(torch.add(*c.positional), x)), None)
        fed = [
            (v, i)
            for v in visits[: visits.index(visit)]
            for i, y in v.given.items()
            if start is not None and v not in norms and any(equal(y, z) for z in start.positional)
        ]
        if fed:
            moved_forth += [passing(v, i, norm) for v, i in fed] + [instead(visit, lambda v, _: v.given[0])]
    suspect = "order of normalization"
    if behind:
        said = "it normalizes behind the residual sums (post-norm), torch before the branches (pre-norm)"
        yield suspect, said, lambda: experiment.outputs(behind, together(moved_back))
    if moved_forth:
        said = "it normalizes before the branches (pre-norm), torch behind the residual sums (post-norm)"
        yield suspect, said, lambda: experiment.outputs(change=together(moved_forth))


def _norms_of_branches(
    experiment: Experiment, visits: list[Visit]
) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """``norm(x + branch)`` for ``x + norm(branch)``, and the reverse: of all such norms at once, and of each."""
    sums = [c for c in experiment.noted if c.name == "add" and len(c.positional) == 2]
    outside: list[tuple[Visit, Mutated]] = []
    inside: list[tuple[Visit, Mutated]] = []
    for visit in visits:
        norm = copy.deepcopy(experiment.layer.get_submodule(visit.path))
        if not _normalizes(norm, visit):
            continue
        for call in sums:
            if any(equal(visit.gave, y) for y in call.positional):
                outside.append((visit, {call.index: _normalized(norm, whole=True)}))
            elif equal(torch.add(*call.positional), visit.given[0]):
                inside.append((visit, {call.index: _normalized(norm, whole=False)}))
    for found, said in (
        (outside, "is taken of the whole sum, in torch of the branch alone"),
        (inside, "is taken of the branch alone, in torch of the whole sum"),
    ):
        for some in ([found] if len(found) > 1 else []) + [[one] for one in found]:
            how = {index: mutate for _, mutated in some for index, mutate in mutated.items()}
            without = together([instead(visit, lambda v, _: v.given[0]) for visit, _ in some])
            sentence = f"the normalization {', '.join(str(visit) for visit, _ in some)} {said}"
            yield "order of normalization", sentence, lambda m=how, c=without: experiment.outputs(m, c)


def _normalizes(layer: torch.nn.Module, visit: Visit) -> bool:
    """Whether ten times as much makes no difference to the layer; its name need not say so."""
    if 0 not in visit.given or visit.given[0].shape != visit.gave.shape or not visit.given[0].is_floating_point():
        return False
    try:
        gave = layer.forward(10 * visit.given[0])
    except (TypeError, ValueError, RuntimeError):  # it takes more than that
        return False
    return isinstance(gave, torch.Tensor) and torch.allclose(gave, visit.gave, rtol=1e-2, atol=1e-3)


def _normalized(norm: torch.nn.Module, *, whole: bool) -> Callable[[Call], Any]:
    if whole:
        return lambda call: norm.forward(call.run())
    return lambda call: call.positional[0] + norm.forward(call.positional[1])


def _operands(experiment: Experiment, visits: list[Visit]) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """A sum, product or joint of the layer's own code takes another tensor than torch's."""
    for call in experiment.noted:
        parts = list(call["tensors"] or ()) if call.name in ("cat", "stack") else list(call.positional)
        if call.name not in ("add", "sub", "mul", "matmul", "bmm", "cat", "stack"):
            continue
        for place, part in enumerate(parts):
            tried = [part]
            for name, other in sources([*visits, Visit("", 0)]):
                if not isinstance(part, torch.Tensor) or other.shape != part.shape or other.dtype != part.dtype:
                    continue
                if any(equal(x, other) for x in tried):
                    continue
                tried.append(other)
                changed = [other if i == place else x for i, x in enumerate(parts)]
                said = f"{experiment.place(call)}operand {place + 1} is {name}, in torch another"
                joined = call.name in ("cat", "stack")
                how = {
                    call.index: lambda c, x=changed, j=joined: c.run(tensors=x) if j else c.function(*x, **c.keywords)
                }
                yield "wrong input", said, lambda h=how: experiment.outputs(h)


def _exchanged(visits: list[Visit]) -> Iterator[Wiring]:
    """Two arguments of one layer, or what two layers make of one tensor, in each other's place."""
    for visit in visits:
        for (i, x), (j, y) in combinations(visit.given.items(), 2):
            if x.shape == y.shape and x.dtype == y.dtype:
                said = f"arguments {i + 1} and {j + 1} of {visit} are swapped"
                yield "wrong input", said, together([feeding(visit, i, y), feeding(visit, j, x)])
    for a, b in combinations(visits, 2):
        if a.ends[0] is b.ends[0] is not None and a.gave.shape == b.gave.shape and a.path != b.path:
            swapped = [instead(a, lambda _, __, x=b.gave: x), instead(b, lambda _, __, x=a.gave: x)]
            yield "wrong input", f"what {a} gives and what {b} gives are in each other's place", together(swapped)


def _fed(visits: list[Visit]) -> Iterator[Wiring]:
    """A layer gets another tensor than torch's does: what another of the layers got or gave before it."""
    for i, visit in enumerate(visits):
        for place, given in visit.given.items():
            which = f"argument {place + 1} of {visit}" if len(visit.given) > 1 else f"what {visit} gets"
            for step in (1, -1) if given.dtype in (torch.int32, torch.int64) else ():
                said = f"{which} is off by {step:+d} (an index that starts elsewhere)"
                yield "index", said, passing(visit, place, lambda x, s=step: x + s)
            if place and given.dtype == torch.bool:
                yield "mask", f"{which} is inverted", passing(visit, place, torch.logical_not)
            elif place and given.is_floating_point():
                yield "sign", f"{which} has the other sign", passing(visit, place, torch.neg)
            for axis in (a for a in range(given.ndim) if given.shape[a] > 1):
                said = f"{which} is reversed along axis {axis}, in torch it is not"
                yield "order", said, passing(visit, place, lambda x, a=axis: x.flip(a))
            tried = [given]
            for name, other in sources(visits[: i + 1]):
                if other.shape != given.shape or other.dtype != given.dtype or any(x is other for x in tried):
                    continue
                tried.append(other)
                yield "wrong input", f"{which} is {name}, in torch another", feeding(visit, place, other)
