"""The proof of a port where the model's weights hide what it computes."""

import jax.numpy as jnp
import pytest
import torch

import parity
from parity.porting import port
from parity.porting.operators.registry import TABLE

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


class Asleep(torch.nn.Module):
    """A branch that begins scaled by a millionth, and a shift that begins at zero."""

    def __init__(self):
        super().__init__()
        self.gamma = torch.nn.Parameter(torch.full((4,), 1e-6))
        self.shift = torch.nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return x + self.gamma * torch.tanh(x) + self.shift


def test_a_branch_that_weights_hide_is_proven_and_the_model_keeps_its_weights(monkeypatch):
    model = Asleep()
    assert port(model, X).report.passed
    monkeypatch.setitem(TABLE, "aten.tanh", lambda op: op.call("jnp.sin", op.self))
    with pytest.raises(parity.DivergenceError):
        port(model, X)
    assert (model.gamma == 1e-6).all()
    assert (model.shift == 0).all()


class Logarithm(torch.nn.Module):
    """Takes no other weights: of another sign it would give no number."""

    def __init__(self):
        super().__init__()
        self.levels = torch.nn.Parameter(torch.zeros(64, 4))

    def forward(self, x):
        return x * torch.log1p(1e3 * self.levels).sum(0)


def test_weights_that_may_be_no_others_are_left_as_they_are():
    written = port(Logarithm(), X)
    assert (written.module(jnp.asarray(X.numpy())) == 0).all()
    assert not written.notes
