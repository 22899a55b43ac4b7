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


def swapped(*names):
    """A GRU that takes arrays in pairs for each other, or where there is one alone, zeros for it."""

    def call(self, x):
        ours = nnx.clone(self)
        here = {name: getattr(ours, name)[...] for name in names}
        for name, value in zip(names, [*here.values()][::-1], strict=True):
            getattr(ours, name)[...] = value if len(names) > 1 else 0 * value
        return nn.GRU.__call__(ours, x)

    return call


def turned(self, x):
    y, last = nn.GRU.__call__(self, x)
    return jnp.concatenate([y[..., :4], y[:, ::-1, 4:]], -1), last


def by_hand(self, x):
    """Layer by layer, where the second direction of each is left as it runs."""
    for layer in range(2):
        ways = []
        for way in ("", "_reverse"):
            cell = GRUCell("")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                setattr(cell, name, getattr(self, f"{name}_l{layer}{way}"))
            h, ys = jnp.zeros((len(x), 4)), []
            for t in range(x.shape[1])[:: -1 if way else 1]:
                h = cell(x[:, t], h)
                ys.append(h)
            ways.append(jnp.stack(ys, 1))
        x = jnp.concatenate(ways, -1)
    return x, None


@pytest.mark.parametrize(
    ("call", "suspect", "said"),
    [
        (swapped("bias_ih_l1", "bias_hh_l1"), "swapped weights", "exchanged, in the forward direction of layer 1"),
        (swapped("bias_hh_l0_reverse"), "missing bias", "bias_hh is not added, in the backward direction of layer 0"),
        (turned, "order", "the backward half of the output is not turned back in time"),
        (by_hand, "order", "the backward direction is not turned back in time"),
    ],
)
def test_a_mistake_in_one_layer_or_direction_is_named(call, suspect, said):
    torch.manual_seed(0)
    theirs = torch.nn.GRU(3, 4, 2, batch_first=True, bidirectional=True)
    ours = parity.mirror(theirs)
    ours.__class__ = type("GRU", (nn.GRU,), {"__call__": call})
    found = parity.check(theirs, ours, torch.randn(2, 5, 3), gradients=False).faults[0]
    assert found.suspect == suspect, found
    assert said in found.reason


def test_biases_of_a_gru_that_are_one_sum_are_named():
    class Summed(GRUCell):
        def __call__(self, x, h):
            self.bias_ih, self.bias_hh = nnx.Param(self.bias_ih + self.bias_hh), nnx.Param(jnp.zeros(12))
            return super().__call__(x, h)

    torch.manual_seed(0)
    theirs, ours = torch.nn.GRUCell(3, 4), Summed("")
    nn.load_state_dict(ours, weights.load(theirs))
    found = parity.check(theirs, ours, (torch.randn(5, 3), torch.randn(5, 4)), gradients=False).faults[0]
    assert "bias_hh is added outside the reset gate" in found.reason, found
