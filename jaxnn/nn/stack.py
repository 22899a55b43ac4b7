"""Equal layers one after the other, compiled as one."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array

SHALLOW = 2
"""So many layers are still compiled one by one: a loop would save little of the time to compile them."""


def stacked(modules: Iterable[Any], x: Array, call: Callable[[Any, Array], Array]) -> Array:
    """``x`` through all ``modules``; those that differ in their arrays only are compiled once and run in a loop.

    Args:
        modules: the layers, one after the other.
        x: what the first takes; each puts out its shape.
        call: how a layer is applied.
    """
    layers = list(modules)
    parts = [nnx.split(layer) for layer in layers]
    states = [state for _, state in parts]
    if len(layers) <= SHALLOW or not _alike([graphdef for graphdef, _ in parts], states):
        for layer in layers:
            x = call(layer, x)
        return x
    changed: list[Any] = []  # the paths of what a call changes, such as the counts of random keys

    def body(x: Array, state: nnx.State) -> tuple[Array, list[Array]]:
        layer = nnx.merge(parts[0][0], state)
        before = [variable.get_value() for _, variable in nnx.to_flat_state(state)]
        output = call(layer, x)
        after = [(path, variable.get_value()) for path, variable in nnx.to_flat_state(nnx.state(layer))]
        moved = [(path, new) for old, (path, new) in zip(before, after, strict=True) if new is not old]
        changed[:] = [path for path, _ in moved]
        return output, [new for _, new in moved]

    output, rows = lax.scan(body, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
    for index, layer in enumerate(layers):
        for path, row in zip(changed, rows, strict=True):
            variable = layer
            for name in path:
                variable = variable[name] if isinstance(variable, nnx.List | nnx.Dict) else getattr(variable, name)
            variable.set_value(row[index])
    return output


def _alike(graphs: list[Any], states: list[nnx.State]) -> bool:
    first = jax.tree.map(jnp.shape, states[0]), [leaf.dtype for leaf in jax.tree.leaves(states[0])]
    return all(graph == graphs[0] for graph in graphs) and all(
        (jax.tree.map(jnp.shape, state), [leaf.dtype for leaf in jax.tree.leaves(state)]) == first for state in states
    )
