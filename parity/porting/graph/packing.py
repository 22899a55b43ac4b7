"""Recurrent layers as one operator each, and packed sequences as what jaxnn's layers take: an array and the lengths.

How many entries a packed sequence has depends on the data. While a model is exported nothing is packed: what stands for
the packed sequence keeps the padded array, and the layers are given the lengths beside it.
"""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from parity.porting.graph.nodes import packet
from parity.standing_in import in_place_of

RECURRENT = (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU)
_FORWARD: dict[Any, Any] = {kind: kind.forward for kind in RECURRENT}

RECURRENT_OPERATORS = {f"parity.{kind.__name__.lower()}.default" for kind in RECURRENT}

_LIBRARY = torch.library.Library("parity", "DEF")
for _layer in RECURRENT:
    _LIBRARY.define(
        f"{_layer.__name__.lower()}(Tensor input, Tensor? lengths, Tensor[] hx, Tensor[] weights, int directions, "
        "int num_layers, int[] widths, str mode, float dropout, bool batch_first) -> Tensor[]"
    )


def _shapes(
    input: Tensor,
    lengths: Tensor | None,
    hx: list[Tensor],
    weights: list[Tensor],
    directions: int,
    num_layers: int,
    widths: list[int],
    mode: str,
    dropout: float,
    batch_first: bool,
) -> list[Tensor]:
    """What stands for the output and the last states, in the layout that torch gives them."""
    swapped = batch_first and input.ndim == 3
    *steps, _ = (input.transpose(0, 1) if swapped else input).shape
    output = input.new_empty(*steps, directions * widths[0])
    states = [input.new_empty(directions * num_layers, *steps[1:], width) for width in widths]
    # Sizes that are free become equal here.
    if lengths is not None and tuple(lengths.shape) != tuple(steps[1:]):
        raise ValueError(f"expected a length for each of {steps[1:]} sequences, got {tuple(lengths.shape)}")
    for given, state in zip(hx, states, strict=False):
        if given.shape != state.shape:
            raise ValueError(f"expected a state of shape {tuple(state.shape)}, got {tuple(given.shape)}")
    return [output.transpose(0, 1) if swapped else output, *states]


def _computed(
    input: Tensor, lengths: Tensor | None, hx: list[Tensor], weights: list[Tensor], *options: Any
) -> list[Tensor]:
    """What it is for numbers, in evaluation, where nothing is packed."""
    directions, num_layers, widths, mode, _, batch_first = options
    if lengths is not None:
        raise NotImplementedError("lengths")
    if input.shape[-1] != weights[0].shape[1]:  # torch's function trusts its layer to have looked
        raise ValueError(f"expected an input of width {weights[0].shape[1]}, got {input.shape[-1]}")
    batch = input.shape[0 if batch_first else 1]
    states = hx or [input.new_zeros(directions * num_layers, batch, width) for width in widths]
    biased = len(weights) >= 4 * num_layers * directions
    function, given = getattr(torch._VF, mode.lower()), states if mode == "LSTM" else states[0]
    return list(function(input, given, weights, biased, num_layers, 0.0, False, directions == 2, batch_first))


for _layer in RECURRENT:
    torch.library.register_fake(f"parity::{_layer.__name__.lower()}", _shapes)
    _LIBRARY.impl(_layer.__name__.lower(), _computed, "CPU")


def _kind(layer: torch.nn.Module) -> Any:
    return next(kind for kind in RECURRENT if isinstance(layer, kind))


def _traced(self: Any, input: Tensor, hx: Any = None, *, lengths: Tensor | None = None) -> Any:
    """``forward`` of a recurrent layer as one operator."""
    kind = _kind(self)
    lstm = kind is torch.nn.LSTM
    widths = [self.proj_size or self.hidden_size, self.hidden_size][: 1 + lstm]
    given = [] if hx is None else list(hx) if lstm else [hx]
    weights = [getattr(self, name) for name in self._flat_weights_names]
    operator = getattr(torch.ops.parity, kind.__name__.lower())
    sizes = 1 + self.bidirectional, self.num_layers, widths
    output, *states = operator(input, lengths, given, weights, *sizes, self.mode, self.dropout, self.batch_first)
    return output, tuple(states) if lstm else states[0]


