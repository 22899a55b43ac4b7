"""A mixture of experts whose router chooses otherwise than torch's."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity import weights


class TorchMixture(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.router, self.experts = torch.nn.Linear(4, 5), torch.nn.Parameter(torch.randn(5, 4, 4))

    def forward(self, x):
        shares, chosen = self.router(x).softmax(-1).topk(2)
        return sum((x @ self.experts[e]) * (shares * (chosen == e)).sum(-1, keepdim=True) for e in range(5))


class Mixture(nnx.Module):
    def __init__(self, fault):
        self.router, self.experts = nn.Linear(4, 5, rngs=nnx.Rngs(0)), nnx.Param(jnp.zeros((5, 4, 4)))
        self.fault = fault

    def __call__(self, x):
        scores = self.router(x)
        largest, chosen = jax.lax.top_k(jax.nn.softmax(scores), 2)
        if self.fault == "softmax behind":
            largest = jax.nn.softmax(jax.lax.top_k(scores, 2)[0])
        if self.fault == "first alone":
            largest = largest.at[:, 1].set(0.0)
        gates = (jax.nn.one_hot(chosen, 5) * largest[..., None]).sum(-2)
        gates = jax.nn.softmax(scores) if self.fault == "dense" else gates
        return jnp.einsum("ti,eij,te->tj", x, self.experts[...], gates)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("softmax behind", "the softmax is taken behind the choice, over the chosen alone"),
        ("first alone", "the largest 1 are chosen, torch's 2"),
        ("dense", "all 5 count with their weights, torch's are the largest 2 alone"),
    ],
)
def test_a_router_that_chooses_otherwise_is_named(fault, reason):
    torch.manual_seed(0)
    theirs, ours = TorchMixture(), Mixture(fault)
    nn.load_state_dict(ours, weights.load(theirs))
    (found,) = parity.check(theirs, ours, torch.randn(16, 4), gradients=False).faults
    assert reason in found.reason, found
