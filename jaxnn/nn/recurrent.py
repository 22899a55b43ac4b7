"""Recurrent layers: RNN, LSTM and GRU over whole sequences."""

import math
import warnings
from typing import Any, ClassVar

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int, Key

from jaxnn.functional import ArgumentError
from jaxnn.functional._recurrence import GRU as GRU_CELL
from jaxnn.functional._recurrence import LSTM as LSTM_CELL
from jaxnn.functional._recurrence import RELU, TANH, Cell, State, Weights
from jaxnn.functional._recurrent_layers import recurrent_layers
from jaxnn.nn.module import RandomModule, uniform_parameter, value

Input = Float[ArrayLike, "*sequence input_size"]
Output = Float[Array, "*sequence states"]
Hidden = Float[ArrayLike, "layers *batch state"]
Lengths = Int[ArrayLike, " batch"]


class _Recurrent(RandomModule):
    """Layers of one kind of cell, one above the other, forward or both ways.

    All parameters start uniform on the inverse square root of ``hidden_size``. In layer k they are ``weight_ih_lk``,
    ``weight_hh_lk``, ``bias_ih_lk``, ``bias_hh_lk`` and, with ``proj_size``, ``weight_hr_lk``; with ``_reverse`` behind
    it those of the way back.
    """

    cell: ClassVar[Cell]
    weight_ih_l0: nnx.Param

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        name = type(self).__name__
        _check_kinds(name, input_size=input_size, hidden_size=hidden_size, bias=bias, batch_first=batch_first)
        _check_sizes(name, input_size, hidden_size, num_layers, dropout, proj_size)
        super().__init__(rngs if dropout else None)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        gates, state = type(self).cell.gates * hidden_size, proj_size or hidden_size
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                features = input_size if layer == 0 else state * (1 + bidirectional)
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, features), "weight_hh": (gates, state)}
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for kind, shape in shapes.items():
                    drawn = uniform_parameter(rngs, shape, 1 / math.sqrt(hidden_size), device, dtype)
                    setattr(self, kind + suffix, drawn)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 1 + self.bidirectional]

    def _weights(self, suffix: str) -> Weights:
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return Weights(*(value(getattr(self, kind + suffix, None)) for kind in kinds))  # type: ignore[arg-type]

    def _run(
        self, input: Any, states: tuple[Any, ...] | None, lengths: Any, key: Key[Array, ""] | None
    ) -> tuple[Array, State]:
        """The output and the last states."""
        layers = [[self._weights(suffix) for suffix in self._suffixes(i)] for i in range(self.num_layers)]
        drop = self.dropout if self.training else 0.0
        key = self.drawn(key) if drop else None
        name = type(self).__name__
        return recurrent_layers(name, self._cell(), input, states, layers, self.batch_first, lengths, drop, key)

    def _cell(self) -> Cell:
        return type(self).cell

    def extra_repr(self) -> str:
        shown = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("proj_size", 0),
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0),
            ("bidirectional", False),
        ):
            if getattr(self, name) != default:
                shown += f", {name}={getattr(self, name)}"
        return shown


class _SingleState(_Recurrent):
    """Layers whose state is what they put out."""

    def __call__(
        self,
        input: Input,
        hx: Hidden | None = None,
        *,
        lengths: Lengths | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Output, Float[Array, "layers *batch state"]]:
        """The states of the last layer at every step, and those of all layers after the last.

        Args:
            input: ``(T, N, input_size)``, ``(N, T, input_size)`` with ``batch_first``, or ``(T, input_size)``.
            hx: the states before the first step, ``(num_layers * directions, N, hidden_size)``, zero unless given.
            lengths: of each sequence, in the place of torch's packed sequences; they need not be sorted. Outputs beyond
                them are zero.
            key: a ``jax.random.key`` for the dropout between layers, in place of the layer's own.

        Raises:
            ArgumentError: a shape, dtype or length that does not fit.
        """
        output, (final,) = self._run(input, None if hx is None else (hx,), lengths, key)
        return output, final


