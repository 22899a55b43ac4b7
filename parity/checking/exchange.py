"""What goes in and comes out of a layer that stands on both sides: torch's numbers, in the port's layout."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.utils import _pytree as torch_tree

from parity.arrays import viewed
from parity.checking.alignment import NEAR, Layout, distance, identical, layout_of, layouts, likeliest, paired, placed
from parity.checking.judgement import near_enough
from parity.checking.leaves import flattened, parameter_names, plain, with_paths
from parity.checking.pairing import pairs
from parity.checking.stream import Node

Usual = dict[tuple[int, ...], tuple[int, ...]]
"""The axes in which the port has torch's arrays of a shape."""

Arrival = tuple[str, float, str]
"""What came to a layer otherwise than torch's: the call, how far it is off, and that in words."""


@dataclass(frozen=True)
class Match:
    """An array that came to a layer, and torch's that stands in its place.

    Attributes:
        ours: its place among the leaves of the port's arguments.
        theirs: the place of torch's among its own.
        x: the port's array.
        y: torch's.
        layout: how the port's lies.
        equal: whether they hold the same bits.
    """

    ours: int
    theirs: int
    x: np.ndarray
    y: np.ndarray
    layout: Layout
    equal: bool

    @property
    def as_torchs(self) -> np.ndarray:
        """The port's array in torch's layout and dtype."""
        return self.layout.to_torch(self.x, self.y.shape).astype(self.y.dtype, copy=False)


def matched(
    name: str,
    torch_layer: torch.nn.Module,
    layer: Any,
    ours: tuple[Any, Any],
    theirs: tuple[Any, Any],
    known: Callable[[Any, Any], Layout | None] = lambda x, y: None,
    usual: Usual | None = None,
) -> "Matched":
    """Which of a layer's arguments belong together, how their axes lie, and what arrived otherwise.

    Args:
        name: of the call.
        torch_layer: the layer.
        layer: its twin.
        ours: the port's leaves and their names, as :func:`flattened` gives them.
        theirs: torch's.
        known: the layout in which two leaves are known to hold the same numbers.
        usual: how arrays of torch's shapes lay where their numbers showed it; added to.
    """
    axes: tuple[int, ...] = ()
    arrivals: list[Arrival] = []
    matches: list[Match] = []
    unlike: dict[int, tuple[tuple[int, ...], np.ndarray]] = {}
    names, leaves = parameter_names(layer.__call__, ours[0]), ours[1]
    their_names, their_leaves = parameter_names(torch_layer.forward, theirs[0]), theirs[1]
    given = [j for j, y in enumerate(their_leaves) if isinstance(y, torch.Tensor)]
    places = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array | np.ndarray) and not _is_key(x)]
    arrays, tensors = [np.asarray(leaves[i]) for i in places], [viewed(their_leaves[j]) for j in given]
    both = [names[i] for i in places], [their_names[j] for j in given]
    for i, j in paired(arrays, tensors, lambda a, b: layout_of(a, b) is not None, both):
        x, y = arrays[i], tensors[j]
        if x.dtype == bool or y.dtype == bool:
            continue  # which way round a mask is meant is the port's own business
        layout, off = known(leaves[places[i]], their_leaves[given[j]]), 0.0
        equal = layout is not None or identical(x, y)
        if layout is None:
            layout, off = (layouts(y.shape, x.shape)[0], 0.0) if equal else placed(x, y)
        if layout is not None and usual is not None:
            usual[y.shape] = layout.axes
        layout = layout or likeliest(x, y, (usual or {}).get(y.shape) or _channels_last(layer, y.ndim))
        if layout is None:
            shapes = f"with shape {x.shape}, torch's has {y.shape}"
            arrivals.append((name, np.inf, f"what arrives at {name} comes {shapes}"))
            unlike[places[i]] = x.shape, y
            continue
        axes = axes or layout.axes
        matches.append(Match(places[i], given[j], x, y, layout, equal))
        if equal:
            continue
        arrived = layout.to_torch(x, y.shape)
        if not _same_kind(x.dtype, y.dtype):
            arrivals.append((name, np.inf, f"what arrives at {name} is {x.dtype}, torch's is {y.dtype}"))
        elif not near_enough(arrived, y, off):
            off = min(off, distance(arrived, y))
            arrivals.append((name, off, f"what arrives at {name} is off by {off:.1e}"))
    return Matched(matches, axes, arrivals, unlike)


@dataclass(frozen=True)
class Matched:
    """A layer's arguments beside torch's.

    Attributes:
        matches: those that belong together.
        axes: how the axes of the first lie.
        arrivals: what arrived otherwise.
        unlike: those of another size than torch's, by place: their shape, and torch's array.
    """

    matches: list[Match]
    axes: tuple[int, ...]
    arrivals: list[Arrival]
    unlike: dict[int, tuple[tuple[int, ...], np.ndarray]]


@dataclass(frozen=True)
class Given:
    """What a layer of the port is given in place of what came to it.

    Attributes:
        arguments: the port's, positional and by keyword, with torch's numbers.
        axes: how the axes of the first lie.
        arrivals: what arrived otherwise.
        unlike: what came in another size than torch's, in words.
        rows: whether it is more or fewer rows, and nothing besides; else its axes may be others than torch's.
    """

    arguments: tuple[Any, Any]
    axes: tuple[int, ...]
    arrivals: list[Arrival]
    unlike: str
    rows: bool = True


