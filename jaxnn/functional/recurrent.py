"""Recurrent layers over whole sequences, as functions of their weights."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Key

from jaxnn.functional._argument import ArgumentError
from jaxnn.functional._recurrence import GRU, LSTM, RELU, TANH, Cell, State, Weights
from jaxnn.functional._recurrent_layers import recurrent_layers

Input = Float[ArrayLike, "*sequence input_size"]
Output = Float[Array, "*sequence states"]
Hidden = Float[Array, "layers *batch state"]


def lstm(
    input: Input,
    hx: tuple[ArrayLike, ArrayLike] | None,
    weights: Sequence[ArrayLike],
    num_layers: int = 1,
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    lengths: Int[ArrayLike, " batch"] | None = None,
    key: Key[Array, ""] | None = None,
) -> tuple[Output, Hidden, Float[Array, "layers *batch hidden"]]:
    """Long short-term memory; :class:`jaxnn.nn.LSTM` says what it computes.

    Args:
        input: ``(T, N, input_size)``, ``(N, T, input_size)`` with ``batch_first``, or ``(T, input_size)``.
        hx: hidden states and cells before the first step, each ``(num_layers * directions, N, size)``; zero where None.
        weights: of each layer, and of each direction in it: ``weight_ih``, ``weight_hh``, then ``bias_ih`` and
            ``bias_hh`` unless there are no biases, then ``weight_hr`` if states are projected.
        num_layers: how many layers stand one above the other.
        bidirectional: whether each layer has a second direction, which reads backward.
        batch_first: whether the batch comes before time in ``input`` and output.
        dropout: probability that an element between two layers is zeroed.
        lengths: of each sequence; outputs beyond them are zero.
        key: a ``jax.random.key``, needed where ``dropout`` lies between 0 and 1.

    Returns:
        The hidden states of the last layer at every step; the hidden states and the cells of all layers after the last.

    Raises:
        ArgumentError: not as many weights in each direction as an LSTM has, or an input of another rank.

    Source: ``torch.lstm``; Hochreiter and Schmidhuber (1997).
    """
    output, (hidden, memory) = _layers(
        "lstm", LSTM, input, hx, weights, num_layers, bidirectional, batch_first, dropout, lengths, key
    )
    return output, hidden, memory


def gru(
    input: Input,
    hx: ArrayLike | None,
    weights: Sequence[ArrayLike],
    num_layers: int = 1,
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    lengths: Int[ArrayLike, " batch"] | None = None,
    key: Key[Array, ""] | None = None,
) -> tuple[Output, Hidden]:
    """Gated recurrent units; :class:`jaxnn.nn.GRU` says what they compute, :func:`lstm` what the arguments are.

    Source: ``torch.gru``; Cho et al. (2014).
    """
    states = None if hx is None else (hx,)
    output, (hidden,) = _layers(
        "gru", GRU, input, states, weights, num_layers, bidirectional, batch_first, dropout, lengths, key
    )
    return output, hidden


def rnn_tanh(
    input: Input,
    hx: ArrayLike | None,
    weights: Sequence[ArrayLike],
    num_layers: int = 1,
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    lengths: Int[ArrayLike, " batch"] | None = None,
    key: Key[Array, ""] | None = None,
) -> tuple[Output, Hidden]:
    """Elman's network with tanh; :class:`jaxnn.nn.RNN` says what it computes, :func:`lstm` what the arguments are.

    Source: ``torch.rnn_tanh``.
    """
    states = None if hx is None else (hx,)
    output, (hidden,) = _layers(
        "rnn_tanh", TANH, input, states, weights, num_layers, bidirectional, batch_first, dropout, lengths, key
    )
    return output, hidden


def rnn_relu(
    input: Input,
    hx: ArrayLike | None,
    weights: Sequence[ArrayLike],
    num_layers: int = 1,
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    lengths: Int[ArrayLike, " batch"] | None = None,
    key: Key[Array, ""] | None = None,
) -> tuple[Output, Hidden]:
    """Elman's network with relu; :class:`jaxnn.nn.RNN` says what it computes, :func:`lstm` what the arguments are.

    Source: ``torch.rnn_relu``.
    """
    states = None if hx is None else (hx,)
    output, (hidden,) = _layers(
        "rnn_relu", RELU, input, states, weights, num_layers, bidirectional, batch_first, dropout, lengths, key
    )
    return output, hidden


def _layers(
    name: str,
    cell: Cell,
    input: Any,
    hx: tuple[ArrayLike, ...] | None,
    weights: Sequence[ArrayLike],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    dropout: float,
    lengths: Any,
    key: Key[Array, ""] | None,
) -> tuple[Array, State]:
    x, directions = jnp.asarray(input), 1 + bidirectional
    if x.ndim not in (2, 3):
        raise ArgumentError(f"{name}: input must have 3 axes, or 2 without a batch, got shape {x.shape}")
    each, rest = divmod(len(weights), num_layers * directions)
    most = 5 if cell is LSTM else 4
    if rest or not 2 <= each <= most or (each == 3 and cell is not LSTM):
        raise ArgumentError(
            f"{name}: weights must hold 2 arrays, or 4 with biases{', and one more if projected' * (most == 5)}, for "
            f"each of {num_layers * directions} directions of layers, got {len(weights)}"
        )
    arrays = [jnp.asarray(weight) for weight in weights]
    parts = [_weights(arrays[start : start + each]) for start in range(0, len(arrays), each)]
    layers = [parts[start : start + directions] for start in range(0, len(parts), directions)]
    states = None if hx is None else tuple(jnp.asarray(state) for state in hx)
    known = None if lengths is None else jnp.asarray(lengths)
    return recurrent_layers(cell, x, states, layers, batch_first, known, dropout, key)


def _weights(arrays: list[Array]) -> Weights:
    """Of one direction: the two, the biases if there are four, and what projects if there are three or five."""
    by_input, by_state, *rest = arrays
    biases, projection = (rest[:2], rest[2:]) if len(rest) > 1 else ([None, None], rest)
    return Weights(by_input, by_state, *biases, *projection)
