import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import parity
from jaxnn import functional as F
from jaxnn import models, nn, optim
from parity import tutorial, weights
from parity.checking import DivergenceError


def digits():
    torch.manual_seed(0)
    theirs = tutorial.DigitsClassifier()
    ours = models.DigitsClassifier(rngs=nnx.Rngs(0))
    nn.load_state_dict(ours, weights.load(theirs))
    return theirs, ours, torch.randn(4, 1, 8, 8)


def test_a_faithful_port_passes_with_outputs_gradients_and_training():
    theirs, ours, x = digits()
    report = parity.check(theirs, ours, x, steps=3)
    assert report.passed, report
    assert report.first_divergence is None
    names = {(row.kind, row.name) for row in report.rows}
    assert ("gradient", "conv1.weight") in names
    assert ("gradient", "input 0") in names
    assert ("training", "head.bias, step 3") in names
    assert len(report.losses) == 3
    report.raise_for_divergence()


def test_a_faithful_port_of_scaled_weights_passes_too():
    theirs, ours, x = digits()
    with torch.no_grad():
        theirs.conv2.weight.mul_(1000)
    nn.load_state_dict(ours, weights.load(theirs))
    assert parity.check(theirs, ours, x * 1e-3).passed


def test_an_epsilon_that_these_inputs_do_not_show_is_noted():
    theirs = torch.nn.Sequential(torch.nn.LayerNorm(4))
    ours = parity.mirror(theirs)
    ours[0].eps = 1e-6
    report = parity.check(theirs, ours, 1e3 * torch.randn(3, 4), gradients=False)
    assert report.passed
    assert report.notes == ["eps of 0 is 1e-06, torch's 1e-05: with these inputs it makes no difference"]


def test_nothing_is_said_of_the_epsilon_of_a_layer_that_was_not_compared():
    class Port(nn.Sequential):
        def __call__(self, x):
            return F.layer_norm(x, (4,), eps=self[0].eps)

    report = parity.check(torch.nn.Sequential(torch.nn.LayerNorm(4)), Port(nn.LayerNorm(4, eps=0.1)), torch.randn(3, 4))
    assert not report.passed
    assert not report.notes


@pytest.mark.parametrize("layer", ["conv1", "conv2", "head"])
def test_the_first_wrong_layer_is_named(layer):
    theirs, ours, x = digits()
    bias = getattr(ours, layer).bias
    bias[...] = bias[...] * 1.001
    report = parity.check(theirs, ours, x)
    assert not report.passed
    assert report.first_divergence == layer
    assert f"different before the first step: {layer}.bias" in report.notes
    with pytest.raises(DivergenceError, match=f"first divergence: {layer}"):
        report.raise_for_divergence()


def test_a_gradient_that_is_wrong_alone_is_found():
    theirs, ours, x = digits()

    class Detached(nn.Module):
        def __init__(self):
            self.conv1, self.conv2, self.head = ours.conv1, ours.conv2, ours.head

        def __call__(self, x):
            x = F.relu(self.conv1(x))
            x = F.relu(self.conv2(jax.lax.stop_gradient(x)))
            return self.head(jnp.reshape(x, (x.shape[0], -1)))

    report = parity.check(theirs, Detached(), x)
    wrong = {row.name for row in report.rows if not row.passed}
    assert wrong == {"conv1.weight", "conv1.bias", "input 0"}


def test_torchs_dropout_mask_is_carried_over():
    torch.manual_seed(0)
    theirs = tutorial.SimpleNeuralNetwork(6, 50, 3)
    ours = models.SimpleNeuralNetwork(6, 50, 3, rngs=nnx.Rngs(0))
    nn.load_state_dict(ours, weights.load(theirs))
    report = parity.check(theirs, ours, torch.randn(5, 6), steps=4)
    assert report.passed, report


def test_dropout_left_out_is_a_fault_that_says_so():
    theirs = tutorial.SimpleNeuralNetwork(6, 50, 3)
    ours = models.SimpleNeuralNetwork(6, 50, 3, rngs=nnx.Rngs(0))
    ours.eval()
    report = parity.check(theirs, ours, torch.randn(5, 6))
    assert not report.passed
    assert "torch drew 1 random tensors, JAX only 0" in report.rows[0].reason
    assert report.faults[0].suspect == "train for eval mode"


def test_neither_module_nor_torchs_generator_is_changed():
    theirs, ours, x = digits()
    before = weights.load(theirs), weights.load(ours), torch.get_rng_state()
    parity.check(theirs, ours, x, steps=2)
    for old, new in zip(before[:2], (weights.load(theirs), weights.load(ours)), strict=True):
        for name, array in old.items():
            np.testing.assert_array_equal(array, new[name])
    assert torch.equal(before[2], torch.get_rng_state())
    assert all(p.grad is None for p in theirs.parameters())


def test_functions_are_compared_as_modules_are():
    def softplus(x):
        return jnp.logaddexp(x, 0.0)

    assert parity.check(torch.nn.functional.softplus, softplus, torch.randn(50)).passed
    report = parity.check(torch.nn.functional.relu, softplus, torch.randn(50))
    assert report.first_divergence == "output"


def test_outputs_of_any_structure_are_named():
    report = parity.check(
        lambda x: {"a": x, "b": (x * 2, x + 1)},
        lambda x: {"a": x, "b": (x * 2, x + 1.001)},
        torch.randn(3),
    )
    assert [row.name for row in report.rows if row.kind == "output" and not row.passed] == ["output['b'][1]"]


def test_a_missing_output_fails():
    report = parity.check(lambda x: (x, x), lambda x: (x,), torch.randn(3), gradients=False)
    assert not report.passed


def test_an_optimizer_that_differs_is_found_by_training():
    theirs, ours, x = digits()
    pair = (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.1), optim.SGD(lr=0.01, momentum=0.9))
    report = parity.check(theirs, ours, x, steps=5, optimizer=pair)
    assert not report.passed
    assert all(row.kind == "training" for row in report.rows if not row.passed)


def test_a_chaotic_run_is_not_held_against_the_port():
    theirs, ours, x = digits()
    pair = (lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9), optim.SGD(lr=1.0, momentum=0.9))
    report = parity.check_training(
        theirs,
        ours,
        *pair,
        (lambda m, x: (m(x) ** 2).mean().log(), lambda m, x: jnp.log(jnp.mean(m(x) ** 2))),
        [(x,)],
        15,
    )
    assert report.passed, report


def test_the_report_is_json_and_prints_as_a_table():
    theirs, ours, x = digits()
    ours.head.bias[...] = ours.head.bias[...] + jnp.nan
    report = parity.check(theirs, ours, x)
    content = json.loads(report.to_json())
    assert content["passed"] is False
    assert content["first_divergence"] == "head"
    assert content["rows"][0]["jax_error"] is None
    assert "FAIL" in repr(report)
    assert "first divergence: head" in repr(report)


class Unpadded(torch.nn.Module):
    """Drops the rows behind the last that is not zero."""

    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.lin(x[:, : int(x.abs().sum((0, 2)).nonzero().max()) + 1])


@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (2.0, False)])
def test_what_is_padded_with_zeros_stays_padded(factor, passed):
    class Port(nnx.Module):
        def __init__(self):
            self.lin = nn.Linear(4, 4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return factor * self.lin(x[:, :3])

    torch.manual_seed(0)
    theirs, ours, x = Unpadded(), Port(), torch.randn(2, 6, 4)
    nn.load_state_dict(ours, weights.load(theirs))
    x[:, 3:] = 0
    assert parity.check(theirs, ours, x).passed is passed
