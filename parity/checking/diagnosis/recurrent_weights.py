"""Weights of recurrent layers that are used otherwise: in all layers and directions, or in some."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

Weights = list[torch.Tensor]
"""Of one direction of one layer: ``weight_ih``, ``weight_hh``, and the biases where there are any."""

Change = tuple[str, str, Callable[[Weights], Weights]]


def weights_otherwise(
    weights: Sequence[torch.Tensor], each: int, directions: int, gates: str
) -> Iterator[tuple[str, str, Weights]]:
    """The suspect, the mistake in words, and the weights with it.

    Args:
        weights: of all layers and directions, in torch's order.
        each: how many are of one direction of one layer.
        directions: 1 or 2.
        gates: a letter for each gate, in torch's order; empty where there is one alone.
    """
    places = [list(weights[i : i + each]) for i in range(0, len(weights), each)]
    changes = list(_changes(each, gates))
    for where, chosen in _scopes(len(places) // directions, directions):
        for suspect, said, change in changes:
            changed = [change(place) if i in chosen else place for i, place in enumerate(places)]
            yield suspect, said + where, [w for place in changed for w in place]


def _scopes(layers: int, directions: int) -> Iterator[tuple[str, set[int]]]:
    """All places, those of one layer, of one direction, and each."""
    ways = ("forward", "backward")
    places = {(layer, way): layer * directions + way for layer in range(layers) for way in range(directions)}
    yield "", {*places.values()}
    for layer in range(layers) if layers > 1 else ():
        yield f", in layer {layer}", {i for (at, _), i in places.items() if at == layer}
    for way in range(directions) if directions > 1 else ():
        yield f", in the {ways[way]} direction", {i for (_, to), i in places.items() if to == way}
    for (layer, way), i in places.items() if min(layers, directions) > 1 else ():
        yield f", in the {ways[way]} direction of layer {layer}", {i}


def _changes(each: int, gates: str) -> Iterator[Change]:
    for order in list(itertools.permutations(range(len(gates))))[1:]:
        said = f"gates are in the order {', '.join(gates[i] for i in order)}; torch's is {', '.join(gates)}"
        yield "gate order", said, lambda w, o=order: [_by_gates(x, o) for x in w]
    if each > 3:
        for at, word in ((2, "bias_ih"), (3, "bias_hh")):
            yield "missing bias", f"{word} is not added", lambda w, i=at: _with(w, {i: torch.zeros_like(w[i])})
        said = "neither bias is added"
        yield "missing bias", said, lambda w: _with(w, {i: torch.zeros_like(w[i]) for i in (2, 3)})
        yield "swapped weights", "bias_ih and bias_hh are exchanged", lambda w: _with(w, {2: w[3], 3: w[2]})
        for at, word, lost in ((2, "bias_ih", "bias_hh"), (3, "bias_hh", "bias_ih")):
            said = f"{word} is added twice, {lost} not at all"
            yield "swapped weights", said, lambda w, i=at: _with(w, {2: w[i], 3: w[i]})
        for at, word in ((2, "bias_ih"), (3, "bias_hh")) if gates else ():
            for gate, letter in enumerate(gates):
                said = f"{word} is not added in the gate {letter}"
                yield "missing bias", said, lambda w, i=at, g=gate: _with(w, {i: _without(w[i], g, len(gates))})
    of_each = "each gate's part of " if gates else ""
    for at, word in ((1, "weight_hh"), (0, "weight_ih")):
        said = f"{of_each}{word} is transposed"
        yield "transposed weight", said, lambda w, i=at: _with(w, {i: _transposed(w[i], max(len(gates), 1))})
    said = f"{of_each}weight_ih and weight_hh is transposed"
    count = max(len(gates), 1)
    yield "transposed weight", said, lambda w: [_transposed(x, count) if x.ndim > 1 else x for x in w]
    yield "swapped weights", "weight_ih and weight_hh are exchanged", lambda w: _with(w, {0: w[1], 1: w[0]})


def _with(weights: Weights, changed: dict[int, torch.Tensor]) -> Weights:
    return [changed.get(i, w) for i, w in enumerate(weights)]


def _by_gates(weight: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    blocks = weight.chunk(len(order))
    return torch.cat([blocks[i] for i in order]) if weight.shape[0] % len(order) == 0 else weight


def _without(bias: torch.Tensor, gate: int, gates: int) -> torch.Tensor:
    return torch.cat([torch.zeros_like(x) if i == gate else x for i, x in enumerate(bias.chunk(gates))])


def _transposed(weight: torch.Tensor, gates: int) -> torch.Tensor:
    """Each gate's block turned, where it is square."""
    square = weight.shape[0] == gates * weight.shape[1]
    return torch.cat([block.T for block in weight.chunk(gates)]).contiguous() if square else weight
