"""What people get wrong in recurrent layers and their cells."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutation
from parity.checking.diagnosis.mutations import other, suspects_of
from parity.checking.diagnosis.recurrent_weights import weights_otherwise

GATES = {"lstm": "ifgo", "gru": "rzn"}


@suspects_of("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(call: Call) -> Iterator[Mutation]:
    weights, bidirectional = list(call["weights"]), call["bidirectional"]
    has_bias = call["bias"]
    if not isinstance(call["input"], torch.Tensor) or isinstance(call["bias"], list):
        return
    each = 4 if has_bias else 2
    if any(w.ndim == 2 for w in weights[2:each]):
        each += 1
    gates = GATES.get(call.name, "")
    directions = 2 if bidirectional else 1
    for suspect, said, other_weights in weights_otherwise(weights, each, directions, gates):
        yield suspect, said, lambda c, w=other_weights: c.run(weights=w)
    if call.name.startswith("rnn"):
        twin = torch.rnn_relu if call.name == "rnn_tanh" else torch.rnn_tanh
        said = f"its nonlinearity is {'relu' if call.name == 'rnn_tanh' else 'tanh'}"
        yield "activation", said, lambda c: twin(*c.positional)
    if bidirectional:
        exchanged = [weights[i + each] if i // each % 2 == 0 else weights[i - each] for i in range(len(weights))]
        yield "order", "forward and backward weights are swapped", lambda c: c.run(weights=exchanged)
        yield from _directions(call, each)
    else:
        time = 1 if call["batch_first"] else 0
        said = "the sequence runs backward"
        yield "order", said, lambda c: _on_output(c, lambda y: y.flip(time), input=c["input"].flip(time))
    if call["input"].ndim == 3:
        yield from other(call, "batch_first", "swapped axes", not call["batch_first"])
    yield from _initial(call)
    for suspect, said, step in _steps(call.name):
        yield suspect, said, lambda c, s=step: _unrolled(c, s, each, 1 if c.name == "gru" else 2)


@suspects_of("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def _cell(call: Call) -> Iterator[Mutation]:
    kind = call.name.removesuffix("_cell")
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    gates = GATES.get(kind, "")
    given = {name: call[name] for name in names if call[name] is not None}
    for suspect, said, other_weights in weights_otherwise([*given.values()], len(given), 1, gates):
        yield suspect, said, lambda c, w=other_weights: c.run(**dict(zip(given, w, strict=True)))
    yield from _initial(call)
    if kind.startswith("rnn"):
        twin = torch.rnn_relu_cell if kind == "rnn_tanh" else torch.rnn_tanh_cell
        said = f"its nonlinearity is {'relu' if kind == 'rnn_tanh' else 'tanh'}"
        yield "activation", said, lambda c: twin(*c.positional)
    for suspect, said, step in _steps(kind):

        def stepped(c: Call, step: Step = step) -> Any:
            state = c["hx"] if kind == "lstm" else (c["hx"],)
            found = step(c["input"], state, list(given.values()))
            return found if kind == "lstm" else found[0]

        yield suspect, said, stepped


def _initial(call: Call) -> Iterator[Mutation]:
    """Other states to begin with."""
    given = call["hx"]
    states = tuple(given) if isinstance(given, tuple | list) else (given,)
    names = ("the hidden state", "the cell state") if len(states) > 1 else ("the state",)

    def begun(*changed: torch.Tensor) -> Callable[[Call], Any]:
        return lambda c: c.run(hx=changed if isinstance(given, tuple | list) else changed[0])

    for i, name in enumerate(names):
        for word, other_state in (("zeros", torch.zeros_like), ("ones", torch.ones_like)):
            value = other_state(states[i])
            if not torch.equal(value, states[i]):
                changed = (*states[:i], value, *states[i + 1 :])
                yield "initial state", f"{name} begins with {word}, torch's does not", begun(*changed)
    if len(states) > 1 and not torch.equal(*states):
        yield "initial state", "the hidden and the cell state are exchanged", begun(*states[::-1])


Step = Callable[[torch.Tensor, Any, list[torch.Tensor]], tuple[torch.Tensor, ...]]
"""A cell: input, states and weights to the next states."""


def _steps(kind: str) -> Iterator[tuple[str, str, Step]]:
    """Cells that are not torch's."""
    if kind == "gru":
        for said, candidate in (("relu", torch.relu), ("a sigmoid", torch.sigmoid), ("nothing", lambda x: x)):
            shown = f"the candidate is passed through {said}, torch's through tanh"
            yield "gate", shown, lambda x, h, w, f=candidate: (_gru(x, h[0], w, candidate=f),)
        said = "the reset gate is applied before weight_hh, torch's behind it"
        yield "gate order", said, lambda x, h, w: (_gru(x, h[0], w, reset_before=True),)
        said = "the candidate's bias_hh is added outside the reset gate, as if both biases were one sum"
        yield "gate order", said, lambda x, h, w: (_gru(x, h[0], w, bias_outside=True),)
        said = "the candidate's bias_ih is added inside the reset gate"
        yield "gate order", said, lambda x, h, w: (_gru(x, h[0], w, bias_inside=True),)
        said = "the update gate is the other way round: z new + (1 - z) old"
        yield "gate order", said, lambda x, h, w: (_gru(x, h[0], w, turned=True),)
    if kind == "lstm":
        for said, change in LSTM_VARIANTS.items():
            yield "gate", said, lambda x, h, w, f=change: _lstm(x, h, w, f)


