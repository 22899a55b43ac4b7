"""What people get wrong in attention and in recurrent layers."""

import itertools
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutated, Mutation
from parity.checking.diagnosis.mutations import other, suspects_of

GATES = {"lstm": "ifgo", "gru": "rzn"}


@suspects_of("scaled_dot_product_attention")
def _attention(call: Call) -> Iterator[Mutation]:
    query, key = call["query"], call["key"]
    width = query.shape[-1]
    for said, scale in _scales(width, query.shape[-3] * width if query.ndim > 3 else width):
        yield "scale", said, lambda c, s=scale: c.run(scale=s)
    yield from _masks(call, "attn_mask", query, key)
    if not call["is_causal"] and call["attn_mask"] is None:
        yield "mask", "it is causal, torch's is not", lambda c: c.run(is_causal=True)
    elif call["is_causal"]:
        yield "mask", "it is not causal, torch's is", lambda c: c.run(is_causal=False)

    def over_queries(c: Call) -> torch.Tensor:
        scores = c["query"] @ c["key"].transpose(-1, -2) * (c["scale"] or 1 / math.sqrt(width))
        return torch.softmax(scores + _additive(c["attn_mask"], scores), -2) @ c["value"]

    if not call["is_causal"]:
        yield "softmax axis", "the softmax runs over the queries, torch's over the keys", over_queries
    if query.shape == key.shape:
        said = "query and key are swapped"
        yield "order", said, lambda c: c.run(query=c["key"], key=c["query"])
        yield "order", "key and value are swapped", lambda c: c.run(key=c["value"], value=c["key"])
        yield "order", "query and value are swapped", lambda c: c.run(query=c["value"], value=c["query"])


def _scales(width: int, whole: int) -> Iterator[tuple[str, float]]:
    yield "scores are not divided by the root of the heads' width", 1.0
    yield "scores are divided by the root of all heads' width", 1 / math.sqrt(whole)
    yield "scores are divided by the heads' width, not by its root", 1 / width
    yield "scores are multiplied by the root of the heads' width", math.sqrt(width)


def _masks(call: Call, name: str, query: torch.Tensor, key: torch.Tensor) -> Iterator[Mutation]:
    mask = call[name]
    if mask is None:
        return
    yield "mask", f"{name} is not applied", lambda c: c.run(**{name: None})
    if mask.dtype == torch.bool:
        yield "mask", f"{name} is inverted", lambda c: c.run(**{name: ~c[name]})
        positive = ~mask if call.name == "scaled_dot_product_attention" else mask
    else:
        positive = torch.isneginf(mask)
    for value in (-1e9, -1e4, -1e3, -1e2, -10.0, -1.0, 0.0, 1.0, float(torch.finfo(torch.float32).min)):
        said = f"what is masked gets {value:g}, torch's minus infinity"
        filled = torch.zeros(positive.shape).masked_fill(positive, value)
        yield "masked value", said, lambda c, m=filled: c.run(**{name: m.to(query.dtype)})