def _called(self: Any, *args: Any, **kwargs: Any) -> Any:
    """A recurrent layer called with what stands for a packed sequence."""
    bound = inspect.signature(self.forward).bind(*args, **kwargs).arguments
    if not isinstance(bound.get("input"), PackedSequence):
        return torch.nn.Module.__call__(self, *args, **kwargs)
    padded, places, _ = _padded(bound["input"], self.batch_first)
    states = [bound["hx"]] if "hx" in bound else []
    output, last = torch.nn.Module.__call__(self, padded, *states, lengths=places.lengths)
    return _standing(output, places, self.batch_first, True), last


@dataclass(eq=False)
class Places:
    """Which entries of padded sequences are of them; stands in a packed sequence where torch has ``batch_sizes``."""

    lengths: Tensor
    steps: Any  # the longest that a sequence can be
    _mask: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Torch wants it on the CPU."""
        return torch.device("cpu")

    def mask(self) -> Tensor:
        """Of shape ``(batch, steps)``; one array, however often it is asked for."""
        if self._mask is None:
            self._mask = torch.arange(self.steps) < self.lengths[:, None]
        return self._mask


class Padded(PackedSequence):
    """Stands for a packed sequence: the padded array, and its places."""

    padded: Tensor | None = None
    batch_first = True
    zeros = False  # whether the array is zero beyond the lengths

    @property
    def data(self) -> Tensor:
        """The entries, in another order than torch's."""
        places: Any = self.batch_sizes
        return self[0] if self.padded is None else _swapped(self.padded, self.batch_first, True)[places.mask()]


def _swapped(x: Tensor, batch_first: bool, wanted: bool) -> Tensor:
    return x if batch_first == wanted else x.transpose(0, 1)


def _standing(padded: Tensor, places: Any, batch_first: bool, zeros: bool) -> Padded:
    nothing: Any = None
    sequence: Any = Padded(nothing, places)
    sequence.padded, sequence.batch_first, sequence.zeros = padded, batch_first, zeros
    return sequence


def _padded(sequence: Any, batch_first: bool) -> tuple[Tensor, Places, bool]:
    """The padded array, its places, and whether it is zero beyond the lengths."""
    places = sequence.batch_sizes
    if not isinstance(places, Places):
        raise NotImplementedError("a packed sequence that the model has not packed itself")
    if getattr(sequence, "padded", None) is None:
        raise NotImplementedError("a packed sequence made of another one's entries, whose number depends on the data")
    return _swapped(sequence.padded, sequence.batch_first, batch_first), places, sequence.zeros


@dataclass
class Packings:
    """Packs and unpacks in torch's place, with nothing packed.

    Attributes:
        traced: whether a model is exported, where no length is known.
        cut: whether torch cuts a result to the longest sequence, which an export does not.
    """

    traced: bool = True
    cut: bool = False

    def pack(self, input: Tensor, lengths: Any, batch_first: bool, enforce_sorted: bool) -> PackedSequence:
        """``pack_padded_sequence``, with nothing packed."""
        lengths = lengths if isinstance(lengths, Tensor) else torch.as_tensor(lengths)
        if lengths.is_floating_point():
            lengths = lengths.to(torch.int64)
        return _standing(input, Places(lengths, input.shape[1 if batch_first else 0]), batch_first, False)

    def pad(
        self, sequence: PackedSequence, batch_first: bool, padding_value: float, total_length: Any
    ) -> tuple[Tensor, Tensor]:
        """``pad_packed_sequence``: of ``total_length`` or as many steps as there were before packing."""
        padded, places, zeros = _padded(sequence, batch_first)
        if not zeros or padding_value != 0:
            mask = _swapped(places.mask(), True, batch_first)
            padded = padded.where(mask.reshape(*mask.shape, *[1] * (padded.ndim - 2)), padding_value)
        axis = 1 if batch_first else 0
        if total_length is None and not self.traced:
            padded = padded.narrow(axis, 0, int(places.lengths.max()))
        elif total_length is None:
            self.cut = True
        elif not statically_known_true(total_length == places.steps):
            if total_length > places.steps:
                more = [0, 0] * (padded.ndim - 1 - axis) + [0, total_length - places.steps]
                padded = torch.nn.functional.pad(padded, more, value=padding_value)
            else:
                padded = padded.narrow(axis, 0, total_length)
        return padded, places.lengths.to(torch.int64)


