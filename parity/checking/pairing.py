"""Which array of a port stands for which of torch's: by name, by names of one meaning, by shape."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.nn.modules.conv import _ConvTransposeNd

from parity.arrays import to_numpy, viewed
from parity.checking.alignment import Layout, layout_of, layouts
from parity.checking.compound import ALL, Rows, parts
from parity.checking.stacking import stacked_paths
from parity.checking.tree import children, jax_layers

SYNONYMS = {
    "kernel": "weight", "scale": "weight", "gamma": "weight", "w": "weight", "embedding": "weight", "g": "weight",
    "beta": "bias", "b": "bias", "mean": "running_mean", "var": "running_var", "moving_mean": "running_mean",
    "moving_var": "running_var", "offset": "bias",
}  # fmt: skip


@dataclass
class Slot:
    """A place in the port that holds an array, or one entry of an array that holds those of several layers."""

    owner: Any
    name: str
    entry: int | None = None

    def get(self) -> Any:
        """What stands there."""
        return self._whole() if self.entry is None else self._whole()[self.entry]

    def set(self, value: np.ndarray) -> None:
        """Put ``value`` there, in the dtype of what stands there."""
        here, whole = getattr(self.owner, self.name), self._whole()
        array = jax.device_put(np.array(value, whole.dtype))  # a copy: torch may write into what it views
        if self.entry is not None:
            array = jnp.asarray(whole).at[self.entry].set(array)
        if isinstance(here, nnx.Variable):
            here.set_value(array)
        else:
            object.__setattr__(self.owner, self.name, array)

    def _whole(self) -> Any:
        value = getattr(self.owner, self.name)
        return value.get_value() if isinstance(value, nnx.Variable) else value


@dataclass
class Pair:
    """An array of the port and the checkpoint's that it stands for.

    Attributes:
        name: torch's.
        slot: where the port keeps it.
        ours: its value.
        theirs: torch's.
        layout: how the port lays it out.
        rows: those of torch's that it stands for; ``theirs`` are these.
        whole: the shape of all of torch's.
    """

    name: str
    slot: Slot
    ours: np.ndarray
    theirs: np.ndarray
    layout: Layout
    rows: Rows = ALL
    whole: tuple[int, ...] = ()


def pairs(torch_layer: torch.nn.Module, jax_layer: Any, entry: int | None = None) -> tuple[list[Pair], list[str]]:
    """The arrays directly in a layer, torch's and the port's of the same role; and torch's names without one.

    Equal names belong together, then names of one meaning (``kernel`` and ``weight``), then equal shapes. Of a port
    that holds several layers stacked, those of one ``entry`` are taken.
    """
    theirs = {
        name: viewed(x)
        for name, x in (*torch_layer.named_parameters(recurse=False), *torch_layer.named_buffers(recurse=False))
    }
    if not theirs:
        return [], []
    slots = {name: Slot(jax_layer, name, entry) for name, value in _members(jax_layer) if _is_array(value)}
    found: list[Pair] = []
    free = dict(slots)

    def take(name: str, key: str) -> None:
        ours, value = np.asarray(free[key].get()), theirs[name]
        options = layouts(value.shape, ours.shape)
        if not options:
            return
        # Classes that are not of flax show theirs by the numbers.
        spatial = tuple(range(2, value.ndim)) if isinstance(torch_layer, _ConvTransposeNd) else ()
        turned = [replace(o, reversed=spatial) for o in options] if spatial else []
        usual = _of_flax(torch_layer, jax_layer, value.ndim) if key == "kernel" else (tuple(range(value.ndim)), ())
        known = [o for o in (*options, *turned) if (o.axes, o.reversed) == usual]
        certain = key == name or (key == "kernel" and type(jax_layer).__module__.startswith("flax."))
        if certain and known:
            layout = known[0]
        else:
            shown = next((o for o in turned if np.array_equal(ours, o.from_torch(value))), None)
            layout = layout_of(ours, value) or shown or (known or options)[0]
        found.append(Pair(name, free.pop(key), ours, value, layout))

    for rule in (
        lambda name, key: name == key,
        lambda name, key: SYNONYMS.get(key.lower(), key.lower()) == name,
        lambda name, key: name in key.lower() or key.lower() in name,
        lambda name, key: theirs[name].shape == np.shape(free[key].get()),
    ):
        for name in theirs:
            if any(pair.name == name for pair in found):
                continue
            key = next((key for key in free if rule(name, key)), None)
            if key is not None:
                take(name, key)
    named = {pair.name for pair in found}
    return found, [name for name in theirs if name not in named and theirs[name].ndim]


def _of_flax(torch_layer: torch.nn.Module, jax_layer: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of a kernel of flax, and those that are reversed: spatial axes come first, outputs last."""
    spatial = tuple(range(2, rank))
    if not isinstance(torch_layer, _ConvTransposeNd) or getattr(jax_layer, "transpose_kernel", False):
        return (*spatial, 1, 0), ()
    return (*spatial, 0, 1), spatial


def _members(layer: Any) -> Iterator[tuple[str, Any]]:
    members = getattr(layer, "__dict__", {})  # a bound method has none
    yield from ((name, value) for name, value in members.items() if not name.startswith("_"))


