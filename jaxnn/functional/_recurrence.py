"""A recurrent layer and its derivative, with the weights' gradients taken out of the chain of steps.

States are ``(features, batch)``, so that a step is the weight times the state: of a product's two sides the processor's
matrix kernels rearrange the right one, here the small one. The input's part is projected for the ``CHUNK`` steps of a
turn at once: step by step the weight would be read as often, for the whole sequence the result would leave the cache.
Both directions go in one loop.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float

from jaxnn._lowering.precision import matmul_precision

CHUNK = 4
"""Steps to a turn of the loop."""

State = tuple[Array, ...]
Slopes = tuple[Array, ...]


class Cell(NamedTuple):
    """The part of a recurrent step that works element by element.

    Attributes:
        gates: how many gates; their pre-activations lie one below the other on the first axis.
        states: how many arrays its state is made of.
        sums: whether ``advance`` sees but the sum of the two parts of the pre-activations.
        advance: from the input's and the hidden state's part of the pre-activations and the state to the new state, and
            the slopes that ``tangent`` needs.
        tangent: the derivative of ``advance``: the slopes and the tangents of its arguments to that of the new state.
    """

    gates: int
    states: int
    sums: bool
    advance: Callable[[Array, Array, State], tuple[State, Slopes]]
    tangent: Callable[[Slopes, Array, Array, State], State]


class Weights(NamedTuple):
    """The parameters of one layer in one direction, or their tangents.

    Attributes:
        input: ``(gates * hidden, input)``.
        recurrent: ``(gates * hidden, state)``.
        input_bias: ``(gates * hidden,)``, or None.
        recurrent_bias: ``(gates * hidden,)``, or None.
        projection: ``(state, hidden)``, what makes the state of the cell's output, or None.
    """

    input: Float[Array, "gates input"]
    recurrent: Float[Array, "gates state"]
    input_bias: Float[Array, " gates"] | None = None
    recurrent_bias: Float[Array, " gates"] | None = None
    projection: Float[Array, "state hidden"] | None = None


class Direction(NamedTuple):
    """What one direction of a layer reads, or the tangents of that.

    Attributes:
        weights: its parameters.
        x: the input, in the order in which it is read.
        initial: the state before the first step, each ``(features, batch)``; the hidden one comes first.
        valid: false where the state stays as it is, in the order of ``x``; or None.
    """

    weights: Weights
    x: Float[Array, "time batch input"]
    initial: State
    valid: Bool[Array, "time batch"] | None


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def recurrence(
    cell: Cell, directions: Sequence[Direction]
) -> tuple[list[Float[Array, "time state batch"]], list[State]]:
    """The hidden states of all steps, and the states after the last, of each direction."""
    hidden, final, _ = _run(cell, directions)
    return hidden, final


def _run(cell: Cell, directions: Sequence[Direction]) -> tuple[list[Array], list[State], list[tuple[Slopes, Array]]]:
    """The results of :func:`recurrence`, and at every step what its derivative needs, as :func:`step` returns it."""

    def turn(states: list[State], inputs: list) -> tuple[list[State], list]:
        turned = [_turn(cell, d.weights, s, *i) for d, s, i in zip(directions, states, inputs, strict=True)]
        return [state for state, _ in turned], [results for _, results in turned]

    states, parts = [d.initial for d in directions], []
    for part in _in_turns([(d.x, d.valid) for d in directions]):
        states, results = lax.scan(turn, states, part)
        parts.append(jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), results))
    joined = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)
    return [hidden for hidden, _ in joined], states, [kept for _, kept in joined]


def _in_turns(xs: Any) -> list[Any]:
    """Arrays over time as ``(turns, steps, ...)``: the whole turns and, if any are left, the last steps."""
    length = len(jax.tree.leaves(xs)[0])
    whole = length - length % CHUNK
    cuts = [(0, whole, CHUNK), (whole, length, length - whole)]
    return [
        jax.tree.map(lambda a, cut=cut: a[cut[0] : cut[1]].reshape(-1, cut[2], *a.shape[1:]), xs)
        for cut in cuts
        if cut[0] < cut[1]
    ]


def _turn(cell: Cell, weights: Weights, state: State, x: Array, valid: Array | None) -> tuple[State, Any]:
    """Some steps in one direction: the state after them, and at each the hidden state and what the derivative needs."""
    results = []
    for i, part in enumerate(projected(weights, x, state[0].dtype)):
        new, kept = step(cell, weights, part, state)
        state = _chosen(None if valid is None else valid[i], new, state)
        results.append((state[0], kept))
    return state, jax.tree.map(lambda *arrays: jnp.stack(arrays), *results)


@partial(recurrence.defjvp, symbolic_zeros=True)
def _recurrence_tangent(cell: Cell, primals: tuple, tangents: tuple) -> tuple:
    # Differentiating the loop would add up the weights' gradients step by step. Here their part in the tangent is one
    # product over all steps, ahead of a loop that is linear in its tangents; so is, transposed, the gradient.
    def known(tangent: Any) -> Any:
        return None if isinstance(tangent, SymbolicZero) else tangent

    (directions,), (d_directions,) = primals, jax.tree.map(known, tangents)
    hidden, final, kept = _run(cell, directions)
    # The barrier keeps XLA from undoing the transposition, which makes the gradient's products the fast ones.
    across = lax.optimization_barrier([jax.tree.map(jnp.transpose, d.weights) for d in directions])
    ahead = [_ahead(cell, *each) for each in zip(directions, d_directions, across, hidden, kept, strict=True)]

    def turn(d_states: list[State], inputs: list) -> tuple[list[State], list]:
        after = [_step_tangent(cell, w, s, *i) for w, s, i in zip(across, d_states, inputs, strict=True)]
        return after, [d_state[0] for d_state in after]

    start = [
        tuple(jnp.zeros_like(s) if t is None else t for s, t in zip(d.initial, d_d.initial, strict=True))
        for d, d_d in zip(directions, d_directions, strict=True)
    ]
    inputs = [(slopes, d.valid, *parts) for (slopes, _), d, parts in zip(kept, directions, ahead, strict=True)]
    d_final, d_hidden = lax.scan(turn, start, inputs)
    return (hidden, final), (d_hidden, d_final)


def _ahead(
    cell: Cell, direction: Direction, d_direction: Direction, across: Weights, hidden: Array, kept: tuple[Slopes, Array]
) -> tuple[Array | None, Array | None, Array | None]:
    """What does not wait for the tangent of the state, each ``(time, rows, batch)``, or None where it is zero.

    Those of the pre-activations' parts from the input and from the state, where the cell adds the two up all in the
    first, and that of the projection.
    """
    d_weights, dtype = d_direction.weights, hidden.dtype
    before = jnp.concatenate([direction.initial[0][None], hidden[:-1]])

    def product(pattern: str, weight: Array | None, x: Array | None) -> Array | None:
        if weight is None or x is None:
            return None
        x = x.astype(weight.dtype)
        return jnp.einsum(pattern, weight, x, precision=matmul_precision(), preferred_element_type=dtype)

    def rows(bias: Array | None) -> Array | None:
        shape = (len(hidden), across.recurrent.shape[1], hidden.shape[2])
        return None if bias is None else jnp.broadcast_to(bias[:, None].astype(dtype), shape)

    by_input = [
        product("fg,tbf->tgb", across.input, d_direction.x),
        product("gf,tbf->tgb", d_weights.input, direction.x),
        rows(d_weights.input_bias),
    ]
    by_state = [product("gs,tsb->tgb", d_weights.recurrent, before), rows(d_weights.recurrent_bias)]
    by_output = product("sh,thb->tsb", d_weights.projection, kept[1])
    if cell.sums:
        return _sum([*by_input, *by_state]), None, by_output
    return _sum(by_input), _sum(by_state), by_output


def _step_tangent(
    cell: Cell,
    across: Weights,
    d_state: State,
    slopes: Slopes,
    valid: Array | None,
    by_input: Array | None,
    by_state: Array | None,
    by_output: Array | None,
) -> State:
    """The tangent of a step; ``across`` are the transposed weights, the rest is what :func:`_ahead` returns."""
    from_state = _product_across(across.recurrent, d_state[0])
    d_recurrent = _sum([by_state, from_state])
    d_x = jnp.zeros_like(from_state) if by_input is None else by_input
    d_hidden, *d_memory = cell.tangent(slopes, d_x, d_recurrent, d_state)
    if across.projection is not None:
        d_hidden = _sum([by_output, _product_across(across.projection, d_hidden)])
    return _chosen(valid, (d_hidden, *d_memory), d_state)


def _sum(terms: Sequence[Array | None]) -> Any:
    """The sum of those that are there, or None."""
    present = [term for term in terms if term is not None]
    return sum(present[1:], start=present[0]) if present else None


def step(cell: Cell, weights: Weights, x: Array, state: State) -> tuple[State, tuple[Slopes, Array]]:
    """One step: the new state, and what the derivative needs, its slopes and the cell's output before projection.

    Args:
        cell: what happens in a step.
        weights: of the direction.
        x: the input's part of the pre-activations, ``(gates * hidden, batch)``.
        state: before the step, each ``(features, batch)``; the hidden one comes first.
    """
    recurrent = _affine(weights.recurrent, state[0], weights.recurrent_bias)
    (output, *memory), slopes = cell.advance(x, recurrent, state)
    hidden = output if weights.projection is None else _product(weights.projection, output)
    return (hidden, *memory), (slopes, output)


def projected(weights: Weights, x: Float[Array, "steps batch features"], dtype: Any) -> list[Array]:
    """The input's part of the pre-activations of each step, ``(gates * hidden, batch)``, in ``dtype``."""
    return jnp.split(_affine(weights.input, _columns(x, dtype), weights.input_bias), len(x), axis=1)