class RNN(_SingleState):
    r"""Elman's network, :math:`h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})`, or relu in place of tanh.

    Source: ``torch.nn.RNN``; Elman (1990).
    """

    cell = TANH

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f"RNN: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype, rngs=rngs
        )
        self.nonlinearity = nonlinearity

    def _cell(self) -> Cell:
        return RELU if self.nonlinearity == "relu" else TANH


class GRU(_SingleState):
    r"""Gated recurrent units.

    .. math:: r, z = \sigma(W_i x_t + b_i + W_h h_{t-1} + b_h), \quad
              n = \tanh(W_{in} x_t + b_{in} + r \odot (W_{hn} h_{t-1} + b_{hn})), \quad
              h_t = (1 - z) \odot n + z \odot h_{t-1}

    The gates stand in the weights in the order r, z, n.

    Source: ``torch.nn.GRU``; Cho et al. (2014).
    """

    cell = GRU_CELL

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype, rngs=rngs
        )


class LSTM(_Recurrent):
    r"""Long short-term memory.

    .. math:: i, f, o = \sigma(W x_t + b_i + U h_{t-1} + b_h), \quad g = \tanh(W_g x_t + b_{ig} + U_g h_{t-1} + b_{hg}),
              \quad c_t = f \odot c_{t-1} + i \odot g, \quad h_t = o \odot \tanh c_t

    The gates stand in the weights in the order i, f, g, o. With ``proj_size`` the state is a linear map of
    :math:`h_t` to so many features.

    Source: ``torch.nn.LSTM``; Hochreiter and Schmidhuber (1997), Sak et al. (2014).
    """

    cell = LSTM_CELL

    def __call__(
        self,
        input: Input,
        hx: tuple[Hidden, Hidden] | None = None,
        *,
        lengths: Lengths | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Output, tuple[Float[Array, "layers *batch state"], Float[Array, "layers *batch hidden"]]]:
        """The hidden states of the last layer at every step, and the states and cells of all after the last.

        Args:
            input: ``(T, N, input_size)``, ``(N, T, input_size)`` with ``batch_first``, or ``(T, input_size)``.
            hx: hidden states and cells before the first step, ``(num_layers * directions, N, proj_size or
                hidden_size)`` and ``(num_layers * directions, N, hidden_size)``, zero unless given.
            lengths: of each sequence, in the place of torch's packed sequences; they need not be sorted. Outputs beyond
                them are zero.
            key: a ``jax.random.key`` for the dropout between layers, in place of the layer's own.

        Raises:
            ArgumentError: a shape, dtype or length that does not fit.
        """
        output, (hidden, memory) = self._run(input, hx, lengths, key)
        return output, (hidden, memory)


def _check_kinds(name: str, **arguments: Any) -> None:
    for argument, found in arguments.items():
        kind = int if argument.endswith("size") else bool
        if not isinstance(found, kind):
            raise TypeError(f"{name}: {argument} must be {kind.__name__}, got {type(found).__name__}")


def _check_sizes(name: str, inputs: int, hidden: int, layers: int, dropout: float, projected: int) -> None:
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise ArgumentError(f"{name}: dropout must be a probability, between 0 and 1, got {dropout!r}")
    for argument, found in (("input_size", inputs), ("hidden_size", hidden), ("num_layers", layers)):
        if found <= 0:
            raise ArgumentError(f"{name}: {argument} must be positive, got {found}")
    if not 0 <= projected < hidden:
        raise ArgumentError(
            f"{name}: proj_size must be 0 (no projection) or less than hidden_size={hidden}, got {projected}"
        )
    if dropout and layers == 1:
        warnings.warn(
            f"{name}: dropout acts between layers; with num_layers=1 dropout={dropout} does nothing", stacklevel=4
        )
