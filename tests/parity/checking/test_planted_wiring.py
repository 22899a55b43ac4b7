"""Mistakes in the code that joins layers: each is found in that code, and named."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity import weights


class TorchBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.position = torch.nn.Embedding(9, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.query, self.key, self.value = (torch.nn.Linear(8, 8) for _ in range(3))
        self.out = torch.nn.Linear(8, 8)
        self.act = torch.nn.ReLU(inplace=True)

    def forward(self, x, places):
        x = x + self.position(places)
        y = self.norm(x)
        q, k, v = (f(y).view(2, 5, 2, 4).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = (q @ k.transpose(-2, -1) * 0.5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 8)
        return x + self.act(self.out(y))


class Block(nn.Module):
    def __init__(self, fault, *, rngs):
        self.fault = fault
        self.position = nn.Embedding(9, 8, rngs=rngs)
        self.norm = nn.LayerNorm(8)
        self.query, self.key, self.value = (nn.Linear(8, 8, rngs=rngs) for _ in range(3))
        self.out = nn.Linear(8, 8, rngs=rngs)
        self.act = nn.ReLU()

    def __call__(self, x, places):
        fault = self.fault
        x = x + self.position(places + 1 if fault == "place" else places)
        y = x if fault in ("no norm", "post-norm") else self.norm(x)
        q, k, v = (self.heads(f(y)) for f in (self.query, self.key, self.value))
        if fault == "raw value":
            v = self.heads(self.value(x))
        q, k = (k, q) if fault == "exchanged" else (q, k)
        future = jnp.triu(jnp.ones((5, 5), bool), 1)
        scores = q @ k.swapaxes(-2, -1) * 0.5
        scores = scores if fault == "late mask" else jnp.where(future, -10.0 if fault == "soft" else -jnp.inf, scores)
        chances = jax.nn.softmax(scores, -1)
        chances = jnp.where(future, 0.0, chances) if fault == "late mask" else chances
        y = (chances @ v).swapaxes(1, 2).reshape(2, 5, 8)
        y = self.out(self.act(y)) if fault == "act first" else self.out(y)
        y = y if fault in ("no act", "act first") else self.act(y)
        y = jnp.tanh(y) if fault == "tanh too" else y
        x = self.norm(x) if fault == "normed residual" else x
        return self.norm(x + y) if fault == "post-norm" else x + y

    def heads(self, x):
        return (x.reshape(2, 5, 4, 2).transpose(0, 3, 1, 2) if self.fault == "split" else
                x.reshape(2, 5, 2, 4).swapaxes(1, 2))  # fmt: skip


NAMED = {
    "place": ("index", "off by +1"),
    "no norm": ("missing layer", "layer_norm is not applied"),
    "post-norm": ("order of normalization", "torch before the branches (pre-norm)"),
    "raw value": ("wrong input", "what value gets is what norm gets"),
    "exchanged": ("order", "transposed"),
    "late mask": ("mask", "behind the softmax"),
    "soft": ("masked value", "-10"),
    "act first": ("order of layers", "act comes before out"),
    "no act": ("activation", "relu is missing"),
    "tanh too": ("activation", "is passed through tanh"),
    "normed residual": ("wrong input", "is what norm gives"),
    "split": ("order", "in 3 calls of reshape: axis 2 is split in another order"),
}


def pair(fault):
    """The block, its port with that mistake, and inputs."""
    torch.manual_seed(0)
    theirs, ours = TorchBlock(), Block(fault, rngs=nnx.Rngs(0))
    with torch.no_grad():
        for parameter in theirs.norm.parameters():
            parameter.add_(torch.rand(8))
    nn.load_state_dict(ours, weights.load(theirs))
    return theirs, ours, (torch.randn(2, 5, 8), torch.randint(0, 8, (2, 5)))


def test_the_block_without_a_mistake_passes():
    assert parity.check(*pair("")).passed


@pytest.mark.parametrize("fault", NAMED)
def test_a_mistake_between_layers_is_named(fault):
    suspect, said = NAMED[fault]
    report = parity.check(*pair(fault), gradients=False)
    assert [found.path for found in report.faults] == [""]
    assert report.faults[0].suspect == suspect, report.faults
    assert said in report.faults[0].reason


class TorchShifted(torch.nn.Linear):
    def forward(self, x, shift):
        return super().forward(x) + shift


class TorchBranch(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.post = TorchShifted(8, 8), torch.nn.LayerNorm(8)

    def forward(self, x, shift):
        return x + self.post(self.inner(x, shift))


class Shifted(nn.Linear):
    def __call__(self, x, shift):
        return super().__call__(x) + shift


class Branch(nn.Module):
    def __init__(self, join):
        self.inner, self.post = Shifted(8, 8, rngs=nnx.Rngs(0)), nn.LayerNorm(8)
        self.join = join

    def __call__(self, x, shift):
        return self.join(self, x, shift)


BRANCHES = {
    "": lambda block, x, shift: x + block.post(block.inner(x, shift)),
    "post is taken of the whole sum": lambda block, x, shift: block.post(x + block.inner(x, shift)),
    "layer_norm is not applied": lambda block, x, shift: x + block.inner(x, shift),
    "argument 2 of inner has the other sign": lambda block, x, shift: x + block.post(block.inner(x, -shift)),
}


@pytest.mark.parametrize("said", BRANCHES)
def test_a_mistake_around_a_branch_is_named(said):
    torch.manual_seed(0)
    theirs, ours = TorchBranch(), Branch(BRANCHES[said])
    nn.load_state_dict(ours, weights.load(theirs))
    report = parity.check(theirs, ours, (torch.randn(2, 5, 8), torch.randn(5, 8)), gradients=False)
    assert report.passed == (said == ""), report
    assert said == "" or said in report.faults[0].reason, report
