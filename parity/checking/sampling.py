"""Layers cleared by a truth of a few numbers.

The truth of a wide layer in float64 costs more than the layer does on both sides. Where every number that a layer gives
is a sum of products of its own, a few show how large torch's rounding is: those at some places and channels chosen at
random, and at those that differ most. What differs from torch by less, in all the others, needs no more truth: by the
triangle inequality the whole truth would clear it too.
"""

import math
from typing import Any

import numpy as np
import torch

from parity.arrays import to_numpy
from parity.checking.evaluation import TorchSide
from parity.comparison import largest, sum_of_squares

FEW = 32
"""Places chosen at random, and as many of the worst, where there are eight times as many. Channels too."""

SAFETY = 1.5
"""How many times larger the sample's root mean square error may be than that of all: among errors that are alike
hundreds give it to a few hundredths."""


def explained_by_sample(side: TorchSide, outputs: dict[str, np.ndarray], factor: float) -> float | None:
    """The relative error that torch's own explains, where a sample shows that all numbers are within it; else None.

    None says nothing against the layer: it has to be held against the whole truth.

    Args:
        side: torch's layer alone.
        outputs: the port's, in torch's layout, by torch's names.
        factor: how many times the error that rounding explains passes.
    """
    layer: Any = side.subject
    args, kwargs = side.call
    single = side.single.outputs
    if type(layer) not in _BY_PLACES or _altered(layer) or kwargs or len(args) != 1 or set(single) != {"output"}:
        return None
    ours, theirs, x = outputs.get("output"), single["output"], args[0]
    inner = _BY_PLACES[type(layer)]
    if ours is None or ours.shape != theirs.shape or not ours.dtype == theirs.dtype == np.float32 or x.ndim <= inner:
        return None
    if inner > 1 and layer.padding_mode != "zeros":
        return None
    # Examples, channels, and places within an example.
    channels = theirs.shape[-inner]
    shape = (math.prod(theirs.shape[:-inner]), channels, math.prod(theirs.shape[1 - inner :]) if inner > 1 else 1)
    ours, theirs = ours.reshape(shape), theirs.reshape(shape)
    places = shape[0] * shape[2]
    if places < 8 * FEW and channels < 8 * FEW:
        return None
    difference = ours - theirs
    size, off = _size(theirs), _size(difference)
    distances = np.abs(difference)
    chosen = _chosen(distances.max(axis=1).ravel())
    examples, within = np.unravel_index(chosen, (shape[0], shape[2]))
    taken = _chosen(distances.max(axis=(0, 2)))
    where = examples[:, None], taken, within[:, None]
    with torch.no_grad():
        truth = to_numpy(_truth(layer, x.flatten(0, -2) if inner == 1 else x, examples, within, taken))
    sampled = theirs[where]
    torchs, jaxs = sampled - truth, ours[where] - truth
    # Places larger than the others have larger errors.
    at_random = tuple(slice(FEW if len(each) == 2 * FEW else None) for each in (chosen, taken))
    typical = _size(torchs[at_random]) * min(1.0, size / (_size(sampled[at_random]) or 1.0)) / SAFETY
    distances[where] = 0.0
    at_worst = largest(torchs)
    explained = (
        off <= (factor - 1) * typical  # written so that NaN says no
        and distances.max() <= (factor - 1) * at_worst
        and largest(jaxs) <= factor * at_worst
    )
    return (factor * typical / size if size else 0.0) if explained else None


def _chosen(distances: np.ndarray) -> np.ndarray:
    """Some at random, then those furthest off; all where they are few."""
    if len(distances) < 8 * FEW:
        return np.arange(len(distances))
    some = np.random.default_rng(0).choice(len(distances), FEW, replace=False)
    return np.concatenate([some, np.argpartition(distances, len(distances) - FEW)[-FEW:]])


def _truth(layer: Any, x: torch.Tensor, examples: np.ndarray, within: np.ndarray, channels: np.ndarray) -> torch.Tensor:
    """The layer's outputs in float64 at some places of some examples, in some channels."""
    weight = layer.weight[channels].double()
    if isinstance(layer, torch.nn.Linear):
        seen = x[examples].double()[:, None]
    else:
        seen = _windows(layer, x, examples, within)  # place, group, channel in it, kernel
        seen = seen[:, channels // (layer.out_channels // layer.groups)] if layer.groups > 1 else seen
    seen, weight = seen.flatten(2), weight.flatten(1)
    found = torch.einsum("pck,ck->pc", seen, weight) if seen.shape[1] > 1 else seen[:, 0] @ weight.T
    return found if layer.bias is None else found + layer.bias[channels].double()


def _windows(layer: Any, x: torch.Tensor, examples: np.ndarray, within: np.ndarray) -> torch.Tensor:
    """What a convolution sees at some places, zeros beyond the border."""
    rank = len(layer.kernel_size)
    if isinstance(layer.padding, str):
        padding = np.reshape(layer._reversed_padding_repeated_twice[::-1], (rank, 2))  # behind, before
    else:
        padding = np.repeat(layer.padding, 2).reshape(rank, 2)
    spread = np.multiply(layer.dilation, np.subtract(layer.kernel_size, 1))
    sizes = (np.array(x.shape[2:]) + padding.sum(1) - spread - 1) // layer.stride + 1
    index: list[Any] = [torch.from_numpy(examples).reshape(-1, *[1] * rank)]
    inside = torch.ones((), dtype=torch.bool)
    for axis, place in enumerate(np.unravel_index(within, tuple(sizes))):
        steps = torch.arange(layer.kernel_size[axis]) * layer.dilation[axis]
        at = torch.from_numpy(place)[:, None] * layer.stride[axis] - padding[axis, 1] + steps
        at = at.reshape(-1, *[at.shape[1] if i == axis else 1 for i in range(rank)])
        inside = inside & (at >= 0) & (at < x.shape[2 + axis])
        index.append(at.clamp(0, x.shape[2 + axis] - 1))
    seen = x.movedim(1, -1)[tuple(index)].double() * inside[..., None]
    return seen.movedim(-1, 1).unflatten(1, (layer.groups, -1))


def _size(x: np.ndarray) -> float:
    return math.sqrt(sum_of_squares(x) / x.size)


def _altered(layer: Any) -> bool:
    """Whether the layer does something besides what its class says."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))


_BY_PLACES = {torch.nn.Linear: 1, torch.nn.Conv1d: 2, torch.nn.Conv2d: 3, torch.nn.Conv3d: 4}
"""Layers whose outputs are sums of products of their own, and how many axes an example has."""
