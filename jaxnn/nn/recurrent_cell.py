"""Single steps of recurrent layers."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from jaxnn.functional import ArgumentError
from jaxnn.functional._recurrence import GRU, LSTM, RELU, TANH, Cell, State, Weights
from jaxnn.functional._recurrent_layers import recurrent_step
from jaxnn.nn.module import Module, uniform_parameter, value

Input = Float[ArrayLike, "*batch input_size"]
Hidden = Float[ArrayLike, "*batch hidden_size"]
NewHidden = Float[Array, "*batch hidden_size"]


class _RecurrentCell(Module):
    """One step of one layer. All parameters start uniform on the inverse square root of ``hidden_size``.

    Attributes:
        weight_ih: ``(gates * hidden_size, input_size)``.
        weight_hh: ``(gates * hidden_size, hidden_size)``.
        bias_ih: ``(gates * hidden_size,)``, or None.
        bias_hh: ``(gates * hidden_size,)``, or None.
    """

    cell: ClassVar[Cell]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: object = True,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if input_size < 0 or hidden_size < 0:
            raise ArgumentError(
                f"{type(self).__name__}: sizes cannot be negative, got input_size={input_size}, "
                f"hidden_size={hidden_size}"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bool(bias)  # torch takes whatever is true or false
        rows, bound = type(self).cell.gates * hidden_size, 1 / math.sqrt(hidden_size) if hidden_size else 0.0
        self.weight_ih = uniform_parameter(rngs, (rows, input_size), bound, device, dtype)
        self.weight_hh = uniform_parameter(rngs, (rows, hidden_size), bound, device, dtype)
        self.bias_ih = uniform_parameter(rngs, (rows,), bound, device, dtype) if bias else None
        self.bias_hh = uniform_parameter(rngs, (rows,), bound, device, dtype) if bias else None

    def _step(self, cell: Cell, input: Any, states: tuple[Any, ...] | None, labels: tuple[str, ...]) -> State:
        name, x = type(self).__name__, jnp.asarray(input)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ArgumentError(
                f"{name}: input must be (N, input_size) or (input_size,) with input_size={self.input_size}, "
                f"got shape {x.shape}"
            )
        expected = (*x.shape[:-1], self.hidden_size)
        arrays = tuple(jnp.zeros(expected, x.dtype) for _ in labels) if states is None else states
        arrays = tuple(jnp.asarray(state) for state in arrays)
        for label, array in zip(labels, arrays, strict=True):
            if array.shape != expected:
                raise ArgumentError(f"{name}: {label} must have shape {expected}, got {array.shape}")
        weights = Weights(self.weight_ih[...], self.weight_hh[...], value(self.bias_ih), value(self.bias_hh))
        if x.ndim == 2:
            return recurrent_step(cell, x, arrays, weights)
        new = recurrent_step(cell, x[None], tuple(array[None] for array in arrays), weights)
        return tuple(array[0] for array in new)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_RecurrentCell):
    """A step of :class:`RNN`. Source: ``torch.nn.RNNCell``."""

    cell = TANH

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: object = True,
        nonlinearity: str = "tanh",
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype, rngs=rngs)
        self.nonlinearity = nonlinearity

    def __call__(self, input: Input, hx: Hidden | None = None) -> NewHidden:
        """The new state ``(N, hidden_size)``, from ``input`` ``(N, input_size)`` and ``hx``, zero unless given."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f"RNNCell: nonlinearity must be 'tanh' or 'relu', got {self.nonlinearity!r}")
        cell = TANH if self.nonlinearity == "tanh" else RELU
        return self._step(cell, input, None if hx is None else (hx,), ("hx",))[0]

    def extra_repr(self) -> str:
        shown = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + shown


class GRUCell(_RecurrentCell):
    """A step of :class:`GRU`. Source: ``torch.nn.GRUCell``."""

    cell = GRU

    def __call__(self, input: Input, hx: Hidden | None = None) -> NewHidden:
        """The new state ``(N, hidden_size)``, from ``input`` ``(N, input_size)`` and ``hx``, zero unless given."""
        return self._step(GRU, input, None if hx is None else (hx,), ("hx",))[0]


class LSTMCell(_RecurrentCell):
    """A step of :class:`LSTM`. Source: ``torch.nn.LSTMCell``."""

    cell = LSTM

    def __call__(self, input: Input, hx: tuple[Hidden, Hidden] | None = None) -> tuple[NewHidden, NewHidden]:
        """The new hidden state and cell, from ``input`` ``(N, input_size)`` and both before, zero unless given."""
        hidden, memory = self._step(LSTM, input, hx, ("hx[0]", "hx[1]"))
        return hidden, memory
