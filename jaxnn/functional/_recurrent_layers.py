"""Recurrent layers on top of one another, in one direction or both."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxnn.functional._argument import accumulation_dtype
from jaxnn.functional._recurrence import Cell, State, Weights, product, recurrence, step
from jaxnn.functional.dropouts import dropout


class DirectionWeights(NamedTuple):
    """The parameters of one layer in one direction.

    Attributes:
        input: ``(gates * hidden, input)``.
        recurrent: ``(gates * hidden, state)``.
        input_bias: ``(gates * hidden,)``, or None.
        recurrent_bias: ``(gates * hidden,)``, or None.
        projection: ``(state, hidden)``, or None.
    """

    input: Float[Array, "gates input"]
    recurrent: Float[Array, "gates state"]
    input_bias: Float[Array, " gates"] | None = None
    recurrent_bias: Float[Array, " gates"] | None = None
    projection: Float[Array, "state hidden"] | None = None


def recurrent_layers(
    cell: Cell,
    x: Float[Array, "time batch features"],
    initial: State,
    layers: Sequence[Sequence[DirectionWeights]],
    lengths: Int[Array, " batch"] | None = None,
    dropout_p: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, "time batch states"], State]:
    """Each layer reads the states of the one before, those of both directions side by side.

    Args:
        cell: what a step does.
        x: ``(T, N, F)``.
        initial: the states before the first step, each ``(layers * directions, N, state)``.
        layers: for each layer the weights forward and, if it goes both ways, backward.
        lengths: of each sequence. Beyond it states stay as they are and outputs are zero.
        dropout_p: probability that an element between two layers is zeroed.
        key: a ``jax.random.key``; needed where ``dropout_p`` lies between 0 and 1.

    Returns:
        The states of the last layer at every step, and those after the last step in the form of ``initial``.
    """
    dtype = x.dtype
    valid = None if lengths is None else (jnp.arange(len(x))[:, None] < lengths)[..., None]
    final: list[State] = []
    for index, directions in enumerate(layers):
        state = tuple(s[index * len(directions) : (index + 1) * len(directions)] for s in initial)
        each_valid = None if valid is None else _each_way([valid] * len(directions))
        hidden, last = _layer(cell, directions, _each_way([_projected(w, x) for w in directions]), state, each_valid)
        final.append(last)
        ways = [hidden[:, 0], hidden[::-1, -1]][: len(directions)]
        x = jnp.concatenate(ways, axis=-1).astype(dtype)
        if dropout_p and index < len(layers) - 1:
            layer_key = None if key is None else jax.random.fold_in(key, index)
            x = dropout(x, dropout_p, key=layer_key)
    if valid is not None:
        x = jnp.where(valid, x, jnp.zeros((), dtype))
    return x, tuple(jnp.concatenate(states).astype(dtype) for states in zip(*final, strict=True))


def _each_way(arrays: Sequence[Array]) -> Array:
    """Sequences of both directions side by side on axis 1, the second reversed."""
    return jnp.stack([x if i == 0 else x[::-1] for i, x in enumerate(arrays)], axis=1)


def _layer(
    cell: Cell, directions: Sequence[DirectionWeights], x: Array, state: State, valid: Array | None
) -> tuple[Array, State]:
    state = tuple(s.astype(x.dtype) for s in state)
    return recurrence(cell, _together(directions), x, state, valid)


def _together(directions: Sequence[DirectionWeights]) -> Weights:
    def stacked(name: str) -> Array | None:
        arrays = [getattr(weights, name) for weights in directions]
        return None if arrays[0] is None else jnp.stack(arrays)

    recurrent = jnp.stack([weights.recurrent for weights in directions])
    return Weights(recurrent, stacked("recurrent_bias"), stacked("projection"))


def recurrent_step(cell: Cell, x: Float[Array, "batch features"], state: State, weights: DirectionWeights) -> State:
    """One step of one layer: the new state, in the dtype of the input."""
    projected = _projected(weights, x)[None]
    new, _ = step(cell, _together([weights]), projected, tuple(s[None].astype(projected.dtype) for s in state))
    return tuple(s[0].astype(x.dtype) for s in new)


def _projected(weights: DirectionWeights, x: Array) -> Array:
    """The input's part of the pre-activations, of all steps at once."""
    projected = product(x.astype(accumulation_dtype(x.dtype)).reshape(1, -1, x.shape[-1]), weights.input[None])
    if weights.input_bias is not None:
        projected = projected + weights.input_bias.astype(projected.dtype)
    return projected.reshape(*x.shape[:-1], -1)
