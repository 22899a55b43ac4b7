"""A recurrent layer and its derivative, with the weight gradients taken out of the loop.

Both directions of a layer run in one loop, on an axis of their own ahead of the batch; the way back gets its input
reversed. A loop of half as many, twice as large steps takes less time.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxnn._lowering.precision import matmul_precision

UNROLLED = 2
"""Steps to a turn of the loop; more compile longer and run no faster."""

State = tuple[Array, ...]
Slopes = tuple[Array, ...]


class Cell(NamedTuple):
    """The part of a recurrent step that works element by element.

    Attributes:
        gates: how many gates; their pre-activations lie side by side on the last axis.
        advance: from the input's and the hidden state's part of the pre-activations and the state to the new state, and
            the slopes that ``tangent`` needs.
        tangent: the derivative of ``advance``: the slopes and the tangents of its arguments to that of the new state.
    """

    gates: int
    advance: Callable[[Array, Array, State], tuple[State, Slopes]]
    tangent: Callable[[Slopes, Array, Array, State], State]


class Weights(NamedTuple):
    """What multiplies the hidden state.

    Attributes:
        recurrent: ``(directions, gates * hidden, state)``.
        bias: ``(directions, gates * hidden)``, added to the product, or None.
        projection: ``(directions, state, hidden)``, what makes the state of the cell's output, or None.
    """

    recurrent: Float[Array, "directions gates state"]
    bias: Float[Array, "directions gates"] | None
    projection: Float[Array, "directions state hidden"] | None


def product(x: Float[Array, "*time d n k"], weight: Float[Array, "d m k"]) -> Float[Array, "*time d n m"]:
    """``x`` times the transpose of ``weight``, multiplied in the weight's dtype and summed in that of ``x``."""
    axis = x.ndim - 3
    axes = (((x.ndim - 1,), (2,)), ((axis,), (0,)))
    products = lax.dot_general(
        x.astype(weight.dtype), weight, axes, precision=matmul_precision(), preferred_element_type=x.dtype
    )
    return jnp.moveaxis(products, 0, axis)


def step(cell: Cell, weights: Weights, x: Array, state: State) -> tuple[State, tuple[Slopes, Array]]:
    """One step: the new state, and what the derivative needs, its slopes and the cell's output before projection."""
    recurrent = product(state[0], weights.recurrent)
    if weights.bias is not None:
        recurrent = recurrent + weights.bias[:, None].astype(recurrent.dtype)
    (output, *memory), slopes = cell.advance(x, recurrent, state)
    hidden = output if weights.projection is None else product(output, weights.projection)
    return (hidden, *memory), (slopes, output)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def recurrence(
    cell: Cell,
    weights: Weights,
    x: Float[Array, "time directions batch gates"],
    initial: State,
    valid: Bool[Array, "time directions batch 1"] | None,
) -> tuple[Float[Array, "time directions batch state"], State]:
    """The hidden states of all steps, and the state after the last.

    Args:
        cell: what happens in a step.
        weights: what multiplies the hidden state.
        x: the input's part of the pre-activations.
        initial: the state before the first step, each ``(directions, batch, features)``; the hidden one comes first.
        valid: false where the state stays as it is.
    """

    def body(state: State, inputs: tuple[Array, Array | None]) -> tuple[State, Array]:
        new = _kept(inputs[1], step(cell, weights, inputs[0], state)[0], state)
        return new, new[0]

    final, hidden = lax.scan(body, initial, (x, valid), unroll=UNROLLED)
    return hidden, final


