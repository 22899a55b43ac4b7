"""A gradient that goes wrong on its way back, with every output right."""

import functools

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import parity
from jaxnn import functional as F
from jaxnn import nn
from parity import weights
from parity.checking.evaluation import Evaluation, TorchSide
from parity.checking.judgement import judged
from tests.parity.checking.networks import pair
from tests.parity.checking.test_planted_faults import replaced


def test_a_layer_that_stops_the_gradient_of_its_input_is_named():
    theirs, ours, x = pair("unet")
    replaced(ours.down2, lambda self, x: F.conv2d(jax.lax.stop_gradient(x), self.weight[...], self.bias[...], 1, 1))
    report = parity.check(theirs, ours, x)
    assert report.first_divergence == "down2"
    assert report.last_right_gradient == "down2"
    assert report.faults[0].suspect == "stopped gradient"


def test_a_layer_that_stops_the_gradient_of_its_weight_is_named():
    theirs, ours, x = pair("unet")
    replaced(ours.down2, lambda self, x: F.conv2d(x, jax.lax.stop_gradient(self.weight[...]), self.bias[...], 1, 1))
    (fault,) = parity.check(theirs, ours, x).faults
    assert (fault.path, fault.suspect) == ("down2", "stopped gradient")
    assert "gradient of weight is zero" in fault.reason


def test_code_between_layers_that_stops_the_gradient_is_placed():
    theirs, ours, x = pair("unet")

    def call(self, x):
        skip = self.act(self.norm1(self.down1(x)))
        x = self.up(self.act(self.down2(jax.lax.stop_gradient(self.pool(skip)))))
        return self.resize(self.out(jax.numpy.concatenate([skip, x], 1)))

    replaced(ours, call)
    report = parity.check(theirs, ours, x)
    assert report.last_right_gradient == "down2"
    assert report.faults[0].path == ""
    assert "right at the output of down2, wrong at that of pool" in report.faults[0].reason


class Forked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        x = self.a(x)
        return self.b(x) + self.c(x)


class ForkedInJax(nnx.Module):
    def __init__(self, stops):
        self.a, self.b, self.c = (nn.Linear(4, 4, rngs=nnx.Rngs(0)) for _ in range(3))
        self.stops = stops

    def __call__(self, x):
        x = self.a(jax.lax.stop_gradient(x) if self.stops == "a" else x)
        return self.b(jax.lax.stop_gradient(x) if self.stops == "b" else x) + self.c(x)


@pytest.mark.parametrize("stops", ["a", "b"])
def test_where_a_gradient_is_stopped_those_that_are_right_stay_so(stops):
    theirs = Forked()
    ours = ForkedInJax(stops)
    nn.load_state_dict(ours, weights.load(theirs))
    (fault,) = parity.check(theirs, ours, torch.randn(5, 4)).faults
    assert f"the port stops the gradient of what {stops} gets" in fault.reason


def test_a_gradient_twice_as_large_is_said_to_be():
    theirs, ours, tokens = pair("tagger")

    @jax.custom_vjp
    def doubled(x):
        return x

    doubled.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))
    kind = type(ours.norm)
    replaced(ours.norm, lambda self, x: kind.__call__(self, doubled(x)))
    report = parity.check(theirs, ours, tokens)
    assert report.faults[0].path == "norm"
    assert not any(fault.path == "head" for fault in report.faults)


def test_an_untied_head_is_named():
    theirs = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Tanh(), torch.nn.Linear(3, 5, bias=False))
    theirs[2].weight = theirs[0].weight
    ours = nn.Sequential(nn.Embedding(5, 3, rngs=nnx.Rngs(0)), nn.Tanh(), nn.Linear(3, 5, bias=False, rngs=nnx.Rngs(0)))
    nn.load_state_dict(ours, parity.weights.load(theirs))
    report = parity.check(theirs, ours, torch.tensor([0, 3, 1]))
    assert report.faults[0].suspect == "tied weights"
    assert "0.weight and 2.weight are one parameter in torch, two in the port" in report.faults[0].reason