def _is_array(value: Any) -> bool:
    if isinstance(value, nnx.Variable):
        value = value.get_value()
    return isinstance(value, jax.Array | np.ndarray) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def aliases(torch_module: torch.nn.Module, jax_module: Any, layer_pairs: dict[str, str]) -> dict[str, Pair]:
    """Every array of the port that has a twin, by its dotted path in the port; the pair's name is torch's path.

    Args:
        torch_module: the reference.
        jax_module: its port.
        layer_pairs: from the path of a layer in JAX to that of its twin in torch.
    """
    found = {}
    modules, layers = dict(torch_module.named_modules()), {"": jax_module} | dict(jax_layers(jax_module))
    for path in layer_pairs:
        layer = layers[path]
        for pair in pairs(modules[layer_pairs[path]], layer)[0]:
            name, theirs = pair.slot.name, layer_pairs[path]
            pair.name = f"{theirs}.{pair.name}".lstrip(".")
            found[f"{path}.{name}".lstrip(".")] = pair
        for key, pair in _compound(modules[layer_pairs[path]], layer):
            pair.name = f"{layer_pairs[path]}.{pair.name}".lstrip(".")
            found.setdefault(f"{path}.{key}".lstrip("."), pair)
    for path, stacked in stacked_paths(torch_module, layers).items():
        for i, theirs in enumerate(stacked):
            for pair in pairs(modules[theirs], layers[path], i)[0]:
                pair.name = f"{theirs}.{pair.name}"
                found[_entry_of(f"{path}.{pair.slot.name}", i)] = pair
    lacking = {*torch_module.state_dict(keep_vars=True)} - {pair.name for pair in found.values()}
    for path, slot in _in_containers(jax_module):
        if path in lacking and path not in found:
            ours, value = np.asarray(slot.get()), to_numpy(torch_module.state_dict()[path])
            if ours.shape == value.shape:
                found[path] = Pair(path, slot, ours, value, Layout(tuple(range(ours.ndim)), ours.shape))
    return found


def _compound(torch_layer: torch.nn.Module, jax_layer: Any) -> Iterator[tuple[str, Pair]]:
    """Arrays of flax's layers that are parts of torch's, by the way to them."""
    for name, way, owner, key, rows, layout in parts(torch_layer, jax_layer):
        theirs = torch_layer.state_dict().get(name)
        if theirs is not None and theirs[rows].numel() == np.prod(layout.shape):
            value, slot = viewed(theirs), Slot(owner, key)
            yield f"{way}.{key}", Pair(name, slot, np.asarray(slot.get()), value[rows], layout, rows, value.shape)


def tied_otherwise(torch_module: torch.nn.Module, twins: dict[str, Pair]) -> dict[str, str]:
    """By torch's name: parameters that are one on one side and two on the other, and that in words."""
    theirs = torch_module.state_dict(keep_vars=True)
    slots = {pair.name: pair.slot for pair in twins.values() if pair.name in theirs and pair.rows == ALL}
    in_torch = {name: (id(theirs[name]), None) for name in slots}
    in_port = {name: (id(getattr(slot.owner, slot.name)), slot.entry) for name, slot in slots.items()}
    found: dict[str, str] = {}
    for one, other, said in (
        (in_torch, in_port, "are one parameter in torch, two in the port"),
        (in_port, in_torch, "are one parameter in the port, two in torch"),
    ):
        first: dict[tuple[int, int | None], str] = {}
        for name, key in one.items():
            twin = first.setdefault(key, name)
            if other[twin] != other[name]:
                found[twin] = found[name] = f"{twin} and {name} {said}"
    return found


def _in_containers(module: Any) -> Iterator[tuple[str, Slot]]:
    """The arrays in lists and dicts of parameters, which are no layers, by dotted path."""
    seen: set[int] = set()

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Slot]]:
        if id(node) in seen:
            return
        seen.add(id(node))
        for name, child in children(node):
            if isinstance(child, nnx.List | nnx.Dict):
                yield from ((f"{prefix}{name}.{key}", Slot(child, key)) for key, x in _members(child) if _is_array(x))
            yield from walk(child, f"{prefix}{name}.")

    yield from walk(module, "")


@contextmanager
def standing_for(twins: dict[str, Pair], torch_module: Any) -> Iterator[None]:
    """Within it the port has the parameters of ``torch_module``, those that are laid out somehow."""
    theirs = dict(torch_module.named_parameters(remove_duplicate=False)) if twins else {}
    moved = [pair for pair in twins.values() if pair.name in theirs and pair.ours.size == pair.theirs.size]
    for pair in moved:
        pair.slot.set(pair.layout.from_torch(to_numpy(theirs[pair.name])[pair.rows]))
    try:
        yield
    finally:
        for pair in moved:
            pair.slot.set(pair.ours)


def under_torchs(arrays: dict[str, np.ndarray], twins: dict[str, Pair]) -> dict[str, np.ndarray]:
    """The port's arrays that have a twin, under torch's names and in torch's layout, parts put together."""
    found: dict[str, np.ndarray] = {}
    places: dict[str, int] = {}
    for name, x in arrays.items():
        entries = {_entry_of(name, i): x[i] for i in range(len(x))} if x.ndim and _entry_of(name, 0) in twins else {}
        for key, value in ({name: x} | entries).items():
            if key in twins:
                pair = twins[key]
                same = value.size == pair.theirs.size
                value = pair.layout.to_torch(value, pair.theirs.shape) if same else value
                if pair.rows != ALL and same:
                    whole = found.setdefault(pair.name, np.zeros(pair.whole, value.dtype))
                    whole[pair.rows] = value
                    places[pair.name] = places.get(pair.name, 0) + value.size
                else:
                    found[pair.name] = value
    return {name: x for name, x in found.items() if places.get(name, x.size) == x.size}


def _entry_of(name: str, index: int) -> str:
    return f"{name}[{index}]"