@recurrence.defjvp
def _recurrence_tangent(cell: Cell, primals: tuple, tangents: tuple) -> tuple:
    # Differentiating the loop would add up the weights' gradients step by step. Here their part in the tangent is one
    # product over all steps, ahead of a loop that is linear in its tangents; so is, transposed, the gradient.
    weights, x, initial, valid = primals
    d_weights, d_x, d_initial, _ = tangents

    def body(state: State, inputs: tuple[Array, Array | None]) -> tuple[State, tuple]:
        new, kept = step(cell, weights, inputs[0], state)
        new = _kept(inputs[1], new, state)
        return new, (new[0], kept)

    final, (hidden, (slopes, outputs)) = lax.scan(body, initial, (x, valid), unroll=UNROLLED)

    before = jnp.concatenate([initial[0][None], hidden[:-1]])
    d_recurrent = product(before, d_weights.recurrent)
    if weights.bias is not None:
        d_recurrent = d_recurrent + d_weights.bias[:, None].astype(d_recurrent.dtype)
    d_projected = None if weights.projection is None else product(outputs, d_weights.projection)

    def d_body(d_state: State, inputs: tuple) -> tuple[State, Array]:
        slopes, d_x, d_recurrent, d_projected, valid = inputs
        d_recurrent = d_recurrent + product(d_state[0], weights.recurrent)
        d_hidden, *d_memory = cell.tangent(slopes, d_x, d_recurrent, d_state)
        if weights.projection is not None:
            d_hidden = product(d_hidden, weights.projection) + d_projected
        new = _kept(valid, (d_hidden, *d_memory), d_state)
        return new, new[0]

    d_inputs = (slopes, d_x, d_recurrent, d_projected, valid)
    d_final, d_hidden = lax.scan(d_body, d_initial, d_inputs, unroll=UNROLLED)
    return (hidden, final), (d_hidden, d_final)


def _kept(valid: Array | None, new: State, old: State) -> State:
    """The new state where the step counts."""
    return new if valid is None else tuple(jnp.where(valid, n, o) for n, o in zip(new, old, strict=True))


def _tanh_advance(x: Array, recurrent: Array, state: State) -> tuple[State, Slopes]:
    hidden = jnp.tanh(x + recurrent)
    return (hidden,), (1 - hidden * hidden,)


def _relu_advance(x: Array, recurrent: Array, state: State) -> tuple[State, Slopes]:
    hidden = jax.nn.relu(x + recurrent)
    return (hidden,), ((hidden > 0).astype(hidden.dtype),)


def _simple_tangent(slopes: Slopes, d_x: Array, d_recurrent: Array, d_state: State) -> State:
    return (slopes[0] * (d_x + d_recurrent),)


def _lstm_advance(x: Array, recurrent: Array, state: State) -> tuple[State, Slopes]:
    in_out = jnp.split(x + recurrent, 4, axis=-1)
    i, f, o = (jax.nn.sigmoid(in_out[k]) for k in (0, 1, 3))
    g = jnp.tanh(in_out[2])
    before = state[1]
    memory = f * before + i * g
    squashed = jnp.tanh(memory)
    slopes = (
        g * i * (1 - i),
        before * f * (1 - f),
        i * (1 - g * g),
        f,
        squashed * o * (1 - o),
        o * (1 - squashed * squashed),
    )
    return (o * squashed, memory), slopes


def _lstm_tangent(slopes: Slopes, d_x: Array, d_recurrent: Array, d_state: State) -> State:
    d_i, d_f, d_g, d_o = jnp.split(d_x + d_recurrent, 4, axis=-1)
    by_i, by_f, by_g, by_memory, by_o, output_by_memory = slopes
    d_memory = by_i * d_i + by_f * d_f + by_g * d_g + by_memory * d_state[1]
    return by_o * d_o + output_by_memory * d_memory, d_memory


def _gru_advance(x: Array, recurrent: Array, state: State) -> tuple[State, Slopes]:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = jnp.split(x, 3, axis=-1), jnp.split(recurrent, 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    before = state[0]
    by_n = (1 - z) * (1 - n * n)
    slopes = (by_n * h_n * r * (1 - r), (before - n) * z * (1 - z), by_n, by_n * r, z)
    return ((before - n) * z + n,), slopes


def _gru_tangent(slopes: Slopes, d_x: Array, d_recurrent: Array, d_state: State) -> State:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = jnp.split(d_x, 3, axis=-1), jnp.split(d_recurrent, 3, axis=-1)
    by_r, by_z, by_x_n, by_h_n, by_before = slopes
    return (by_r * (x_r + h_r) + by_z * (x_z + h_z) + by_x_n * x_n + by_h_n * h_n + by_before * d_state[0],)


TANH = Cell(1, _tanh_advance, _simple_tangent)
RELU = Cell(1, _relu_advance, _simple_tangent)
LSTM = Cell(4, _lstm_advance, _lstm_tangent)
GRU = Cell(3, _gru_advance, _gru_tangent)
