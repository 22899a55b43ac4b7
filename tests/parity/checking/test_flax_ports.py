"""Ports in flax's own layers, as their users write them: right ones pass, a mistake is found in its layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import parity


class TorchTagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Tanh(), torch.nn.Linear(6, 6))
        self.drop = torch.nn.Dropout(0.5)
        self.rnn = torch.nn.RNN(6, 6, batch_first=True)
        self.head = torch.nn.Linear(6, 2)

    def forward(self, x):
        steps, last = self.rnn(self.drop(self.body(x)))
        return self.head(torch.log1p(steps**2)), last[0]


class Tagger(nnx.Module):
    def __init__(self, fault, rngs):
        self.fault = fault
        self.body = nnx.Sequential(nnx.Linear(3, 6, rngs=rngs), jnp.tanh, nnx.Linear(6, 6, rngs=rngs))
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.rnn = nnx.RNN(nnx.SimpleCell(6, 6, rngs=rngs), return_carry=True)
        self.head = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        hidden = self.drop(nnx.remat(lambda body, x: body(x))(self.body, x))
        last, steps = self.rnn(hidden)
        return self.head((jnp.log if self.fault == "log" else jnp.log1p)(steps**2)), last


def tagger(fault):
    torch.manual_seed(0)
    theirs, ours = TorchTagger(), Tagger(fault, nnx.Rngs(0))
    cell, rnn = ours.rnn.cell, theirs.rnn
    kernels = [(ours.body.layers[i].kernel, theirs.body[i].weight) for i in (0, 2)] + [
        (ours.head.kernel, theirs.head.weight),
        (cell.dense_i.kernel, rnn.weight_ih_l0),
        (cell.dense_h.kernel, rnn.weight_hh_l0),
    ]
    biases = [(ours.body.layers[i].bias, theirs.body[i].bias) for i in (0, 2)] + [
        (ours.head.bias, theirs.head.bias),
        (cell.dense_i.bias, rnn.bias_ih_l0 + rnn.bias_hh_l0),
    ]
    for ours_, theirs_ in kernels + biases:
        ours_.set_value(jnp.array(theirs_.detach().numpy().T))
    if fault == "bias":
        ours.body.layers[2].bias.set_value(jnp.zeros(6))
    return theirs, ours, torch.randn(4, 5, 3)


def test_in_training_with_a_state_before_the_outputs_a_right_port_passes():
    report = parity.check(*tagger(""), gradients=False)
    assert report.passed, report
    assert {"body.0", "body.2", "drop", "rnn", "head"} <= {r.path for r in report.layers if r.compared}


@pytest.mark.parametrize(
    ("fault", "path", "reason"), [("bias", "body.2", "bias is zero"), ("log", "", "computes log,")]
)
def test_its_mistake_is_found_in_its_layer(fault, path, reason):
    (found,) = parity.check(*tagger(fault), gradients=False).faults
    assert (found.path, reason in found.reason) == (path, True), found


def test_what_is_wrong_under_jit_only_is_said_to_be():
    class Theirs(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    def ours(x):
        return (3 if isinstance(x, jax.core.Tracer) else 2) * x

    (found,) = parity.check(Theirs(), ours, np.ones(3, np.float32), gradients=False).faults
    assert found.suspect == "compilation", found


def test_the_biased_variance_is_named_where_a_small_momentum_makes_it_a_small_mistake():
    theirs = torch.nn.BatchNorm1d(2, momentum=1e-3)
    ours = nnx.BatchNorm(2, momentum=1 - 1e-3, use_running_average=False, rngs=nnx.Rngs(0))
    x = torch.randn(1200, 2, generator=torch.Generator().manual_seed(0))
    (found,) = parity.check(theirs, ours, x, gradients=False).faults
    assert found.suspect == "biased or unbiased variance"