def fed(
    node: Node, torch_layer: torch.nn.Module, layer: Any, args: Any, kwargs: Any, usual: Usual | None = None
) -> Given:
    """The port's arguments with torch's numbers, in the port's layout if they have one, else the usual one."""
    names, leaves, rebuilt = flattened((args, kwargs))
    theirs = flattened(node.arguments)[:2]
    found = matched(called(node.path, node.call), torch_layer, layer, (names, leaves), theirs, usual=usual)
    unlike = next((sizes(shape, y.shape) for shape, y in found.unlike.values()), "")
    if not unlike and all(match.equal for match in found.matches):
        # Themselves: lists that the layer writes into stay the caller's.
        return Given((args, kwargs), found.axes, found.arrivals, unlike)
    for match in found.matches:
        if not match.equal:
            leaves[match.ours] = jax.device_put(match.layout.from_torch(match.y))
    for place, (_, y) in found.unlike.items():
        leaves[place] = jax.device_put(y)
    rows = all(shape[len(shape) - y.ndim + 1 :] == y.shape[1:] for shape, y in found.unlike.values())
    return Given(rebuilt(leaves), found.axes, found.arrivals, unlike, rows)


def sizes(ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    """Two shapes of different size, in words."""
    if len(ours) == len(theirs) and ours[1:] == theirs[1:]:
        return f"{ours[0]} rows where torch has {theirs[0]}"
    return f"shape {ours} where torch has {theirs}"


@dataclass
class Aligned:
    """A layer's outputs beside torch's.

    Attributes:
        ours: the port's in torch's layout, by torch's names.
        errors: how far they are off, by name.
        layouts: how the port's lie, by place.
        names: torch's names, by place.
        unlike: what is of another size than torch's, in words.
    """

    ours: dict[str, np.ndarray]
    errors: dict[str, float]
    layouts: dict[int, Layout]
    names: dict[int, str]
    unlike: str = ""

    @property
    def layout(self) -> Layout | None:
        """Of the first output."""
        return next(iter(self.layouts.values()), None)

    def certain(self, theirs: dict[str, np.ndarray]) -> Usual:
        """How arrays of torch's shapes lie, where the numbers show it."""
        shown = {i: name for i, name in self.names.items() if self.errors[name] <= NEAR}
        return {theirs[name].shape: self.layouts[i].axes for i, name in shown.items()}

    def forced(self, leaves: list[Any], theirs: dict[str, np.ndarray]) -> list[Any]:
        """Torch's outputs in the places of the port's."""
        return [
            jax.device_put(self.layouts[i].from_torch(theirs[self.names[i]])) if i in self.layouts else x
            for i, x in enumerate(leaves)
        ]


def aligned_outputs(
    leaves: list[Any], theirs: dict[str, np.ndarray], axes: tuple[int, ...], paths: list[str]
) -> Aligned:
    """The port's outputs beside torch's.

    Args:
        leaves: the port's.
        theirs: torch's, by name.
        axes: how the layer's first argument lies.
        paths: the names of the port's.
    """
    names = list(theirs)
    both = paths, [plain(name.removeprefix("output")) for name in names]
    found = Aligned({}, {}, {}, {})
    arrays = [np.asarray(x) for x in leaves]
    for i, j in paired(arrays, list(theirs.values()), lambda a, b: layout_of(a, b) is not None, both):
        x, name = arrays[i], names[j]
        y = theirs[name]
        layout, off = placed(x, y)
        if layout is None:
            # What is wrong does not show its layout; it is likely that of the input.
            layout = min(layouts(y.shape, x.shape), key=lambda layout: layout.axes != axes, default=None)
        if layout is None:
            found.ours[name], found.errors[name] = x, off
            if x.size != y.size:
                found.unlike = found.unlike or sizes(x.shape, y.shape)
            continue
        found.layouts[i], found.names[i] = layout, name
        found.ours[name] = layout.to_torch(x, y.shape)
        found.errors[name] = off if np.isfinite(off) else distance(found.ours[name], y)
    return found


def named_arrays(output: Any) -> dict[str, np.ndarray]:
    """Torch's outputs by name: ``output``, ``output[0]``, ``output['logits']``."""
    if isinstance(output, torch.Tensor):
        return {"output": viewed(output)}
    leaves = with_paths(output)
    return {f"output{torch_tree.keystr(path)}": viewed(x) for path, x in leaves if isinstance(x, torch.Tensor)}


def buffers_of(torch_layer: torch.nn.Module, layer: Any) -> dict[str, np.ndarray]:
    """The port's statistics under torch's names."""
    kept = {name for name, _ in torch_layer.named_buffers(recurse=False)}
    found = pairs(torch_layer, layer)[0] if kept else []
    return {pair.name: pair.ours for pair in found if pair.name in kept and pair.ours.shape == pair.theirs.shape}


def _same_kind(a: np.dtype, b: np.dtype) -> bool:
    return a == b or (a.kind in "iu" and b.kind in "iu")


def _channels_last(layer: Any, rank: int) -> tuple[int, ...] | None:
    """How flax's own layers of images have their inputs, unless told otherwise; nothing is known of others."""
    told = getattr(layer, "axis", -1) not in (-1, rank - 1)
    return (0, *range(2, rank), 1) if isinstance(layer, _CHANNELS_LAST) and not told else None


_CHANNELS_LAST = (nnx.Conv, nnx.ConvTranspose, nnx.BatchNorm, nnx.GroupNorm)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def called(path: str, call: int) -> str:
    """The layer's path, and the call where it is not the first."""
    return path + (f" (call {call + 1})" if call else "")
