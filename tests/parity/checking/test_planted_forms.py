"""A layer of another form than torch's, in a small port: it is found, and what is different in it named."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity import weights


class TorchWave(torch.nn.Module):
    """A gated, dilated, causal convolution, upsampled and joined by a bilinear form."""

    def __init__(self):
        super().__init__()
        self.filter = torch.nn.Conv1d(3, 4, 3, dilation=2)
        self.gate = torch.nn.Conv1d(3, 4, 3, dilation=2)
        self.up = torch.nn.ConvTranspose1d(4, 3, 3, stride=2, padding=1, output_padding=1)
        self.slope = torch.nn.PReLU(3)
        self.pair = torch.nn.Bilinear(3, 3, 3)
        self.grid = torch.nn.Conv2d(2, 3, 3, padding=2, dilation=2)

    def forward(self, x):
        padded = torch.nn.functional.pad(x, (4, 0))
        y = self.slope(self.up(torch.tanh(self.filter(padded)) * torch.sigmoid(self.gate(padded))))
        z = self.pair(y[:, :, 0], y[:, :, 1])
        return torch.roll(z, 1, 1), self.grid(y.reshape(y.shape[0], 2, 4, 6))


class Wave(nn.Module):
    def __init__(self, fault, *, rngs):
        self.fault = fault
        self.filter = nn.Conv1d(3, 4, 3, dilation=2, rngs=rngs)
        self.gate = nn.Conv1d(3, 4, 3, dilation=2, rngs=rngs)
        rest = 0 if fault == "output padding" else 1
        self.up = nn.ConvTranspose1d(4, 3, 3, stride=2, padding=rest, output_padding=rest, rngs=rngs)
        self.slope = nn.LeakyReLU(0.25) if fault == "leaky" else nn.PReLU(3)
        self.pair = nn.Bilinear(3, 3, 3, rngs=rngs)
        spread = 1 if fault == "dilation" else 2
        self.grid = nn.Conv2d(2, 3, 3, padding=spread, dilation=spread, rngs=rngs)

    def __call__(self, x):
        fault = self.fault
        padded = jnp.pad(x, ((0, 0), (0, 0), (2, 2) if fault == "centred" else (4, 0)))
        a, b = self.filter(padded), self.gate(padded)
        a, b = (b, a) if fault == "gates" else (a, b)
        y = self.up(jnp.tanh(a) * jax.nn.sigmoid(b))
        y = self.slope(y[:, :, :16] if fault == "output padding" else y)
        left, right = (1, 0) if fault == "bilinear" else (0, 1)
        z = self.pair(y[:, :, left], y[:, :, right])
        seen = y.reshape(y.shape[0], 4, 6, 2).transpose(0, 3, 1, 2) if fault == "view" else y.reshape(-1, 2, 4, 6)
        return jnp.roll(z, -1 if fault == "rolled" else 1, 1), self.grid(seen)


@pytest.mark.parametrize(
    ("fault", "layer", "suspect"),
    [
        ("dilation", "grid", "dilation"),
        ("output padding", "up", "padding"),
        ("leaky", "slope", "negative slope"),
        ("gates", "", "tanh and sigmoid are in each other's place"),
        ("centred", "", "padding"),
        ("bilinear", "", "swapped"),
        ("view", "", "NHWC"),
        ("rolled", "", "rolled the other way"),
        (None, None, None),
    ],
)
def test_another_form_is_found_and_named(fault, layer, suspect):
    torch.manual_seed(0)
    theirs, ours = TorchWave(), Wave(fault, rngs=nnx.Rngs(0))
    with torch.no_grad():
        theirs.slope.weight.add_(torch.rand(3))
    arrays = weights.load(theirs)
    if fault == "leaky":
        del arrays["slope.weight"]
    nn.load_state_dict(ours, arrays)
    report = parity.check(theirs, ours, torch.randn(2, 3, 8), gradients=False)
    if fault is None:
        assert report.passed, report
        return
    assert report.faults[0].path == layer, report
    assert suspect in f"{report.faults[0].suspect}: {report.faults[0].reason}", report
