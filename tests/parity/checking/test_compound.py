"""Flax's attention and recurrent cells, whose arrays are parts of torch's."""

import pytest
import torch
from flax import nnx

import parity
from parity.checking.pairing import aliases, standing_for
from parity.checking.tree import aligned_paths


class Whole(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        attends = isinstance(self.layer, torch.nn.MultiheadAttention)
        return self.layer(x, x, x)[0] if attends else self.layer(x)[0]


class Port(nnx.Module):
    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x)


def rnn(cell):
    return nnx.RNN(cell(3, 4, rngs=nnx.Rngs(0)))


PAIRS = {
    "attention": (
        lambda: torch.nn.MultiheadAttention(4, 2, batch_first=True),
        lambda: nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0)),
        4,
    ),
    "lstm": (lambda: torch.nn.LSTM(3, 4, batch_first=True), lambda: rnn(nnx.LSTMCell), 3),
    "joined lstm": (
        lambda: torch.nn.LSTM(3, 4, batch_first=True, bidirectional=True),
        lambda: nnx.Bidirectional(rnn(nnx.OptimizedLSTMCell), rnn(nnx.OptimizedLSTMCell)),
        3,
    ),
    "gru": (lambda: torch.nn.GRU(3, 4, batch_first=True), lambda: rnn(nnx.GRUCell), 3),
    "rnn": (lambda: torch.nn.RNN(3, 4, batch_first=True), lambda: rnn(nnx.SimpleCell), 3),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_weights_that_torch_joins_have_gradients_to_compare(kind):
    torch.manual_seed(0)
    layer, port, width = PAIRS[kind]
    theirs, ours, x = Whole(layer()), Port(port()), torch.randn(2, 5, width)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "bias" in name:
                parameter.zero_()  # of which torch's recurrent layers have two, flax's one
    twins = aliases(theirs, ours, aligned_paths(theirs, ours))
    with standing_for(twins, theirs):
        for pair in twins.values():
            pair.ours = pair.slot.get()
        report = parity.check(theirs, ours, x)
        assert report.passed, report
        weights = {name for name, _ in theirs.named_parameters() if "weight" in name or kind == "attention"}
        assert weights <= {row.name for row in report.rows if row.kind == "gradient"}
        lacking = [note for note in report.notes if note.startswith("only in the port")]
        assert bool(lacking) == (kind != "attention")
        assert not any(note.startswith("different") for note in report.notes)
