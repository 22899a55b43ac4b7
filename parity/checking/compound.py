"""Parameters of flax's attention and recurrent cells that are parts of torch's: one array here, several there."""

from collections.abc import Iterator
from types import EllipsisType
from typing import Any

import numpy as np
import torch

from parity.checking.alignment import Layout

Rows = slice | EllipsisType

Part = tuple[str, str, Any, str, Rows, Layout]
"""Torch's name, the way to the port's layer and that layer, the name of its array, the rows of torch's that it is, and
how it lies."""

ALL: Rows = ...
"""Of any array, one without axes too."""

_GATES = {torch.nn.LSTM: "ifgo", torch.nn.LSTMCell: "ifgo", torch.nn.GRU: "rzn", torch.nn.GRUCell: "rzn"}
"""In torch's order, which is flax's where it keeps the gates of a cell in one array."""


def parts(torch_layer: torch.nn.Module, jax_layer: Any) -> Iterator[Part]:
    """The arrays of a flax layer that a torch layer keeps joined, or the layers in it otherwise named.

    A recurrent layer's biases are left out: torch adds two where flax has one.
    """
    if isinstance(torch_layer, torch.nn.MultiheadAttention):
        yield from _of_attention(torch_layer, jax_layer)
    elif isinstance(torch_layer, torch.nn.RNNBase | torch.nn.RNNCellBase):
        yield from _of_recurrence(torch_layer, jax_layer)


def _of_attention(torch_layer: torch.nn.MultiheadAttention, jax_layer: Any) -> Iterator[Part]:
    width, joined = torch_layer.embed_dim, torch_layer.in_proj_weight is not None
    for i, role in enumerate(("query", "key", "value")):
        rows = slice(i * width, (i + 1) * width)
        name, of_it = ("in_proj_weight", rows) if joined else (f"{role[0]}_proj_weight", ALL)
        layer = getattr(jax_layer, role, None)
        yield from _transposed(name, of_it, role, layer, "kernel")
        yield from _as_it_is("in_proj_bias", rows, role, layer)
    out = getattr(jax_layer, "out", None)
    yield from _transposed("out_proj.weight", ALL, "out", out, "kernel")
    yield from _as_it_is("out_proj.bias", ALL, "out", out)


def _of_recurrence(torch_layer: Any, jax_layer: Any) -> Iterator[Part]:
    gates, width = _GATES.get(type(torch_layer), " "), torch_layer.hidden_size
    for suffix, way, cell in _cells(torch_layer, jax_layer):
        for side in ("i", "h"):
            name = f"weight_{side}h{suffix}"
            yield from _transposed(name, ALL, f"{way}dense_{side}", getattr(cell, f"dense_{side}", None), "kernel")
            for i, gate in enumerate(gates):
                key = next((key for key in (side + gate, f"{side}{gate}_") if hasattr(cell, key)), "")
                rows = slice(i * width, (i + 1) * width)
                yield from _transposed(name, rows, way + key, getattr(cell, key, None), "kernel")


def _cells(torch_layer: Any, jax_layer: Any) -> Iterator[tuple[str, str, Any]]:
    """The suffix of torch's names, the way to the cell, and it."""
    if isinstance(torch_layer, torch.nn.RNNCellBase):
        yield "", "", jax_layer
    elif torch_layer.num_layers == 1 and not torch_layer.bidirectional:
        yield "_l0", "cell.", getattr(jax_layer, "cell", None)
    elif torch_layer.num_layers == 1:
        for suffix, name in (("", "forward_rnn"), ("_reverse", "backward_rnn")):
            yield f"_l0{suffix}", f"{name}.cell.", getattr(getattr(jax_layer, name, None), "cell", None)


def _transposed(name: str, rows: Rows, way: str, layer: Any, key: str) -> Iterator[Part]:
    if (array := getattr(layer, key, None)) is not None:
        yield name, way, layer, key, rows, Layout((1, 0), np.shape(array))


def _as_it_is(name: str, rows: Rows, way: str, layer: Any) -> Iterator[Part]:
    if (array := getattr(layer, "bias", None)) is not None:
        yield name, way, layer, "bias", rows, Layout((0,), np.shape(array))
