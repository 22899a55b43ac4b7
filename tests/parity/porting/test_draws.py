"""What is dropped out and drawn in the mode in which a model is not exported."""

from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parity.porting import port
from tests.parity.porting.architectures import DroppedAttention

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


class Rates(nn.Module):
    """Dropouts on one line, whose rates only training shows; slopes that it draws; and a dropout that is never on."""

    def forward(self, x):
        for rate in (0.3, 0.4):
            x = F.dropout(x + 0, rate if self.training else 0.0, inplace=True) + F.alpha_dropout(
                x, rate, training=False
            )
        return F.rrelu(x, training=self.training)


@pytest.mark.parametrize(("model", "x"), [(Rates(), X), (DroppedAttention(), torch.ones(2, 4, 8))])
def test_a_rate_that_the_model_sets_to_zero_in_evaluation_is_that_of_training(model, x):
    trained, evaluated = (port(model.train(mode), (x,), verify=False) for mode in (True, False))
    assert evaluated.source == trained.source.replace("deterministic = False", "deterministic = True")
    assert evaluated.notes == []


class Always(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.2)


@pytest.mark.parametrize("train", [False, True])
def test_what_drops_out_in_evaluation_too_does_so_in_the_port(train):
    written = port(Always().train(train), (X,))
    assert "F.dropout(x, 0.2, key=self.rngs())" in written.source
    assert written.notes == []


class Depth(nn.Module):
    """Stochastic depth, and a rate, in training, which wants targets."""

    def forward(self, x, target=None):
        if self.training:
            x = x * torch.bernoulli(torch.full((len(x), 1), 0.9))
        x = F.dropout(x, 0.1 if target is not None else 0.0)
        return x - target if self.training else x


def test_what_training_draws_and_evaluation_does_not_is_said():
    (depth,) = port(Depth().eval(), (X,), verify=False).notes
    assert "drawn in training, not in evaluation; the port, exported in evaluation" in depth
    assert "x = x * torch.bernoulli" in depth


class Scaled(nn.Module):
    """Halved in training."""

    def forward(self, x):
        if self.training:
            x = x / 2
        return self.shifted(x)

    def shifted(self, x):
        return x if self.training else x + 1


def test_what_one_mode_alone_computes_is_said():
    halved, shifted = port(Scaled().eval(), (X,)).notes
    assert "computed in training, not in evaluation; the port does in neither: x = x / 2" in halved
    assert "computed in evaluation, not in training; the port does in both: return self.shifted(x)" in shifted


class Kept(nn.Module):
    """A bias that evaluation keeps, by other lines than those that make it in training."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.biases, self.shift, self.kept = nn.Parameter(torch.randn(2, 4)), shift, {}
        self.register_buffer("places", torch.tensor([1, 0, 1]))

    def bias(self):
        if self.training:
            return self.biases[self.places, :3]
        if "bias" not in self.kept:
            self.kept["bias"] = self.biases[self.places, : 3 + self.shift]
        return self.kept["bias"]

    def forward(self, x):
        return x[:, :1] + self.bias().sum(-1)


def test_what_both_modes_compute_on_lines_of_their_own_is_not_said():
    assert port(Kept(0).eval(), (X,)).notes == []
    assert len(port(Kept(1).eval(), (X,)).notes) == 2


class Shared(nn.Module):
    """Two paths through one layer with a dropout of its own, and chance in training at each."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.other = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2))

    def deep(self, x):
        return x * torch.rand(len(x), 1) if self.training else x

    def forward(self, x):
        x = self.deep(self.one(x))
        return self.deep(self.other(x))


@pytest.mark.parametrize("train", [False, True])
def test_the_same_is_said_once_and_nothing_of_a_layer_in_a_model_that_shares_some(train):
    (said,) = port(Shared().train(train), (X,), verify=False).notes
    assert "x * torch.rand" in said


class Deciding(nn.Module):
    """Notes where it runs in training, and may ask there what the numbers are."""

    devices: ClassVar[list[str]] = []

    def __init__(self, asks: bool) -> None:
        super().__init__()
        self.asks = asks

    def forward(self, x):
        if not self.training:
            return x
        self.devices.append(x.device.type)
        return F.dropout(x, 0.25) if not self.asks or bool((x == x).all()) else x


@pytest.mark.parametrize(("asks", "devices"), [(False, ["meta"]), (True, ["meta", "cpu"])])
def test_the_other_mode_runs_without_numbers_and_with_them_only_where_they_matter(asks, devices):
    Deciding.devices.clear()
    ported = port(Deciding(asks).eval(), torch.randn(2, 3), verify=False)
    assert Deciding.devices == devices
    assert any("drawn in training" in note for note in ported.notes)


class Targeted(nn.Module):
    def forward(self, x, target=None):
        y = target + 1 if self.training else x
        return F.dropout(y, 0.1 if self.training else 0.0)


def test_a_rate_that_cannot_be_told_is_said_to_be_that_of_evaluation():
    (said,) = port(Targeted().eval(), (X,), verify=False).notes
    assert "the rate in training is not known: unsupported operand" in said


class Own(nn.MultiheadAttention):
    """Attention with a residual, which no layer has."""

    weighs = False

    def forward(self, x):
        return x + super().forward(x, x, x, need_weights=self.weighs)[0]


def test_attention_that_does_not_stay_a_layer_drops_in_training_or_says_that_it_does_not():
    own = Own(4, 2, dropout=0.3)
    evaluated, trained = (port(own.train(mode), X[None], verify=False) for mode in (False, True))
    assert evaluated.source == trained.source.replace("deterministic = False", "deterministic = True")
    assert "dropout_p=" in evaluated.source
    assert evaluated.notes == []
    own.weighs = True
    (said,) = port(own.eval(), X[None], verify=False).notes
    assert "drawn in training, not in evaluation" in said


class Unread(nn.Module):
    """An auxiliary head that drops out and whose result nobody takes, before a dropout of the same size that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))

    def forward(self, x):
        x = self.body(x)
        self.head(x)
        return F.dropout(x, 0.3, self.training)


def test_what_a_head_draws_that_nobody_reads_is_not_missed_in_the_port():
    ported = port(Unread().train(), (X,))
    assert "self.head(" not in ported.source
    assert ported.report.passed
    assert not ported.report.faults
