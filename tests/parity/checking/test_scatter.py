import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import parity
from jaxnn import functional as F
from jaxnn import nn
from parity.checking.pairing import aliases, standing_for
from parity.checking.tree import aligned_paths

SHAPES = [(3, 7, 11, 13), (24, 24), (300, 200)]
"""The first two are summed one number after another by XLA, the last in blocks."""


def batch(shape, seed):
    """Two arrays whose squared distance is a loss."""
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_rounding_of_a_sum_in_another_order_is_not_accused(shape):
    for seed in range(10):
        parity.assert_matches(torch.nn.functional.mse_loss, F.mse_loss, batch(shape, seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_loss_wrong_by_a_hundred_thousandth_is_found(shape):
    def wrong(x, y):
        return F.mse_loss(x, y) * np.float32(1 + 1e-5)

    for seed in range(3):
        assert not parity.check(torch.nn.functional.mse_loss, wrong, batch(shape, seed), gradients=False).passed


def test_low_precision_is_not_excused_by_its_own_scatter():
    def coarse(x, y):
        return F.mse_loss(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)).astype(jnp.float32)

    report = parity.check(torch.nn.functional.mse_loss, coarse, batch((24, 24), 0), gradients=False)
    assert not report.passed


class TorchTagger(torch.nn.Module):
    """The squares of embeddings, summed."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(11, 13)

    def forward(self, tokens):
        return (self.embed(tokens) ** 2).sum()


class Tagger(nnx.Module):
    """Its port."""

    def __init__(self, weight):
        self.embed = nn.Embedding(11, 13, rngs=nnx.Rngs(0))
        self.embed.weight.set_value(jnp.asarray(weight))

    def __call__(self, tokens):
        return jnp.sum(self.embed(tokens) ** 2)


def test_where_the_inputs_are_integers_the_weights_are_drawn():
    for seed in range(6):
        torch.manual_seed(seed)
        theirs = TorchTagger()
        ours = Tagger(theirs.embed.weight.detach().numpy())
        before = np.asarray(ours.embed.weight)
        parity.assert_matches(theirs, ours, torch.arange(231).reshape(3, 7, 11) % 11, gradients=False)
        np.testing.assert_array_equal(ours.embed.weight, before)


def test_weights_stand_in_the_port_for_as_long_as_they_are_lent():
    theirs = TorchTagger()
    ours = Tagger(np.zeros((11, 13), np.float32))
    with standing_for(aliases(theirs, ours, aligned_paths(theirs, ours)), theirs):
        np.testing.assert_array_equal(ours.embed.weight, theirs.embed.weight.detach())
    assert not jax.device_get(ours.embed.weight.get_value()).any()


class TorchScore(torch.nn.Module):
    """Shares by score; a softmax is the same for any bias, whose gradient is zero but for rounding."""

    def __init__(self):
        super().__init__()
        self.score = torch.nn.Linear(4, 1)

    def forward(self, x):
        return self.score(x)[..., 0].softmax(-1)


class Score(nnx.Module):
    """Its port."""

    def __init__(self, theirs):
        self.score = parity.mirror(theirs.score)

    def __call__(self, x):
        return jax.nn.softmax(self.score(x)[..., 0], -1)


def test_a_gradient_that_is_zero_in_torch_by_luck_alone_is_not_accused():
    for seed in range(16):
        torch.manual_seed(seed)
        theirs = TorchScore()
        parity.assert_matches(theirs, Score(theirs), torch.randn(1, 3, 4))
