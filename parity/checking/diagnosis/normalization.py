"""What people get wrong in normalization."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutation
from parity.checking.diagnosis.mutations import other, suspects_of

EPSILONS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


@suspects_of("layer_norm", "group_norm", "batch_norm", "instance_norm", "rms_norm", "normalize", "cosine_similarity")
def _epsilon(call: Call) -> Iterator[Mutation]:
    yield from other(call, "eps", "epsilon", *EPSILONS)


@suspects_of("normalize")
def _unit(call: Call) -> Iterator[Mutation]:
    yield "missing layer", "normalize is not applied", lambda c: c["input"]
    rank = call["input"].ndim
    yield from other(call, "dim", "axis", *(axis for axis in range(rank) if axis != call["dim"] % rank))
    yield from other(call, "p", "norm", 1.0, 2.0, math.inf)


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

    if now:

        def normed(x: torch.Tensor, axes: tuple[int, ...], correction: int) -> torch.Tensor:
            centred = x - x.mean(axes, keepdim=True)
            return affine(centred * torch.rsqrt(x.var(axes, correction=correction, keepdim=True) + eps))

        said = "it divides by the unbiased variance (n - 1), torch by the biased one (n)"
        own = axes if call.name == "batch_norm" else axes[1:]
        yield "biased or unbiased variance", said, lambda c: normed(c["input"], own, 1)
        if call.name == "instance_norm":
            said = "it normalizes over the batch too"
            yield "normalized axis", said, lambda c: normed(c["input"], axes, 0)
            said = "it normalizes over the channels too"
            yield "normalized axis", said, lambda c: normed(c["input"], (1, *axes[1:]), 0)
            for count in (g for g in range(2, x.shape[1]) if x.shape[1] % g == 0):
                said = f"it normalizes {count} groups of channels together (group norm), torch each channel by itself"
                yield "groups", said, lambda c, g=count: F.group_norm(c["input"], g, call["weight"], call["bias"], eps)
        elif x.ndim > 2:
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
