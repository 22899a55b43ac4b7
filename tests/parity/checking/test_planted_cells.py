"""Mistakes in cells that a user wrote out."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity import weights


class GRUCell(nnx.Module):
    def __init__(self, fault):
        self.fault = fault
        self.weight_ih, self.weight_hh = nnx.Param(jnp.zeros((12, 3))), nnx.Param(jnp.zeros((12, 4)))
        self.bias_ih, self.bias_hh = nnx.Param(jnp.zeros(12)), nnx.Param(jnp.zeros(12))

    def __call__(self, x, h):
        ar, az, an = jnp.split(x @ self.weight_ih.T + self.bias_ih[...], 3, -1)
        br, bz, bn = jnp.split(h @ self.weight_hh.T + self.bias_hh[...], 3, -1)
        if self.fault == "gates":
            ar, az, br, bz = az, ar, bz, br
        r, z = jax.nn.sigmoid(ar + br), jax.nn.sigmoid(az + bz)
        if self.fault == "reset":
            bn, r = (r * h) @ self.weight_hh[8:].T + self.bias_hh[8:], 1
        n = (jax.nn.relu if self.fault == "relu" else jnp.tanh)(an + r * bn)
        return z * n + (1 - z) * h if self.fault == "update" else (1 - z) * n + z * h


def report(fault):
    torch.manual_seed(0)
    theirs, ours = torch.nn.GRUCell(3, 4), GRUCell(fault)
    nn.load_state_dict(ours, weights.load(theirs))
    return parity.check(theirs, ours, (torch.randn(5, 3), torch.randn(5, 4)), gradients=False)


def test_a_cell_written_out_passes():
    assert report("").passed


@pytest.mark.parametrize(
    ("fault", "suspect", "said"),
    [
        ("gates", "gate order", "gates are in the order z, r, n"),
        ("reset", "gate order", "the reset gate is applied before weight_hh"),
        ("update", "gate order", "the update gate is the other way round"),
        ("relu", "gate", "the candidate is passed through relu"),
    ],
)
def test_a_mistake_in_a_cell_is_named(fault, suspect, said):
    found = report(fault).faults[0]
    assert found.suspect == suspect, found
    assert said in found.reason