@suspects_of("multi_head_attention_forward")
def _heads(call: Call) -> Iterator[Mutation]:
    query, key, value = call["query"], call["key"], call["value"]
    heads, width = call["num_heads"], call["embed_dim_to_check"]
    weight, bias = call["in_proj_weight"], call["in_proj_bias"]
    if bias is not None:
        yield "missing bias", "in_proj_bias is not added", lambda c: c.run(in_proj_bias=torch.zeros_like(bias))
        for i, word in enumerate(("query", "key", "value")):
            part = torch.ones(3, 1).index_fill_(0, torch.tensor([i]), 0.0)
            less = (bias.reshape(3, -1) * part).reshape(-1)
            yield "missing bias", f"the {word}'s bias is not added", lambda c, b=less: c.run(in_proj_bias=b)
    if call["out_proj_bias"] is not None:
        yield "missing bias", "out_proj's bias is not added", lambda c: c.run(out_proj_bias=None)
    out = call["out_proj_weight"]
    yield "transposed weight", "out_proj's weight is transposed", lambda c: c.run(out_proj_weight=out.T)
    if weight is not None:
        parts = weight.reshape(3, width, -1)
        for order in list(itertools.permutations(range(3)))[1:]:
            said = f"the rows of in_proj are in the order {', '.join(['query', 'key', 'value'][i] for i in order)}"
            turned = {"in_proj_weight": parts[list(order)].reshape(weight.shape)}
            if bias is not None:
                turned["in_proj_bias"] = bias.reshape(3, -1)[list(order)].reshape(-1)
            yield "order", said, lambda c, t=turned: c.run(**t)
        if parts.shape[1] == parts.shape[2]:
            flipped = parts.transpose(1, 2).reshape(weight.shape)
            yield "transposed weight", "in_proj's weights are transposed", lambda c: c.run(in_proj_weight=flipped)
            for i, word in enumerate(("query", "key", "value")):
                mixed = torch.stack([p.T if i == j else p for j, p in enumerate(parts)]).reshape(weight.shape)
                said = f"the {word}'s weight is transposed"
                yield "transposed weight", said, lambda c, w=mixed: c.run(in_proj_weight=w)
        for said, scale in _scales(width // heads, width):
            # The scale of the scores is a scale of the queries.
            factor = torch.tensor([scale * math.sqrt(width // heads), 1.0, 1.0])
            scaled = {"in_proj_weight": (parts * factor[:, None, None]).reshape(weight.shape)}
            if bias is not None:
                scaled["in_proj_bias"] = (bias.reshape(3, -1) * factor[:, None]).reshape(-1)
            yield "scale", said, lambda c, s=scaled: c.run(**s)
        yield from _dealt_heads(call, heads, width)
    for count in (n for n in range(1, width + 1) if width % n == 0 and n != heads and n <= 64):
        yield "heads", f"it has {count} heads, torch's {heads}", lambda c, n=count: c.run(num_heads=n)
    yield from _masks(call, "attn_mask", query, key)
    padded = call["key_padding_mask"]
    if padded is not None:
        yield "mask", "key_padding_mask is not applied", lambda c: c.run(key_padding_mask=None)
        if padded.dtype == torch.bool:
            inverse = {"key_padding_mask": ~padded}
            yield "mask", "key_padding_mask is inverted", lambda c: c.run(**inverse)
            for fill in (-1e9, -1e4, -1e3, -1e2, -10.0, -1.0):
                soft = torch.zeros(padded.shape).masked_fill(padded, fill)
                said = f"what is masked gets {fill:g}, torch's minus infinity"
                yield "masked value", said, lambda c, m=soft: c.run(key_padding_mask=m)
    if call["attn_mask"] is None:
        length = (query.shape[0], key.shape[0])
        causal = torch.triu(torch.ones(length, dtype=torch.bool), 1)
        said = "it is causal, torch's is not"
        yield "mask", said, lambda c: c.run(attn_mask=causal, is_causal=False)
    yield "softmax axis", "the softmax runs over the queries, torch's over the keys", _over_queries
    if query.shape == key.shape == value.shape and query.ndim == 3:
        said = "batch and sequence are swapped (batch_first)"
        turn = {"query": query, "key": key, "value": value}
        yield "swapped axes", said, lambda c: _swapped(c.run(**{k: x.transpose(0, 1) for k, x in turn.items()}))


def _dealt_heads(call: Call, heads: int, width: int) -> Iterator[Mutation]:
    """Heads split as (width, heads) where torch has (heads, width)."""
    weight, bias, out = call["in_proj_weight"], call["in_proj_bias"], call["out_proj_weight"]
    order = torch.arange(width).reshape(width // heads, heads).T.reshape(-1)
    rows = torch.cat([order + i * width for i in range(3)])
    changes = {"in_proj_weight": weight[rows], "in_proj_bias": None if bias is None else bias[rows]}
    said = "heads are split off the other way: every how-manyeth column, not a block"
    yield "heads", said, lambda c: c.run(**changes)
    yield "heads", said, lambda c: c.run(**changes, out_proj_weight=out[:, order])
    yield "heads", "heads are joined in the other order", lambda c: c.run(out_proj_weight=out[:, order])


def _over_queries(call: Call) -> Any:
    query, key, value = (call[name] for name in ("query", "key", "value"))
    heads, width = call["num_heads"], call["embed_dim_to_check"]
    bias = call["in_proj_bias"]
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    parts = [F.linear(x, w, b) for x, w, b in zip((query, key, value), call["in_proj_weight"].chunk(3), biases)]  # noqa: B905
    q, k, v = (p.reshape(p.shape[0], -1, heads, width // heads).permute(1, 2, 0, 3) for p in parts)
    weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(width // heads), -2)
    joined = (weights @ v).permute(2, 0, 1, 3).reshape(query.shape)
    output = F.linear(joined, call["out_proj_weight"], call["out_proj_bias"])
    return output, weights.mean(1) if call["need_weights"] else None


def _swapped(result: Any) -> Any:
    output, weights = result
    return output.transpose(0, 1), weights


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
    for order in list(itertools.permutations(range(len(gates))))[1:]:
        said = f"gates are in the order {', '.join(gates[i] for i in order)}; torch's is {', '.join(gates)}"
        turned = [_by_gates(w, order, len(gates)) for w in weights]
        yield "gate order", said, lambda c, w=turned: c.run(weights=w)
    if has_bias:
        for offset, word in ((2, "bias_ih"), (3, "bias_hh")):
            less = [torch.zeros_like(w) if i % each == offset else w for i, w in enumerate(weights)]
            yield "missing bias", f"{word} is not added", lambda c, w=less: c.run(weights=w)
        less = [torch.zeros_like(w) if w.ndim == 1 else w for w in weights]
        yield "missing bias", "neither bias is added", lambda c: c.run(weights=less)
    turned = [w.T.contiguous() if w.ndim == 2 and w.shape[0] == w.shape[1] else w for w in weights]
    if call.name.startswith("rnn"):
        yield "transposed weight", "weight_hh is transposed", lambda c: c.run(weights=turned)
        twin = torch.rnn_relu if call.name == "rnn_tanh" else torch.rnn_tanh
        said = f"its nonlinearity is {'relu' if call.name == 'rnn_tanh' else 'tanh'}"
        yield "activation", said, lambda c: twin(*c.positional)
    elif gates:
        count = len(gates)
        blocks = [
            torch.cat([b.T for b in w.chunk(count)]) if w.ndim == 2 and w.shape[0] == count * w.shape[1] else w
            for w in weights
        ]
        yield "transposed weight", "each gate's matrix is transposed", lambda c: c.run(weights=blocks)
    if bidirectional:
        half = call.run()[0].shape[-1] // 2
        said = "forward and backward halves of the output are swapped"
        yield "order", said, lambda c: _on_output(c, lambda y: torch.cat([y[..., half:], y[..., :half]], -1))
        time = 1 if call["batch_first"] else 0
        said = "the backward half is not turned back in time"
        yield "order", said, lambda c: _on_output(c, lambda y: torch.cat([y[..., :half], y[..., half:].flip(time)], -1))
        exchanged = [weights[i + each] if i // each % 2 == 0 else weights[i - each] for i in range(len(weights))]
        yield "order", "forward and backward weights are swapped", lambda c: c.run(weights=exchanged)
        said = "the backward half runs forward"
        yield "order", said, lambda c: _both_forward(c, each, half)
    else:
        time = 1 if call["batch_first"] else 0
        said = "the sequence runs backward"
        yield "order", said, lambda c: _on_output(c, lambda y: y.flip(time), input=c["input"].flip(time))
    if call["input"].ndim == 3:
        yield from other(call, "batch_first", "swapped axes", not call["batch_first"])
    if call.name == "gru":
        for said, step in (
            ("the reset gate is applied before weight_hh, torch's behind it", _reset_before),
            ("the update gate is the other way round: z new + (1 - z) old", _update_turned),
        ):
            yield "gate order", said, lambda c, s=step: _gru(c, s, each)
    if call.name == "lstm":
        for said, change in LSTM_VARIANTS.items():
            yield "gate", said, lambda c, f=change: _lstm(c, f, each)


LSTM_VARIANTS: dict[str, dict[str, Any]] = {
    "the output is not passed through tanh": {"squash": lambda x: x},
    "the candidate is not passed through tanh": {"candidate": lambda x: x},
    "the candidate is passed through a sigmoid": {"candidate": torch.sigmoid},
    "the forget gate has 1 added": {"forget": lambda x: torch.sigmoid(x + 1)},
    "gates use a hard sigmoid": {"gate": F.hardsigmoid},
    "the forget gate is 1 minus the input gate": {"coupled": True},
}


def _lstm(call: Call, change: dict[str, Any], each: int) -> Any:
    gate = change.get("gate", torch.sigmoid)
    candidate, squash = change.get("candidate", torch.tanh), change.get("squash", torch.tanh)

    def step(x: torch.Tensor, h: Any, w: list[torch.Tensor]) -> Any:
        old, cell = h
        i, f, g, o = (
            F.linear(x, w[0], w[2] if each > 3 else None) + F.linear(old, w[1], w[3] if each > 3 else None)
        ).chunk(4, -1)
        i, f = gate(i), change.get("forget", gate)(f)
        f = 1 - i if change.get("coupled") else f
        cell = f * cell + i * candidate(g)
        return gate(o) * squash(cell), cell

    return _unrolled(call, step, each, 2)


def _gru(call: Call, step: Any, each: int) -> Any:
    return _unrolled(call, lambda x, h, w: (step(x, h[0], w),), each, 1)


def _gru_gates(x: torch.Tensor, h: torch.Tensor, w: list[torch.Tensor]) -> Any:
    a, b = F.linear(x, w[0], w[2] if len(w) > 3 else None), F.linear(h, w[1], w[3] if len(w) > 3 else None)
    (ar, az, an), (br, bz, bn) = a.chunk(3, -1), b.chunk(3, -1)
    return torch.sigmoid(ar + br), torch.sigmoid(az + bz), an, bn


def _reset_before(x: torch.Tensor, h: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
    r, z, an, _ = _gru_gates(x, h, w)
    inner = F.linear(r * h, w[1].chunk(3)[2], w[3].chunk(3)[2] if len(w) > 3 else None)
    return (1 - z) * torch.tanh(an + inner) + z * h


def _update_turned(x: torch.Tensor, h: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
    r, z, an, bn = _gru_gates(x, h, w)
    return z * torch.tanh(an + r * bn) + (1 - z) * h


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


def _both_forward(call: Call, each: int, half: int) -> Any:
    time = 1 if call["batch_first"] else 0
    straight = call.run()
    turned = call.run(input=call["input"].flip(time))
    y = torch.cat([straight[0][..., :half], turned[0][..., half:].flip(time)], -1)
    del each
    return (y, *straight[1:])


def _on_output(call: Call, change: Any, **changes: Any) -> Any:
    result = call.run(**changes)
    return (change(result[0]), *result[1:])


def _by_gates(weight: torch.Tensor, order: tuple[int, ...], gates: int) -> torch.Tensor:
    blocks = weight.chunk(gates)
    return torch.cat([blocks[i] for i in order]) if weight.shape[0] % gates == 0 else weight


def _additive(mask: torch.Tensor | None, scores: torch.Tensor) -> torch.Tensor:
    if mask is None:
        return torch.zeros((), dtype=scores.dtype)
    return torch.zeros(mask.shape).masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else mask


def masked_late(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """A mask put on behind the softmax, so that what is left no longer sums to one."""
    for mask, softmax in pairwise(c for c in calls if c.name in ("masked_fill", "softmax")):
        if (mask.name, softmax.name) == ("masked_fill", "softmax") and mask["mask"] is not None:
            kept = ~mask["mask"]
            how = {mask.index: lambda c: c["input"], softmax.index: lambda c, k=kept: c.run() * k}
            yield "mask", "the mask is applied behind the softmax, torch's before it", how
