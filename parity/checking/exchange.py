"""What goes in and comes out of a layer that stands on both sides: torch's numbers, in the port's layout."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as torch_tree

from parity.arrays import viewed
from parity.checking.alignment import Layout, distance, identical, layout_of, layouts, paired, placed
from parity.checking.judgement import near_enough
from parity.checking.leaves import flattened, parameter_names, plain
from parity.checking.pairing import pairs
from parity.checking.stream import Node

Arrival = tuple[str, float, str]
"""What came to a layer otherwise than torch's: the layer's path, how far it is off, and that in words."""


def fed(
    node: Node, torch_layer: torch.nn.Module, layer: Any, args: Any, kwargs: Any
) -> tuple[Any, Any, tuple[int, ...], list[Arrival]]:
    """The port's arguments with torch's numbers, how their axes lie, and what arrived otherwise."""
    axes: tuple[int, ...] = ()
    arrivals: list[Arrival] = []
    names, leaves, rebuilt = flattened((args, kwargs))
    names = parameter_names(layer.__call__, names)
    their_names, their_leaves, _ = flattened(node.arguments)
    their_names = parameter_names(torch_layer.forward, their_names)
    given = [(name, viewed(x)) for name, x in zip(their_names, their_leaves, strict=True) if _is_tensor(x)]
    theirs = [y for _, y in given]
    places = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array | np.ndarray) and not _is_key(x)]
    ours = [np.asarray(leaves[i]) for i in places]
    both = [names[i] for i in places], [name for name, _ in given]
    for i, j in paired(ours, theirs, lambda a, b: layout_of(a, b) is not None, both):
        x, y = ours[i], theirs[j]
        if x.dtype == bool or y.dtype == bool:
            continue  # which way round a mask is meant is the port's own business
        if identical(x, y):
            axes = axes or tuple(range(x.ndim))
            continue
        layout, off = placed(x, y)
        layout = layout or next(iter(layouts(y.shape, x.shape)), None)
        if layout is None:
            shapes = f"with shape {x.shape}, torch's has {y.shape}"
            arrivals.append((node.path, np.inf, f"what arrives at {named(node)} comes {shapes}"))
            continue
        axes = axes or layout.axes
        arrived = layout.to_torch(x, y.shape)
        if not _same_kind(x.dtype, y.dtype):
            said = f"what arrives at {named(node)} is {x.dtype}, torch's is {y.dtype}"
            arrivals.append((node.path, np.inf, said))
        elif not near_enough(arrived, y, off):
            off = min(off, distance(arrived, y))
            arrivals.append((node.path, off, f"what arrives at {named(node)} is off by {off:.1e}"))
        leaves[places[i]] = jax.device_put(layout.from_torch(y))
    return *rebuilt(leaves), axes, arrivals


def aligned_outputs(
    leaves: list[Any], theirs: dict[str, np.ndarray], axes: tuple[int, ...], paths: list[str]
) -> tuple[dict[str, np.ndarray], list[Any], Layout | None, dict[str, float]]:
    """The port's outputs in torch's layout by name, torch's in the port's in their places, the first's layout, and
    by name how far they are off."""
    first: Layout | None = None
    names, forced = list(theirs), list(leaves)
    both = paths, [plain(name.removeprefix("output")) for name in names]
    ours: dict[str, np.ndarray] = {}
    errors: dict[str, float] = {}
    arrays = [np.asarray(x) for x in leaves]
    for i, j in paired(arrays, list(theirs.values()), lambda a, b: layout_of(a, b) is not None, both):
        x, y = arrays[i], theirs[names[j]]
        layout, off = placed(x, y)
        if layout is None:
            # What is wrong does not show its layout; it is likely that of the input.
            layout = min(layouts(y.shape, x.shape), key=lambda layout: layout.axes != axes, default=None)
        if layout is None:
            ours[names[j]], errors[names[j]] = x, off
            continue
        first = first or layout
        ours[names[j]] = layout.to_torch(x, y.shape)
        errors[names[j]] = off if np.isfinite(off) else distance(ours[names[j]], y)
        forced[i] = jax.device_put(layout.from_torch(y))
    return ours, forced, first, errors


def named_arrays(output: Any) -> dict[str, np.ndarray]:
    """Torch's outputs by name: ``output``, ``output[0]``, ``output['logits']``."""
    leaves, _ = torch_tree.tree_flatten_with_path(output)
    return {f"output{torch_tree.keystr(path)}": viewed(x) for path, x in leaves if isinstance(x, torch.Tensor)}


def buffers_of(torch_layer: torch.nn.Module, layer: Any) -> dict[str, np.ndarray]:
    """The port's statistics under torch's names."""
    kept = {name for name, _ in torch_layer.named_buffers(recurse=False)}
    found = pairs(torch_layer, layer)[0] if kept else []
    return {pair.name: pair.ours for pair in found if pair.name in kept and pair.ours.shape == pair.theirs.shape}


def _same_kind(a: np.dtype, b: np.dtype) -> bool:
    return a == b or (a.kind in "iu" and b.kind in "iu")


def _is_tensor(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def named(node: Node) -> str:
    """The layer's path, and the call where it is not the first."""
    return node.path + (f" (call {node.call + 1})" if node.call else "")
