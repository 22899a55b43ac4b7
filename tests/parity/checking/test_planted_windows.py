"""Local attention whose window is another than torch's."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity import weights

BEHIND = {"one more": (0, 4), "two-sided": (-3, 3), "none": (0, 10), "itself": (1, 3)}


class TorchLocal(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        behind = torch.arange(8)[:, None] - torch.arange(8)
        self.register_buffer("seen", (behind >= 0) & (behind <= 3), persistent=False)

    def forward(self, x):
        scores = self.q(x) @ self.k(x).mT
        return scores.masked_fill(~self.seen, -torch.inf).softmax(-1) @ x


class Local(nnx.Module):
    def __init__(self, fault):
        self.q, self.k = nn.Linear(4, 4, rngs=nnx.Rngs(0)), nn.Linear(4, 4, rngs=nnx.Rngs(1))
        self.fault = fault

    def __call__(self, x):
        least, most = BEHIND[self.fault]
        behind = jnp.arange(8)[:, None] - jnp.arange(8)
        scores = self.q(x) @ self.k(x).mT
        return jax.nn.softmax(jnp.where((behind >= least) & (behind <= most), scores, -1e9)) @ x


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("one more", "a position sees one more of those behind it"),
        ("two-sided", "the window reaches as far ahead of a position as behind it"),
        ("none", "the window has no end behind a position"),
        ("itself", "a position does not see itself"),
    ],
)
def test_another_window_is_named(fault, reason):
    torch.manual_seed(0)
    theirs, ours = TorchLocal(), Local(fault)
    nn.load_state_dict(ours, weights.load(theirs))
    (found,) = parity.check(theirs, ours, torch.randn(2, 8, 4), gradients=False).faults
    assert reason in found.reason, found
