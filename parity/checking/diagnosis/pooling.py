"""What people get wrong in pooling and resampling."""

import math
from collections.abc import Iterator

import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutation
from parity.checking.diagnosis.convolution import as_tuple, flat_pads
from parity.checking.diagnosis.mutations import other, suspects_of


@suspects_of(
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_max_pool1d", "_max_pool2d",
    "_max_pool3d", "lp_pool1d", "lp_pool2d",
)  # fmt: skip
def _pooling(call: Call) -> Iterator[Mutation]:
    rank = int(call.name[-2])
    x = call["input"]
    kernel = as_tuple(call["kernel_size"], rank)
    padding = as_tuple(call["padding"] or 0, rank)
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
            yield "padding", said, lambda c, p=pad: c.run(input=F.pad(c["input"], flat_pads(p), value=fill), padding=0)
    if not average and any(padding):
        both = flat_pads([(p, p) for p in padding])
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