def test_a_detach_that_the_port_lacks_is_named():
    class Torch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

        def forward(self, x):
            x = self.a(x)
            return self.b(x) * x.detach()

    class Port(nnx.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(3, 3, rngs=nnx.Rngs(0)), nn.Linear(3, 3, rngs=nnx.Rngs(1))

        def __call__(self, x):
            x = self.a(x)
            return self.b(x) * x

    theirs, ours = Torch(), Port()
    nn.load_state_dict(ours, parity.weights.load(theirs))
    report = parity.check(theirs, ours, torch.randn(4, 3))
    assert "torch stops it with detach" in report.faults[0].reason


def test_a_gradient_below_what_xla_keeps_is_not_accused():
    theirs = torch.nn.Sequential(*[torch.nn.Linear(4, 4, bias=False) for _ in range(3)])
    with torch.no_grad():
        for layer in theirs:
            layer.weight.mul_(1e-13)
    ours = parity.mirror(theirs)
    report = parity.check(theirs, ours, torch.randn(2, 4))
    assert report.passed, report


class Rotates(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.turn = torch.nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))

    def forward(self, x):
        z = self.turn * x
        return z.abs() + z.imag, z


class RotatesToo(nnx.Module):
    def __init__(self, stops=False):
        self.stops = stops
        self.turn = nnx.Param(jax.numpy.array([1 + 2j, 3 - 1j]))

    def __call__(self, x):
        z = self.turn[...] * jax.lax.complex(x, jax.numpy.zeros_like(x))
        return F.abs(z) + z.imag, z if not self.stops else jax.lax.complex(z.real, jax.lax.stop_gradient(z.imag))


def test_gradients_of_complex_numbers_are_in_torchs_convention():
    assert parity.check(Rotates(), RotatesToo(), torch.randn(3, 2)).passed
    assert not parity.check(Rotates(), RotatesToo(stops=True), torch.randn(3, 2)).passed


def test_a_wrong_gradient_is_reported_where_other_roundings_make_the_model_refuse():
    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(8, 2))

        def forward(self, x):
            scores = x @ self.weight
            whole = scores.softmax(-1).sum(-1)
            if (whole > 1).any():
                raise ValueError("a probability is larger than 1")
            return scores.sum(-1) * whole

    torch.manual_seed(0)
    theirs, x = Theirs(), torch.randn(3, 8)
    weight = jax.numpy.asarray(theirs.weight.detach().numpy())
    report = parity.check(theirs, lambda x: jax.lax.stop_gradient(x @ weight).sum(-1), x)
    assert [row.name for row in report.rows if not row.passed] == ["input 0"]


def test_a_wrong_gradient_at_a_kink_is_found_though_rounding_would_leave_the_kink():
    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 8)

        def forward(self, x):
            return torch.relu(self.layer(x) - self.layer(x).detach())

    class Ours(nnx.Module):
        def __init__(self, relu):
            self.layer, self.relu = nn.Linear(8, 8, rngs=nnx.Rngs(0)), relu

        def __call__(self, x):
            return self.relu(self.layer(x) - jax.lax.stop_gradient(self.layer(x)))

    theirs = Theirs()
    for relu, right in ((F.relu, True), (lambda x: jax.numpy.maximum(x, 0.0), False)):
        ours = Ours(relu)
        nn.load_state_dict(ours, weights.load(theirs))
        assert parity.check(theirs, ours, torch.randn(20, 8)).passed == right


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_of_a_sum_that_cancels_is_held_to_the_rounding_of_its_terms(seed):
    torch.manual_seed(seed)
    side = TorchSide(torch.nn.Linear(3, 1), ((torch.randn(24, 3),), {}))
    cotangent = torch.randn(24, 1)
    side.cotangents = {"output": cotangent - cotangent.mean()}
    side.single = side.near(side.subject, side.call)[0]

    def passes(bias):
        gradients = side.single.parameter_gradients | {"bias": np.float32([bias])}
        return all(row.passed for row in judged(side, Evaluation(side.single.outputs, gradients)))

    backwards = functools.reduce(np.add, side.cotangents["output"].numpy().ravel()[::-1])
    assert passes(backwards)
    assert not passes(backwards + 1e-5)
