"""A check leaves both models as they were, whatever their passes write."""

import random

import numpy as np
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn, optim
from parity import weights


class Log:
    """An object of the model's own, which holds no layer."""

    def __init__(self):
        self.lines = [0]


class Writing:
    """What both models do: statistics, random numbers of every source, plain attributes and what these hold."""

    def note(self):
        self.count, self.numbers, self.table, self.log = 0, np.random.default_rng(0), {"last": [0]}, Log()
        self.places, self.seen, self.raises = random.Random(0), {0}, False

    def written(self, x):
        self.count += 1
        self.table["last"].append(self.count)
        self.table[str(self.count)] = self.count
        self.seen.add(self.count)
        self.log.lines[0] += 1
        self.log.last = self.count
        x = x * float(self.numbers.normal()) + self.places.random()
        if self.raises:
            raise RuntimeError("as asked")
        return x


class Torch(torch.nn.Module, Writing):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)
        self.linear = torch.nn.Linear(4, 4)
        self.note()

    def forward(self, x):
        return self.written(self.drop(self.norm(self.linear(x))))


class Port(nnx.Module, Writing):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.norm, self.drop, self.linear = nn.BatchNorm1d(4), nn.Dropout(0.5, rngs=rngs), nn.Linear(4, 4, rngs=rngs)
        self.note()

    def __call__(self, x):
        return self.written(self.drop(self.norm(self.linear(x))))


def held(model):
    """Everything that a pass of ``model`` writes, as plain data."""
    arrays = {name: np.asarray(x).tolist() for name, x in weights.load(model).items()}
    streams = nnx.state(model, nnx.RngState) if isinstance(model, nnx.Module) else ()
    plain = (model.count, repr(model.table), sorted(model.seen), repr(vars(model.log)), model.places.getstate())
    return arrays, repr(streams), plain, model.numbers.bit_generator.state


@pytest.mark.parametrize("raises", ["nobody", "the port", "both"])
@pytest.mark.parametrize("gradients", [False, True])
def test_both_models_hold_behind_a_check_what_they_held_before(gradients, raises):
    torch.manual_seed(0)
    theirs, ours = Torch(), Port()
    nn.load_state_dict(ours, weights.load(theirs))
    theirs.raises, ours.raises = raises == "both", raises != "nobody"
    before = held(theirs), held(ours)
    x = torch.randn(6, 4)
    if raises == "both":
        with pytest.raises(RuntimeError, match="as asked"):
            parity.check(theirs, ours, x, gradients=gradients)
    else:
        report = parity.check(theirs, ours, x, gradients=gradients)
        assert report.passed == (raises == "nobody"), report
    assert (held(theirs), held(ours)) == before


def test_training_and_an_audit_leave_a_port_as_it_was():
    torch.manual_seed(0)
    theirs, ours = Torch(), Port()
    nn.load_state_dict(ours, weights.load(theirs))
    before, x = (held(theirs), held(ours)), torch.randn(6, 4)
    sgd = (lambda p: torch.optim.SGD(p, lr=0.1), optim.SGD(lr=0.1))
    parity.check_training(theirs, ours, *sgd, lambda model, x: (model(x) ** 2).mean(), [(x,)])
    parity.precision_audit(theirs, ours, x)
    assert (held(theirs), held(ours)) == before
