"""Recurrent layers on top of one another, in one direction or both."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int, Key

from jaxnn.functional._argument import ArgumentError, accumulation_dtype, concrete
from jaxnn.functional._recurrence import Cell, Direction, State, Weights, projected, recurrence, step
from jaxnn.functional.dropouts import dropout


def recurrent_layers(
    name: str,
    cell: Cell,
    input: ArrayLike,
    hx: Sequence[ArrayLike] | None,
    layers: Sequence[Sequence[Weights]],
    batch_first: bool = False,
    lengths: ArrayLike | None = None,
    dropout_p: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, "*sequence states"], State]:
    """Each layer reads the states of the one before, those of both directions side by side.

    Args:
        name: of the layer or function, for errors.
        cell: what a step does.
        input: ``(T, N, F)``, ``(N, T, F)`` with ``batch_first``, or ``(T, F)``.
        hx: the states before the first step, each ``(layers * directions, N, state)``; zero where None.
        layers: for each layer the weights forward and, if it goes both ways, backward.
        batch_first: whether the batch comes before time.
        lengths: of each sequence. Beyond it states stay as they are and outputs are zero.
        dropout_p: probability that an element between two layers is zeroed.
        key: a ``jax.random.key``; needed where ``dropout_p`` lies between 0 and 1.

    Returns:
        The states of the last layer at every step, and those after the last step in the form of ``hx``.

    Raises:
        ArgumentError: a shape, dtype or length that does not fit.
    """
    x, (first, *_) = jnp.asarray(input), layers[0]
    _check_input(name, x, first)
    batched = x.ndim == 3
    steps, *batch = x.shape[1::-1] if batch_first and batched else x.shape[:-1]
    if steps == 0:
        raise ArgumentError(f"{name}: sequences must have at least one step, got shape {x.shape}")
    gates, width = first.recurrent.shape
    shapes = [(sum(map(len, layers)), *batch, size) for size in (width, gates // cell.gates)[: cell.states]]
    initial = _initial(name, hx, shapes, x.dtype)
    checked = None if lengths is None else _lengths(name, jnp.asarray(lengths), steps, batch)
    if not batched:
        output, final = _stacked(cell, x[:, None], tuple(s[:, None] for s in initial), layers, checked, dropout_p, key)
        return output[:, 0], tuple(s[:, 0] for s in final)
    if not batch_first:
        return _stacked(cell, x, initial, layers, checked, dropout_p, key)
    output, final = _stacked(cell, x.swapaxes(0, 1), initial, layers, checked, dropout_p, key)
    return output.swapaxes(0, 1), final


def _check_input(name: str, x: Array, weights: Weights) -> None:
    dtype, features = weights.input.dtype, weights.input.shape[1]
    if x.ndim not in (2, 3):
        raise ArgumentError(f"{name}: input must have 3 axes, or 2 without a batch, got shape {x.shape}")
    if x.dtype != dtype:
        raise ArgumentError(f"{name}: input must have the dtype of the weights, {dtype}, got {x.dtype}")
    if x.shape[-1] != features:
        raise ArgumentError(f"{name}: input must have input_size={features} features, got shape {x.shape}")


def _initial(name: str, hx: Sequence[ArrayLike] | None, shapes: list[tuple[int, ...]], dtype: DTypeLike) -> State:
    if hx is None:
        return tuple(jnp.zeros(shape, dtype) for shape in shapes)
    arrays = tuple(map(jnp.asarray, hx))
    for i, (array, expected) in enumerate(zip(arrays, shapes, strict=True)):
        label = "hx" if len(shapes) == 1 else f"hx[{i}]"
        if array.shape != expected:
            raise ArgumentError(f"{name}: {label} must have shape {expected}, got {array.shape}")
        if array.dtype != dtype:
            raise ArgumentError(f"{name}: {label} must have the input's dtype {dtype}, got {array.dtype}")
    return arrays


def _lengths(name: str, lengths: Array, steps: int, batch: list[int]) -> Array:
    if not batch or lengths.shape != tuple(batch):
        raise ArgumentError(
            f"{name}: lengths must be one for each sequence of a batch, got shape {lengths.shape} "
            f"beside {batch[0] if batch else 'no'} sequences"
        )
    known = concrete(lengths)
    if known is not None and ((known < 1) | (known > steps)).any():
        raise ArgumentError(f"{name}: lengths must lie between 1 and {steps}, got {known.tolist()}")
    return lengths


def _stacked(
    cell: Cell,
    x: Float[Array, "time batch features"],
    initial: State,
    layers: Sequence[Sequence[Weights]],
    lengths: Int[Array, " batch"] | None,
    dropout_p: float,
    key: Key[Array, ""] | None,
) -> tuple[Float[Array, "time batch states"], State]:
    dtype = x.dtype
    valid = None if lengths is None else jnp.arange(len(x))[:, None] < lengths
    final: list[State] = []
    for index, weights in enumerate(layers):
        state = tuple(s[index * len(weights) : (index + 1) * len(weights)] for s in initial)
        hidden, last = _layer(cell, weights, x, state, valid)
        final.append(last)
        x = hidden.astype(dtype)
        if dropout_p and index < len(layers) - 1:
            layer_key = None if key is None else jax.random.fold_in(key, index)
            x = dropout(x, dropout_p, key=layer_key)
    if valid is not None:
        x = jnp.where(valid[..., None], x, jnp.zeros((), dtype))
    return x, tuple(jnp.concatenate(states).astype(dtype) for states in zip(*final, strict=True))


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