def _columns(x: Float[Array, "steps batch features"], dtype: Any) -> Float[Array, "features columns"]:
    return x.reshape(-1, x.shape[-1]).T.astype(dtype)


def _affine(weight: Array, x: Array, bias: Array | None) -> Array:
    result = _product(weight, x)
    return result if bias is None else result + bias[:, None].astype(result.dtype)


def _product(weight: Float[Array, "m k"], x: Float[Array, "k n"]) -> Float[Array, "m n"]:
    """Multiplied in the weight's dtype and summed in that of ``x``."""
    return jnp.matmul(weight, x.astype(weight.dtype), precision=matmul_precision(), preferred_element_type=x.dtype)


def _product_across(weight: Float[Array, "k m"], x: Float[Array, "k n"]) -> Float[Array, "m n"]:
    """:func:`_product` by the transpose of ``weight``; what it is transposed into is a product by ``weight``."""
    wide, x = x.dtype, x.astype(weight.dtype)
    axes = (((0,), (0,)), ((), ()))
    return lax.dot_general(weight, x, axes, precision=matmul_precision(), preferred_element_type=wide)


def _chosen(valid: Array | None, new: State, old: State) -> State:
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
    in_out = jnp.split(x + recurrent, 4, axis=0)
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
    d_i, d_f, d_g, d_o = jnp.split(d_x + d_recurrent, 4, axis=0)
    by_i, by_f, by_g, by_memory, by_o, output_by_memory = slopes
    d_memory = by_i * d_i + by_f * d_f + by_g * d_g + by_memory * d_state[1]
    return by_o * d_o + output_by_memory * d_memory, d_memory


def _gru_advance(x: Array, recurrent: Array, state: State) -> tuple[State, Slopes]:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = jnp.split(x, 3, axis=0), jnp.split(recurrent, 3, axis=0)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    before = state[0]
    by_n = (1 - z) * (1 - n * n)
    slopes = (by_n * h_n * r * (1 - r), (before - n) * z * (1 - z), by_n, by_n * r, z)
    return ((before - n) * z + n,), slopes


def _gru_tangent(slopes: Slopes, d_x: Array, d_recurrent: Array, d_state: State) -> State:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = jnp.split(d_x, 3, axis=0), jnp.split(d_recurrent, 3, axis=0)
    by_r, by_z, by_x_n, by_h_n, by_before = slopes
    return (by_r * (x_r + h_r) + by_z * (x_z + h_z) + by_x_n * x_n + by_h_n * h_n + by_before * d_state[0],)


TANH = Cell(1, 1, True, _tanh_advance, _simple_tangent)
RELU = Cell(1, 1, True, _relu_advance, _simple_tangent)
LSTM = Cell(4, 2, True, _lstm_advance, _lstm_tangent)
GRU = Cell(3, 1, False, _gru_advance, _gru_tangent)
