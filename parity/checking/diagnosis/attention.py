"""What people get wrong in attention and what stands around it: softmax, embeddings, dropout."""

import itertools
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutated, Mutation
from parity.checking.diagnosis.masks import bands
from parity.checking.diagnosis.mutations import input_of, other, suspects_of


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
        for said, seen in bands(torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()):
            yield "mask", f"the causal mask is off by one: {said}", lambda c, m=seen: _seeing(c, m)

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
    if mask.is_floating_point():
        yield "sign", f"{name} has the other sign", lambda c: c.run(**{name: -c[name]})
        scale = call["scale"] or 1 / math.sqrt(key.shape[-1])
        said = f"{name} is added before the scores are scaled, torch's behind it"
        yield "scale", said, lambda c: c.run(**{name: scale * c[name]})
    if mask.dtype == torch.bool:
        positive = ~mask if call.name == "scaled_dot_product_attention" else mask
    else:
        positive = torch.isneginf(mask)
    if positive.ndim > 1 and positive.shape[-1] == positive.shape[-2]:
        yield "mask", f"{name} is transposed", lambda c: c.run(**{name: c[name].transpose(-1, -2)})
    for said, seen in bands(~positive) if name == "attn_mask" else ():
        yield "mask", said, lambda c, m=seen: _seeing(c, m)
    yield "mask", f"{name} is inverted", lambda c: c.run(**{name: _filled(~positive, LEAST).to(query.dtype)})
    for value in (-1e9, -1e4, -1e3, -1e2, -10.0, -1.0, 0.0, 1.0, LEAST):
        said = f"what is masked gets {value:g}, torch's minus infinity"
        filled = _filled(positive, value)
        yield "masked value", said, lambda c, m=filled: c.run(**{name: m.to(query.dtype)})


def _seeing(call: Call, seen: torch.Tensor) -> Any:
    """The call where each query sees what ``seen`` says; one that sees nothing sees all alike."""
    return call.run(is_causal=False, attn_mask=_filled(~seen, LEAST).to(call["query"].dtype))


def _filled(mask: torch.Tensor, value: float) -> torch.Tensor:
    return torch.zeros(mask.shape).masked_fill(mask, value)


LEAST = float(torch.finfo(torch.float32).min)
"""In rows of which nothing is left it weighs all alike, where minus infinity gives NaN."""


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
                yield "order", f"{said}, those of its bias are not", lambda c, t=turned: c.run(**t)
                turned = turned | {"in_proj_bias": bias.reshape(3, -1)[list(order)].reshape(-1)}
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
    yield from _masks(call, "key_padding_mask", query, key)
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
    yield "heads", f"{said}; in the weights alone", lambda c: c.run(in_proj_weight=weight[rows])
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


@suspects_of("softmax", "log_softmax", "softmin", "glu", "gumbel_softmax")
def _axis(call: Call) -> Iterator[Mutation]:
    x = input_of(call)
    now = call["dim"]
    for dim in range(x.ndim):
        if now is None or dim != now % x.ndim:
            said = f"{call.name} works along axis {dim}, torch's along {now}"
            yield "softmax axis", said, lambda c, d=dim: c.run(dim=d)
    if call.name in ("softmax", "log_softmax"):
        yield "activation", "it takes the sigmoid", lambda c: torch.sigmoid(c["input"])
        twin = torch.log_softmax if call.name == "softmax" else torch.softmax
        yield "activation", f"it takes the {twin.__name__}", lambda c: twin(c["input"], c["dim"])
        for kind in (torch.bfloat16, torch.float16):
            said = f"{call.name} is computed in {str(kind).removeprefix('torch.')}"
            yield "precision", said, lambda c, k=kind: c.run(input=c["input"].to(k)).to(c["input"].dtype)
            yield "precision", said, lambda c, k=kind: _by_hand(c, k)
        flat = lambda c: torch.softmax(c["input"].flatten(1), 1).reshape(c["input"].shape)  # noqa: E731
        yield "softmax axis", "it works along all axes but the first", flat


def _by_hand(call: Call, kind: torch.dtype) -> torch.Tensor:
    """The softmax with every step rounded, not only its result."""
    x = call["input"].to(kind)
    shifted = x - x.amax(call["dim"], keepdim=True)
    total = shifted.exp().sum(call["dim"], keepdim=True)
    return (shifted.exp() / total if call.name == "softmax" else shifted - total.log()).to(call["input"].dtype)


@suspects_of("embedding")
def _embedding(call: Call) -> Iterator[Mutation]:
    weight = call["weight"]
    root = math.sqrt(weight.shape[1])
    yield "scale", "rows are multiplied by the root of their width", lambda c: c.run() * root
    yield "scale", "rows are divided by the root of their width", lambda c: c.run() / root
    for shift in (1, -1):
        said = f"indices are shifted by {shift}"
        yield "index", said, lambda c, s=shift: c.run(input=(c["input"] + s).clamp(0, weight.shape[0] - 1))
    pad = call["padding_idx"]
    if pad is not None:

        def blanked(c: Call) -> Any:
            return c.run().masked_fill((c["input"] == pad)[..., None], 0.0)

        yield "padding", "rows at padding_idx come out as zeros, torch gives the stored row", blanked
    if call["max_norm"] is not None:
        yield "scale", "max_norm is not kept to", lambda c: c.run(max_norm=None)


@suspects_of("embedding_bag")
def _bag(call: Call) -> Iterator[Mutation]:
    plain = call["per_sample_weights"] is None
    yield from other(call, "mode", "pooling", *(("sum", "mean", "max") if plain else ()))
    yield from other(call, "padding_idx", "padding", None)
    yield from other(call, "include_last_offset", "index", not call["include_last_offset"])
    if not plain:
        said = "per_sample_weights are left out"
        yield "missing weight", said, lambda c: c.run(per_sample_weights=None)


@suspects_of("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout")
def _dropout(call: Call) -> Iterator[Mutation]:
    p = call["p"]
    if call["training"]:
        yield "train for eval mode", "the port drops nothing, as in evaluation", lambda c: c["input"]
        said = "what is kept is not divided by 1 - p"
        yield "scale", said, lambda c: c.run() * (1 - p)
        yield "scale", "what is kept is divided by p, not by 1 - p", lambda c: c.run() * ((1 - p) / p if p else 1.0)
    elif p:
        yield "scale", "it scales by 1 - p in evaluation", lambda c: c["input"] * (1 - p)
