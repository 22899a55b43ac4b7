"""Equal layers one after the other, compiled as one."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array

SHALLOW = 2
"""So many layers are still compiled one by one: a loop would save little of the time to compile them."""


def stacked(layers: Sequence[nnx.Module], x: Array, call: Callable[[Any, Array], Array]) -> Array:
    """``x`` through all ``layers``; those that differ in their arrays only are compiled once and run in a loop.

    Args:
        layers: one after the other.
        x: what the first takes; each puts out its shape.
        call: how a layer is applied.
    """
    parts = [nnx.split(layer) for layer in layers]
    states = [state for _, state in parts]
    if len(layers) <= SHALLOW or not _alike([graphdef for graphdef, _ in parts], states):
        for layer in layers:
            x = call(layer, x)
        return x

    def body(x: Array, state: nnx.State) -> tuple[Array, nnx.State]:
        layer = nnx.merge(parts[0][0], state)
        output = call(layer, x)
        # Parameters do not change in a call and need not be carried out of the loop.
        return output, nnx.state(layer, nnx.Not(nnx.Param))

    output, changed = lax.scan(body, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
    for index, layer in enumerate(layers):
        nnx.update(layer, jax.tree.map(lambda leaf, i=index: leaf[i], changed))
    return output


def _alike(graphs: list[Any], states: list[nnx.State]) -> bool:
    shapes = [jax.tree.map(lambda leaf: (jnp.shape(leaf), leaf.dtype), state) for state in states]
    return all(graph == graphs[0] for graph in graphs) and all(
        jax.tree.structure(state) == jax.tree.structure(states[0]) and shape == shapes[0]
        for state, shape in zip(states, shapes, strict=True)
    )
