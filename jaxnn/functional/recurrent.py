"""Recurrent layers over whole sequences, as functions of their weights."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Key

from jaxnn.functional._argument import ArgumentError
from jaxnn.functional._recurrence import GRU, LSTM, RELU, TANH, Cell, Weights
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
        ArgumentError: not as many weights in each direction as an LSTM has, or a shape, dtype or length that does not
            fit.

    Source: ``torch.lstm``; Hochreiter and Schmidhuber (1997).
    """
    layers = _layers("lstm", LSTM, weights, num_layers, 1 + bidirectional)
    output, (hidden, memory) = recurrent_layers("lstm", LSTM, input, hx, layers, batch_first, lengths, dropout, key)
    return output, hidden, memory


def _of_one_state(name: str, cell: Cell, says: str) -> Callable[..., tuple[Output, Hidden]]:
    """A function with the arguments of :func:`lstm`, of a cell whose state is what it puts out."""

    def function(
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
        layers = _layers(name, cell, weights, num_layers, 1 + bidirectional)
        states = None if hx is None else (hx,)
        output, (hidden,) = recurrent_layers(name, cell, input, states, layers, batch_first, lengths, dropout, key)
        return output, hidden

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{says}, :func:`lstm` what the arguments are.\n\nSource: ``torch.{name}``."
    return function


gru = _of_one_state("gru", GRU, "Gated recurrent units; :class:`jaxnn.nn.GRU` says what they compute")
rnn_tanh = _of_one_state("rnn_tanh", TANH, "Elman's network with tanh; :class:`jaxnn.nn.RNN` says what it computes")
rnn_relu = _of_one_state("rnn_relu", RELU, "Elman's network with relu; :class:`jaxnn.nn.RNN` says what it computes")


def _layers(
    name: str, cell: Cell, weights: Sequence[ArrayLike], num_layers: int, directions: int
) -> list[list[Weights]]:
    """For each layer the weights of its directions."""
    each, rest = divmod(len(weights), num_layers * directions)
    most = 5 if cell is LSTM else 4
    if rest or not 2 <= each <= most or (each == 3 and cell is not LSTM):
        raise ArgumentError(
            f"{name}: weights must hold 2 arrays, or 4 with biases{', and one more if projected' * (most == 5)}, for "
            f"each of {num_layers * directions} directions of layers, got {len(weights)}"
        )
    arrays = [jnp.asarray(weight) for weight in weights]
    parts = [_weights(arrays[start : start + each]) for start in range(0, len(arrays), each)]
    return [parts[start : start + directions] for start in range(0, len(parts), directions)]


def _weights(arrays: list[Array]) -> Weights:
    """Of one direction: the two, the biases if there are four, and what projects if there are three or five."""
    by_input, by_state, *rest = arrays
    biases, projection = (rest[:2], rest[2:]) if len(rest) > 1 else ([None, None], rest)
    return Weights(by_input, by_state, *biases, *projection)