@contextmanager
def unpacked(packings: Packings) -> Iterator[None]:
    """Recurrent layers take the lengths beside the padded array, and ``packings`` does what packs and unpacks."""
    with (
        in_place_of(pack_padded_sequence, _packs, packings.pack) as pack,
        in_place_of(pad_packed_sequence, _pads, packings.pad) as pad,
        ExitStack() as stack,
    ):

        def forward(self: Any, input: Tensor, hx: Any = None, *, lengths: Tensor | None = None) -> Any:
            if lengths is None:
                return _FORWARD[_kind(self)](self, input, hx)
            packed = pack(input, lengths, self.batch_first, False)
            output, last = _FORWARD[_kind(self)](self, packed, hx)
            return pad(output, self.batch_first, 0.0, input.shape[1 if self.batch_first else 0])[0], last

        for kind in _FORWARD:
            stack.callback(setattr, kind, "forward", kind.forward)
            stack.callback(delattr, kind, "__call__")
            kind.forward, kind.__call__ = _traced if packings.traced else forward, _called
        yield


def _packs(input, lengths, batch_first=False, enforce_sorted=True):  # type: ignore[no-untyped-def]
    return pack_padded_sequence.instead(input, lengths, batch_first, enforce_sorted)


def _pads(sequence, batch_first=False, padding_value=0.0, total_length=None):  # type: ignore[no-untyped-def]
    return pad_packed_sequence.instead(sequence, batch_first, padding_value, total_length)


def length_sources(graph: Graph) -> tuple[list[tuple[Node, Any]], list[Node]]:
    """The inputs that are lengths, each with the steps of what was packed; and those that lengths are computed of."""
    given: list[tuple[Node, Any]] = []
    behind: dict[Node, None] = {}
    for node in graph.nodes:
        if str(node.target) not in RECURRENT_OPERATORS or node.args[1] is None:
            continue
        lengths, (input, batch_first) = node.args[1], (node.args[0].meta["val"], node.args[-1])
        while packet(lengths) in ("to", "_to_copy", "alias", "detach", "clone"):
            lengths = lengths.args[0]
        if lengths.op == "placeholder":
            given.append((lengths, input.shape[1 if batch_first else 0]))
            continue
        pending = [lengths]
        while pending:
            source = pending.pop()
            pending += [x for x in source.all_input_nodes if x not in behind]
            behind |= dict.fromkeys(source.all_input_nodes)
    return given, [node for node in behind if node.op == "placeholder"]


@contextmanager
def noticed_cuts(cuts: list[str]) -> Iterator[None]:
    """Adds to ``cuts`` where ``pad_packed_sequence`` gives fewer steps than there were before."""
    steps: dict[int, tuple[Tensor, int]] = {}

    def pack(input: Tensor, lengths: Any, batch_first: bool, enforce_sorted: bool) -> PackedSequence:
        sequence = packs(input, lengths, batch_first, enforce_sorted)
        steps[id(sequence.batch_sizes)] = sequence.batch_sizes, input.shape[1 if batch_first else 0]
        return sequence

    def pad(sequence: PackedSequence, batch_first: bool, padding_value: float, total_length: int | None) -> Any:
        longest = len(sequence.batch_sizes)
        _, given = steps.get(id(sequence.batch_sizes), (None, longest))
        if total_length is None and longest < given:
            cuts.append(f"{longest} of {given}")
        return pads(sequence, batch_first, padding_value, total_length)

    with (
        in_place_of(pack_padded_sequence, _packs, pack) as packs,
        in_place_of(pad_packed_sequence, _pads, pad) as pads,
    ):
        yield
