"""The proof's torch side: the truth it finds, and the memory it takes."""

import copy

import jax
import numpy as np
import pytest
import torch
from torch import nn

import parity
from jaxnn import nn as jnn
from parity.checking.evaluation import TorchSide
from parity.checking.perturbation import copied
from parity.porting.proof.lean import LeanSide


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.norm = nn.BatchNorm1d(8)
        self.scale = nn.Parameter(torch.rand(8))

    def forward(self, x):
        # A mask of the model's own, in the dtype of a parameter.
        mask = torch.ones(8, dtype=self.scale.dtype)
        return nn.functional.linear(self.norm(self.embedding(x)) * self.scale * mask, self.embedding.weight)


class Clamped(nn.Linear):
    def forward(self, x):
        self.weight.data.clamp_(-0.1, 0.1)
        return super().forward(x)


def same(found, expected):
    # Not bit by bit: a layer that is watched uses no fused kernel.
    assert found.dtype == expected.dtype
    double = expected.dtype == np.float64  # and where terms of order one cancel, the error is of theirs
    np.testing.assert_allclose(found, expected, *((1e-12, 1e-14) if double else (1e-6, 1e-6)))


TOKENS = torch.arange(6)
MODELS = {
    "tied, in training": (Tied(), TOKENS),
    "recurrent": (nn.Sequential(nn.Embedding(7, 4), nn.LSTM(4, 3, 2)), TOKENS),
    "attention": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), torch.rand(2, 3, 8)),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 3)), torch.rand(2, 3, 9)),
    "written parameter": (Clamped(4, 3), torch.rand(2, 4)),
    "renormed embedding": (nn.Embedding(7, 4, max_norm=0.5), TOKENS),
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_converted_where_they_are_used_give_the_truth_of_a_model_in_float64(name):
    model, x = MODELS[name]
    before = copy.deepcopy(model.state_dict())
    lean, whole = LeanSide(model, ((x,), {})), TorchSide(model, ((x,), {}), gradients=False)
    for found, expected in ((lean.single, whole.single), (lean.exact(), whole.exact())):
        for part in ("outputs", "buffers"):
            jax.tree.map(same, getattr(found, part), getattr(expected, part))
    assert all(torch.equal(x, before[path]) for path, x in model.state_dict().items())


def test_neither_precision_takes_a_copy_of_the_weights(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    monkeypatch.setattr(torch, "clone", lambda x: pytest.fail("a copy of an array"))
    side = LeanSide(model, ((torch.rand(3, 4),), {}))
    monkeypatch.setattr(nn.Module, "double", lambda self: pytest.fail("a whole model in float64"))
    assert side.exact().outputs["output"].dtype == np.float64


def test_a_port_has_its_weights_once():
    model = nn.Linear(64, 64)
    port = parity.port(model, (torch.rand(2, 64),))
    held = np.asarray(jnn.state_dict(port.module)["weight"])
    assert np.shares_memory(held, port.arrays["weight"])
    expected = model.weight.detach().numpy().copy()
    with torch.no_grad():
        model.weight.zero_()
    np.testing.assert_array_equal(port.arrays["weight"], expected)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_a_model_that_keeps_what_it_computed_has_a_report():
    model = nn.utils.weight_norm(nn.Linear(3, 3))
    model(torch.rand(2, 3))
    assert parity.port(model, (torch.rand(2, 3),)).report.passed


class Single(nn.Linear):
    def __init__(self):
        super().__init__(3, 3)
        self.register_buffer("scale", torch.rand(3))

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        return super().forward(x) * self.scale


def test_buffers_of_a_module_that_is_never_copied_stay_as_they_are():
    model = nn.Sequential(Single())
    LeanSide(model, ((torch.rand(2, 3),), {})).exact()
    assert model[0].scale.dtype == torch.float32


class Aware(nn.Module):
    """Is copied with a look at what it holds."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.mode = inner, inner.training

    def __deepcopy__(self, memo):
        return Aware(copy.deepcopy(self.inner, memo))

    def forward(self, x):
        return self.inner(x)


def test_who_copies_itself_sees_whole_modules():
    assert copied(nn.Sequential(Aware(nn.Linear(2, 2))))[0].mode
