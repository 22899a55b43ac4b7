"""What a model holds or computes besides its parameters, and its port has otherwise."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity import weights


class Drawn:
    """Constants drawn when a model is made."""

    def draw(self, seed):
        numbers = np.random.default_rng(seed)
        self.gain = float(numbers.uniform(0.5, 1.5))
        self.mask = numbers.uniform(0.5, 2, 8).astype("float32")
        self.waves = numbers.normal(size=(8, 4)).astype("float32")


class TorchFeatures(torch.nn.Module, Drawn):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(6, 8), torch.nn.Linear(4, 3)
        self.draw(0)

    def forward(self, x):
        x = self.first(x) * self.gain * torch.from_numpy(self.mask)
        return self.last(torch.sin(x @ torch.from_numpy(self.waves)))


class Features(nnx.Module, Drawn):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first, self.last = nn.Linear(6, 8, rngs=rngs), nn.Linear(4, 3, rngs=rngs)
        self.draw(0)

    def __call__(self, x):
        return self.last(jnp.sin((self.first(x) * self.gain * self.mask) @ self.waves))


def found(theirs, ours, x):
    nn.load_state_dict(ours, weights.load(theirs))
    return parity.check(theirs, ours, x, gradients=False)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("gain",), "its gain is "),
        (("mask",), "its mask holds other numbers than torch's"),
        (("waves",), "its waves holds other numbers than torch's"),
        (("mask", "waves"), "mask, waves are other constants than torch's"),
        ((), ""),
    ],
)
def test_a_constant_that_was_drawn_anew_is_named(names, said):
    torch.manual_seed(0)
    theirs, ours, other = TorchFeatures(), Features(), Drawn()
    other.draw(3)
    for name in names:
        setattr(ours, name, getattr(other, name))
    report = found(theirs, ours, torch.randn(20, 6))
    assert report.passed == (not names), report
    assert not names or said in report.faults[0].reason, report


def test_numbers_of_a_constant_that_the_port_does_not_hold_are_sought():
    class Torch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)) * torch.from_numpy(np.linspace(0.5, 2, 8, dtype="float32")))

    class Port(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.first, self.last = nn.Linear(6, 8, rngs=rngs), nn.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.first(x)) * np.random.default_rng(0).uniform(0.5, 2, 8).astype("float32"))

    torch.manual_seed(0)
    (fault,) = found(Torch(), Port(), torch.randn(20, 6)).faults
    assert "the factor of shape (8,), a constant in torch, holds other numbers" in fault.reason, fault
