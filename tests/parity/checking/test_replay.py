"""Torch's random numbers on the JAX side."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity


def drawing_in_torch(x):
    noise = torch.empty_like(x).uniform_(-0.5, 2) + torch.empty_like(x).normal_(1, 0.3)
    noise = noise + torch.normal(2.0, 0.5, size=x.shape) + torch.randint(3, 9, x.shape)
    return torch.rrelu(x + noise, 0.1, 0.4, training=True)


class Drawing(nnx.Module):
    def __init__(self, bounded):
        self.rngs, self.bounded = nnx.Rngs(0), bounded

    def __call__(self, x):
        noise = self.uniform(x.shape, -0.5, 2) + 1 + 0.3 * jax.random.normal(self.rngs(), x.shape)
        noise = noise + 2 + 0.5 * jax.random.normal(self.rngs(), x.shape)
        low = 3 if self.bounded else 0
        y = x + noise + jax.random.randint(self.rngs(), x.shape, low, low + 6).astype(jnp.float32) + (3 - low)
        return jnp.where(y <= 0, y * self.uniform(x.shape, 0.1, 0.4), y)

    def uniform(self, shape, low, high):
        if self.bounded:
            return jax.random.uniform(self.rngs(), shape, minval=low, maxval=high)
        return low + (high - low) * jax.random.uniform(self.rngs(), shape)


@pytest.mark.parametrize("bounded", [True, False])
def test_a_port_may_give_bounds_to_what_draws_or_scale_what_is_drawn(bounded):
    x = torch.randn(4, 5) - 6
    parity.assert_matches(drawing_in_torch, Drawing(bounded), x, gradients=False)


def test_a_mask_may_be_made_of_uniform_numbers_or_drawn():
    def depth(x):
        return x * torch.floor(0.7 + torch.rand(x.shape[0], 1)) / 0.7

    class Depth(nnx.Module):
        def __init__(self):
            self.rngs = nnx.Rngs(0)

        def __call__(self, x):
            return jnp.where(jax.random.bernoulli(self.rngs(), 0.7, (x.shape[0], 1)), x / 0.7, 0)

    parity.assert_matches(depth, Depth(), torch.randn(16, 5))