LSTM_VARIANTS: dict[str, dict[str, Any]] = {
    "the output is not passed through tanh": {"squash": lambda x: x},
    "the candidate is not passed through tanh": {"candidate": lambda x: x},
    "the candidate is passed through a sigmoid": {"candidate": torch.sigmoid},
    "the forget gate has 1 added": {"forget": lambda x: torch.sigmoid(x + 1)},
    "gates use a hard sigmoid": {"gate": F.hardsigmoid},
    "the forget gate is 1 minus the input gate": {"coupled": True},
}


def _lstm(x: torch.Tensor, h: Any, w: list[torch.Tensor], change: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    gate = change.get("gate", torch.sigmoid)
    candidate, squash = change.get("candidate", torch.tanh), change.get("squash", torch.tanh)
    old, cell = h
    i, f, g, o = (a + b for a, b in zip(*_preactivations(x, old, w, 4), strict=True))
    i, f = gate(i), change.get("forget", gate)(f)
    f = 1 - i if change.get("coupled") else f
    cell = f * cell + i * candidate(g)
    return gate(o) * squash(cell), cell


def _gru(
    x: torch.Tensor,
    h: torch.Tensor,
    w: list[torch.Tensor],
    *,
    candidate: Callable[[torch.Tensor], torch.Tensor] = torch.tanh,
    reset_before: bool = False,
    turned: bool = False,
    bias_outside: bool = False,
    bias_inside: bool = False,
) -> torch.Tensor:
    (ar, az, an), (br, bz, bn) = _preactivations(x, h, w, 3)
    r, z = torch.sigmoid(ar + br), torch.sigmoid(az + bz)
    own = F.linear(r * h, w[1].chunk(3)[2], w[3].chunk(3)[2] if len(w) > 3 else None)
    inner = own if reset_before else r * bn
    z = 1 - z if turned else z
    if bias_outside and len(w) > 3:
        inner = inner + (1 - r) * w[3].chunk(3)[2]
    if bias_inside and len(w) > 3:
        inner = inner + (r - 1) * w[2].chunk(3)[2]
    return (1 - z) * candidate(an + inner) + z * h


def _preactivations(x: torch.Tensor, h: torch.Tensor, w: list[torch.Tensor], gates: int) -> Any:
    """What each gate gets from the input, and what from the state."""
    from_input = F.linear(x, w[0], w[2] if len(w) > 3 else None)
    return from_input.chunk(gates, -1), F.linear(h, w[1], w[3] if len(w) > 3 else None).chunk(gates, -1)


def _unrolled(call: Call, step: Any, each: int, states: int) -> Any:
    """The recurrent layer step by step, with another cell."""
    weights, x = list(call["weights"]), call["input"]
    time_first = x.transpose(0, 1) if call["batch_first"] and x.ndim == 3 else x
    directions = 2 if call["bidirectional"] else 1
    initial = call["hx"] if isinstance(call["hx"], tuple | list) else (call["hx"],)
    finals: list[list[torch.Tensor]] = [[] for _ in range(states)]
    for layer in range(len(weights) // (each * directions)):
        outs = []
        for direction in range(directions):
            place = layer * directions + direction
            w = weights[place * each : (place + 1) * each]
            h = tuple(s[place] for s in initial)
            ys = []
            for t in reversed(range(len(time_first))) if direction else range(len(time_first)):
                h = step(time_first[t], h, w)
                ys.append(h[0])
            outs.append(torch.stack(ys[::-1] if direction else ys))
            for kept, s in zip(finals, h, strict=True):
                kept.append(s)
        time_first = torch.cat(outs, -1)
    y = time_first.transpose(0, 1) if call["batch_first"] and x.ndim == 3 else time_first
    return (y, *(torch.stack(kept) for kept in finals))


def _directions(call: Call, each: int) -> Iterator[Mutation]:
    """What goes wrong where two directions are run by hand."""
    half = call.run()[0].shape[-1] // 2
    said = "forward and backward halves of the output are swapped"
    yield "order", said, lambda c: _on_output(c, lambda y: torch.cat([y[..., half:], y[..., :half]], -1))
    time = 1 if call["batch_first"] else 0
    said = "the backward half of the output is not turned back in time"
    yield "order", said, lambda c: _on_output(c, lambda y: torch.cat([y[..., :half], y[..., half:].flip(time)], -1))
    for said, how in (
        ("the backward direction is not turned back in time", {"back": False}),
        ("the backward direction runs forward", {"runs_back": False, "back": False}),
        ("the backward direction runs forward, and is turned back in time", {"runs_back": False}),
        ("what the directions give is joined in the other order in every layer", {"ways": (1, 0)}),
        ("the forward half alone goes on, twice", {"ways": (0, 0)}),
        ("the backward half alone goes on, twice", {"ways": (1, 1)}),
    ):
        yield "order", said, lambda c, h=how: _layer_by_layer(c, each, **h)


def _layer_by_layer(
    call: Call, each: int, *, runs_back: bool = True, back: bool = True, ways: tuple[int, int] = (0, 1)
) -> Any:
    """A recurrent layer of two directions, each direction of each of its layers by itself.

    Args:
        call: the whole.
        each: how many weights one has.
        runs_back: whether the second direction begins at the end.
        back: whether what it gives is turned back.
        ways: which directions' results go on, in order.
    """
    if call["dropout"] and call["training"]:
        raise ValueError("what is dropped between layers is drawn within the whole")
    weights, x, given = list(call["weights"]), call["input"], call["hx"]
    time = 1 if call["batch_first"] and x.ndim == 3 else 0
    states = tuple(given) if isinstance(given, tuple | list) else (given,)
    finals = []
    for layer in range(len(weights) // (2 * each)):
        outs = []
        for way in (0, 1):
            place = 2 * layer + way
            own = [s[place : place + 1] for s in states]
            y, *last = call.run(
                input=x.flip(time) if way and runs_back else x,
                hx=own if isinstance(given, tuple | list) else own[0],
                weights=weights[place * each : (place + 1) * each],
                num_layers=1,
                bidirectional=False,
            )
            outs.append(y.flip(time) if way and back else y)
            finals.append(last)
        x = torch.cat([outs[way] for way in ways], -1)
    return (x, *(torch.cat(of_one) for of_one in zip(*finals, strict=True)))


def _on_output(call: Call, change: Any, **changes: Any) -> Any:
    result = call.run(**changes)
    return (change(result[0]), *result[1:])
