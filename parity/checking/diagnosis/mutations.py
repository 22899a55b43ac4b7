"""What people get wrong in each torch function: the usual suspects, as other ways to do a call."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutation

Suspects = Callable[[Call], Iterator[Mutation]]
REGISTRY: dict[str, list[Suspects]] = {}
EPSILONS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def suspects_of(*names: str) -> Callable[[Suspects], Suspects]:
    """Register what can be wrong with calls of these functions."""

    def register(function: Suspects) -> Suspects:
        for name in names:
            REGISTRY.setdefault(name, []).append(function)
        return function

    return register


def mutations(call: Call) -> Iterator[Mutation]:
    """Every other way to do ``call`` that is worth a try."""
    for function in REGISTRY.get(call.name, []):
        yield from function(call)


def other(call: Call, name: str, suspect: str, *values: Any) -> Iterator[Mutation]:
    """The call with each of ``values`` for one argument."""
    for value in values:
        if not _same(value, call[name]):
            said = f"{name} is as if {_shown(value)}, torch's is {_shown(call[name])}"
            yield suspect, said, lambda c, v=value: c.run(**{name: v})


@suspects_of("layer_norm", "group_norm", "batch_norm", "instance_norm", "rms_norm", "normalize", "cosine_similarity")
def _epsilon(call: Call) -> Iterator[Mutation]:
    yield from other(call, "eps", "epsilon", *EPSILONS)


@suspects_of("layer_norm", "group_norm", "batch_norm", "instance_norm", "rms_norm")
def _affine(call: Call) -> Iterator[Mutation]:
    weight, bias = call["weight"], call["bias"]
    yield "missing layer", f"{call.name} is not applied", lambda c: c["input"]
    if weight is not None and bias is not None:
        yield "swapped gamma and beta", "weight and bias are swapped", lambda c: c.run(weight=bias, bias=weight)
    if bias is not None:
        yield "missing bias", "bias is not added", lambda c: c.run(bias=None)
    if weight is not None:
        yield "missing scale", "weight is not multiplied by", lambda c: c.run(weight=None)
        plus = {"weight": weight + 1}
        yield "scale offset by one", "weight is used as 1 + weight", lambda c: c.run(**plus)
        yield "scale offset by one", "weight is used as weight - 1", lambda c: c.run(weight=weight - 1)


@suspects_of("layer_norm", "rms_norm")
def _other_norm(call: Call) -> Iterator[Mutation]:
    x, eps = call["input"], call["eps"]
    rank = len(call["normalized_shape"])
    axes = tuple(range(-rank, 0))

    def affine(y: torch.Tensor) -> torch.Tensor:
        y = y * call["weight"] if call["weight"] is not None else y
        return y + call["bias"] if call["bias"] is not None else y

    def normed(x: torch.Tensor, axes: tuple[int, ...], correction: int = 0, *, inside: bool = True) -> torch.Tensor:
        centred = x - x.mean(axes, keepdim=True)
        variance = x.var(axes, correction=correction, keepdim=True)
        return centred * torch.rsqrt(variance + eps) if inside else centred / (variance.sqrt() + eps)

    if call.name == "rms_norm":
        yield "normalization", "the mean is taken off, as in layer norm", lambda c: affine(normed(c["input"], axes))
        return
    yield (
        "biased or unbiased variance",
        "the variance is divided by n - 1, torch's by n",
        lambda c: affine(normed(c["input"], axes, 1)),
    )
    yield (
        "epsilon",
        "epsilon is added to the deviation, not to the variance",
        lambda c: affine(normed(c["input"], axes, inside=False)),
    )
    yield (
        "normalization",
        "the mean is not taken off (root mean square norm)",
        lambda c: affine(c["input"] * torch.rsqrt(c["input"].square().mean(axes, keepdim=True) + eps)),
    )
    for axis in range(x.ndim):
        if (axis - x.ndim,) != axes:
            yield (
                "normalized axis",
                f"it normalizes over axis {axis}",
                lambda c, a=axis: affine(normed(c["input"], (a,))),
            )
    yield (
        "normalized axis",
        "it normalizes over all axes but the first",
        lambda c: affine(normed(c["input"], tuple(range(1, c["input"].ndim)))),
    )


@suspects_of("batch_norm", "instance_norm")
def _batch_statistics(call: Call) -> Iterator[Mutation]:
    x, eps = call["input"], call["eps"]
    axes = (0, *range(2, x.ndim))
    flag = "training" if call.name == "batch_norm" else "use_input_stats"
    now = bool(call[flag])
    if call["running_mean"] is not None or now:
        kept = {k: None if call[k] is None else call[k].clone() for k in ("running_mean", "running_var")}
        words = ("training", "evaluation") if now else ("evaluation", "training")
        said = f"torch's layer is in {words[0]} mode, the port's works as in {words[1]} mode"
        if kept["running_mean"] is not None:
            yield "train for eval mode", said, lambda c: c.run(**{flag: not now}, **kept)

    def shaped(v: torch.Tensor) -> torch.Tensor:
        return v.reshape(1, -1, *[1] * (x.ndim - 2))

    def affine(y: torch.Tensor) -> torch.Tensor:
        y = y * shaped(call["weight"]) if call["weight"] is not None else y
        return y + shaped(call["bias"]) if call["bias"] is not None else y

    if now and call.name == "batch_norm":

        def normed(x: torch.Tensor, axes: tuple[int, ...], correction: int) -> torch.Tensor:
            centred = x - x.mean(axes, keepdim=True)
            return affine(centred * torch.rsqrt(x.var(axes, correction=correction, keepdim=True) + eps))

        said = "it divides by the unbiased variance (n - 1), torch by the biased one (n)"
        yield "biased or unbiased variance", said, lambda c: normed(c["input"], axes, 1)
        if x.ndim > 2:
            yield "normalized axis", "it normalizes each sample by itself", lambda c: normed(c["input"], axes[1:], 0)
            yield "normalized axis", "it normalizes over the batch alone", lambda c: normed(c["input"], (0,), 0)
    elif call["running_var"] is not None:
        mean, var = shaped(call["running_mean"]), shaped(call["running_var"])
        said = "epsilon is added to the deviation, not to the variance"
        yield "epsilon", said, lambda c: affine((c["input"] - mean) / (var.sqrt() + eps))
        yield (
            "biased or unbiased variance",
            "it divides by the variance, not by its root",
            lambda c: affine((c["input"] - mean) / (var + eps)),
        )
        said = "running_var is taken for a standard deviation"
        yield "running statistics", said, lambda c: affine((c["input"] - mean) / var)
        said = "running_mean and running_var are swapped"
        yield "running statistics", said, lambda c: affine((c["input"] - var) * torch.rsqrt(mean.abs() + eps))
        yield (
            "running statistics",
            "running_mean is not taken off",
            lambda c: affine(c["input"] * torch.rsqrt(var + eps)),
        )


@suspects_of("group_norm")
def _groups(call: Call) -> Iterator[Mutation]:
    x, groups = call["input"], call["num_groups"]
    channels = x.shape[1]
    yield from other(call, "num_groups", "groups", *(g for g in range(1, channels + 1) if channels % g == 0))

    def normed(x: torch.Tensor, correction: int, *, strided: bool = False) -> torch.Tensor:
        shape = [1, -1] + [1] * (x.ndim - 2)
        parts = (
            x.reshape(x.shape[0], channels // groups, groups, -1).transpose(1, 2)
            if strided
            else x.reshape(x.shape[0], groups, channels // groups, -1)
        )
        mean = parts.mean((2, 3), keepdim=True)
        y = (parts - mean) * torch.rsqrt(parts.var((2, 3), correction=correction, keepdim=True) + call["eps"])
        y = (y.transpose(1, 2) if strided else y).reshape(x.shape)
        y = y * call["weight"].reshape(shape) if call["weight"] is not None else y
        return y + call["bias"].reshape(shape) if call["bias"] is not None else y

    said = "the variance is divided by n - 1, torch's by n"
    yield "biased or unbiased variance", said, lambda c: normed(c["input"], 1)
    yield "groups", "channels are dealt to the groups in turn", lambda c: normed(c["input"], 0, strided=True)


@suspects_of("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _weights(call: Call) -> Iterator[Mutation]:
    weight, bias = call["weight"], call["bias"]
    if bias is not None:
        yield "missing bias", "bias is not added", lambda c: c.run(bias=None)
        yield "scaled bias", "bias is added twice", lambda c: c.run(bias=2 * bias)
        yield "scaled bias", "bias is subtracted", lambda c: c.run(bias=-bias)
    if weight.shape[0] == weight.shape[1]:
        said = "weight is transposed (its first two axes are swapped)"
        yield "transposed weight", said, lambda c: c.run(weight=weight.transpose(0, 1))
    else:
        turned = weight.transpose(0, 1).reshape(weight.shape)
        said = "weight is reshaped where it should be transposed"
        yield "transposed weight", said, lambda c: c.run(weight=turned)
    spatial = tuple(range(2, weight.ndim))
    if spatial:
        said = "weight is flipped in its spatial axes (convolution for correlation)"
        yield "flipped weight", said, lambda c: c.run(weight=weight.flip(spatial))
        for axis in spatial if len(spatial) > 1 else ():
            said = f"weight is flipped along axis {axis}"
            yield "flipped weight", said, lambda c, a=axis: c.run(weight=weight.flip((a,)))
    if len(spatial) > 1 and weight.shape[-1] == weight.shape[-2]:
        said = "weight is transposed in its last two axes (height and width)"
        yield "transposed weight", said, lambda c: c.run(weight=weight.transpose(-1, -2))
        both = weight.transpose(0, 1) if weight.shape[0] == weight.shape[1] else None
        if both is not None:
            said = "weight is transposed and flipped"
            yield "transposed weight", said, lambda c: c.run(weight=both.flip(spatial))


@suspects_of("conv1d", "conv2d", "conv3d")
def _convolution(call: Call) -> Iterator[Mutation]:
    x, weight = call["input"], call["weight"]
    rank = weight.ndim - 2
    padding = _tuple(call["padding"], rank) if not isinstance(call["padding"], str) else None
    if padding is None:
        yield "padding", "padding is missing", lambda c: c.run(padding=0)
        return
    strides, dilation = _tuple(call["stride"] or 1, rank), _tuple(call["dilation"] or 1, rank)
    if any(padding):
        yield "padding", "padding is missing", lambda c: c.run(padding=0)
    total = [2 * p for p in padding]
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    size = x.shape[-rank:]
    same = [max(0, (math.ceil(n / s) - 1) * s + r + 1 - n) for n, s, r in zip(size, strides, reach, strict=True)]
    amounts: list[tuple[str, list[tuple[int, int]]]] = [
        ("padding is one-sided: all of it behind", [(0, t) for t in total]),
        ("padding is one-sided: all of it in front", [(t, 0) for t in total]),
        ("padding is one-sided: only behind", [(0, p) for p in padding]),
        ("padding is one-sided: only in front", [(p, 0) for p in padding]),
        ("padding is as in SAME: the odd element behind", [(s // 2, s - s // 2) for s in same]),
        ("padding is as in SAME: the odd element in front", [(s - s // 2, s // 2) for s in same]),
        ("padding is causal: all in front", [(r, 0) for r in reach]),
        ("padding is the kernel's whole reach", [(r, r) for r in reach]),
    ]
    amounts += [(f"padding is as if {p}, torch's is {padding}", [(p, p)] * rank) for p in range(1, 5)]
    for said, pads in amounts:
        if pads != [(p, p) for p in padding]:
            yield "padding", said, lambda c, pads=pads: c.run(input=F.pad(c["input"], _flat(pads)), padding=0)
    if any(padding):
        for mode in ("reflect", "replicate", "circular"):
            flat = _flat([(p, p) for p in padding])
            said = f"padding is of mode {mode}, torch's of zeros"
            yield "padding mode", said, lambda c, m=mode, p=flat: c.run(input=F.pad(c["input"], p, mode=m), padding=0)
    yield from other(call, "stride", "stride", *(n for n in (1, 2, 3, 4) if (n,) * rank != strides))
    for n in range(1, 9):
        if (n,) * rank == dilation:
            continue
        yield from other(call, "dilation", "dilation", n)
        # With it, the padding that keeps the size: as torch's is split, or all in front where torch pads outside.
        total_now = [2 * p + n * (k - 1) - r for p, k, r in zip(padding, weight.shape[2:], reach, strict=True)]
        if all(t >= 0 for t in total_now):
            flat = _flat([(t // 2, t - t // 2) for t in total_now])
            said = f"dilation is as if {n} (with padding to match), torch's is {dilation}"
            yield "dilation", said, lambda c, n=n, p=flat: c.run(input=F.pad(c["input"], p), padding=0, dilation=n)
    groups = call["groups"] or 1
    if groups > 1:
        said = "the groups' channels are dealt in turn, not in blocks"
        order = torch.arange(x.shape[1]).reshape(groups, -1).T.reshape(-1)
        yield "groups", said, lambda c: c.run(input=c["input"][:, order])
        out = torch.arange(weight.shape[0]).reshape(groups, -1).T.reshape(-1)
        yield "groups", "the groups' output channels are dealt in turn", lambda c: c.run()[:, out]


@suspects_of("pad")
def _pad(call: Call) -> Iterator[Mutation]:
    pads = list(call["pad"])
    yield "padding", "padding is missing", lambda c: c["input"]
    pairs = list(zip(pads[::2], pads[1::2], strict=True))
    front, behind = [x for a, b in pairs for x in (a + b, 0)], [x for a, b in pairs for x in (0, a + b)]
    yield from other(call, "pad", "padding", front, behind, [x for a, b in pairs for x in (b, a)])
    yield from other(call, "mode", "padding mode", "constant", "reflect", "replicate", "circular")
    if call["mode"] == "constant":
        yield from other(call, "value", "padding", 0.0, -math.inf, 1.0)


@suspects_of("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed(call: Call) -> Iterator[Mutation]:
    rank = call["weight"].ndim - 2
    yield from other(
        call, "padding", "padding", *(p for p in range(4) if _tuple(call["padding"] or 0, rank) != (p,) * rank)
    )
    yield from other(call, "stride", "stride", 1, 2, 3)
    behind = tuple(range(-rank, 0))
    for shift in (1, -1):
        said = f"the output is shifted by {shift}: padding is one-sided"
        yield "padding", said, lambda c, s=shift: torch.roll(c.run(), (s,) * rank, behind)


@suspects_of(
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_max_pool1d", "_max_pool2d",
    "_max_pool3d", "lp_pool1d", "lp_pool2d",
)  # fmt: skip
def _pooling(call: Call) -> Iterator[Mutation]:
    rank = int(call.name[-2])
    x = call["input"]
    kernel = _tuple(call["kernel_size"], rank)
    padding = _tuple(call["padding"] or 0, rank)
    average = call.name.startswith("avg")
    if average:
        yield from other(call, "count_include_pad", "count_include_pad", call["count_include_pad"] is False)
        if rank > 1:
            yield from other(call, "divisor_override", "divisor", 1)
    yield from other(call, "ceil_mode", "ceil_mode", not call["ceil_mode"])
    yield from other(call, "stride", "stride", 1, 2, 3, kernel)
    fill = 0.0 if average else -math.inf
    pads = {
        "padding is missing": [(0, 0)] * rank,
        "padding is one-sided: all of it behind": [(0, 2 * p) for p in padding],
        "padding is one-sided: all of it in front": [(2 * p, 0) for p in padding],
        "padding is one-sided: only behind": [(0, p) for p in padding],
        "padding is one-sided: only in front": [(p, 0) for p in padding],
        "padding is as in SAME: the odd element behind": [((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel],
    }
    for said, pad in pads.items():
        if pad != [(p, p) for p in padding]:
            yield "padding", said, lambda c, p=pad: c.run(input=F.pad(c["input"], _flat(p), value=fill), padding=0)
    if not average and any(padding):
        both = _flat([(p, p) for p in padding])
        said = "padding is with zeros, torch's with minus infinity"
        yield "masked value", said, lambda c: c.run(input=F.pad(c["input"], both), padding=0)
    own = getattr(F, call.name.lstrip("_"))
    twin = getattr(F, f"max_pool{rank}d" if average else f"avg_pool{rank}d")
    if own is not twin and not call.name.startswith("lp"):
        said = "it takes the maximum, torch the mean" if average else "it takes the mean, torch the maximum"
        options = {"stride": call["stride"] or kernel, "padding": padding, "ceil_mode": bool(call["ceil_mode"])}
        for counted in (True, False) if not average and any(padding) else (True,):
            also = {} if average else {"count_include_pad": counted}
            yield "pooling", said, lambda c, a=also: twin(c["input"], kernel, **options, **a)
    del x


@suspects_of("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive(call: Call) -> Iterator[Mutation]:
    rank = int(call.name[-2])
    maximum = getattr(F, f"adaptive_max_pool{rank}d")
    yield "pooling", "it takes the maximum, torch the mean", lambda c: maximum(c["input"], c["output_size"])
    axes = tuple(range(-rank, 0))
    yield (
        "divisor",
        "it takes the sum, torch the mean",
        lambda c: c.run() * math.prod(c["input"].shape[a] for a in axes),
    )


@suspects_of("interpolate", "upsample", "grid_sample", "affine_grid")
def _resampling(call: Call) -> Iterator[Mutation]:
    now = bool(call["align_corners"])
    if call["mode"] in ("linear", "bilinear", "bicubic", "trilinear") or call.name != "interpolate":
        yield from other(call, "align_corners", "align_corners", not now)
    if call.name == "interpolate":
        for mode in ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"):
            for corners in (None,) if "near" in mode or mode == "area" else (False, True):
                if mode != call["mode"]:
                    aligned = " with align_corners" if corners else ""
                    said = f"mode is as if {mode!r}{aligned}, torch's is {call['mode']!r}"
                    yield "interpolation", said, lambda c, m=mode, a=corners: c.run(mode=m, align_corners=a)
        yield from other(call, "antialias", "interpolation", not call["antialias"])
    if call.name == "grid_sample":
        yield from other(call, "mode", "interpolation", "bilinear", "nearest", "bicubic")
        yield from other(call, "padding_mode", "padding mode", "zeros", "border", "reflection")
        yield "swapped axes", "x and y of the grid are swapped", lambda c: c.run(grid=c["grid"].flip(-1))


@suspects_of("softmax", "log_softmax", "softmin", "glu", "gumbel_softmax")
def _axis(call: Call) -> Iterator[Mutation]:
    x = call["input"]
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


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(value) * (rank if len(value) == 1 else 1) if isinstance(value, tuple | list) else (value,) * rank


def _flat(pads: list[tuple[int, int]]) -> list[int]:
    return [x for pair in reversed(pads) for x in pair]


def _same(a: Any, b: Any) -> bool:
    a, b = (tuple(x) if isinstance(x, list) else x for x in (a, b))
    return type(a) is type(b) and a == b


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
