"""Recurrent layers on top of one another, in one direction or both."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxnn.functional._argument import accumulation_dtype
from jaxnn.functional._recurrence import Cell, Direction, State, Weights, projected, recurrence, step
from jaxnn.functional.dropouts import dropout


def recurrent_layers(
    cell: Cell,
    x: Float[Array, "*sequence features"],
    initial: State | None,
    layers: Sequence[Sequence[Weights]],
    batch_first: bool = False,
    lengths: Int[Array, " batch"] | None = None,
    dropout_p: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, "*sequence states"], State]:
    """Each layer reads the states of the one before, those of both directions side by side.

    Args:
        cell: what a step does.
        x: ``(T, N, F)``, ``(N, T, F)`` with ``batch_first``, or ``(T, F)``.
        initial: the states before the first step, each ``(layers * directions, N, state)``; zero where None.
        layers: for each layer the weights forward and, if it goes both ways, backward.
        batch_first: whether the batch comes before time.
        lengths: of each sequence. Beyond it states stay as they are and outputs are zero.
        dropout_p: probability that an element between two layers is zeroed.
        key: a ``jax.random.key``; needed where ``dropout_p`` lies between 0 and 1.

    Returns:
        The states of the last layer at every step, and those after the last step in the form of ``initial``.
    """
    dtype, batched = x.dtype, x.ndim == 3
    if not batched:
        x = x[:, None]
    elif batch_first:
        x = x.swapaxes(0, 1)
    if initial is None:
        rows, (weight, *_) = sum(map(len, layers)), layers[0]
        widths = [weight.recurrent.shape[1], weight.recurrent.shape[0] // cell.gates][: cell.states]
        initial = tuple(jnp.zeros((rows, x.shape[1], width), dtype) for width in widths)
    elif not batched:
        initial = tuple(state[:, None] for state in initial)
    valid = None if lengths is None else jnp.arange(len(x))[:, None] < lengths
    final: list[State] = []
    for index, weights in enumerate(layers):
        state = tuple(s[index * len(weights) : (index + 1) * len(weights)] for s in initial)
        hidden, after = _layer(cell, weights, x, state, valid)
        final.append(after)
        x = hidden.astype(dtype)
        if dropout_p and index < len(layers) - 1:
            layer_key = None if key is None else jax.random.fold_in(key, index)
            x = dropout(x, dropout_p, key=layer_key)
    if valid is not None:
        x = jnp.where(valid[..., None], x, jnp.zeros((), dtype))
    last = tuple(jnp.concatenate(states).astype(dtype) for states in zip(*final, strict=True))
    if not batched:
        return x[:, 0], tuple(state[:, 0] for state in last)
    return x.swapaxes(0, 1) if batch_first else x, last


def _layer(cell: Cell, weights: Sequence[Weights], x: Array, state: State, valid: Array | None) -> tuple[Array, State]:
    """The states side by side, and those after the last step one direction after the other; the second goes back."""
    ways = [slice(None), slice(None, None, -1)][: len(weights)]
    wide = accumulation_dtype(x.dtype)
    directions = [
        Direction(w, x[way], tuple(s[i].T.astype(wide) for s in state), None if valid is None else valid[way])
        for i, (w, way) in enumerate(zip(weights, ways, strict=True))
    ]
    hidden, final = recurrence(cell, directions)
    together = jnp.concatenate([h[way] for h, way in zip(hidden, ways, strict=True)], axis=1)
    return together.swapaxes(1, 2), tuple(jnp.stack([s.T for s in states]) for states in zip(*final, strict=True))


def recurrent_step(cell: Cell, x: Float[Array, "batch features"], state: State, weights: Weights) -> State:
    """One step of one layer: the new state, in the dtype of the input."""
    wide = accumulation_dtype(x.dtype)
    new, _ = step(cell, weights, projected(weights, x[None], wide)[0], tuple(s.T.astype(wide) for s in state))
    return tuple(s.T.astype(x.dtype) for s in new)
