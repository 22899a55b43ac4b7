"""Normalization that keeps running statistics: as a function of its module's own, and where nobody reads its result."""

import copy

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import parity
from jaxnn.nn import state_dict


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(3) + 0.5)
        self.register_buffer("running_mean", torch.randn(3))
        self.register_buffer("running_var", torch.rand(3) + 0.5)

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.scale, None, self.training, 0.2)


class Frozen(Norm):
    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.scale, training=False)


class FrozenLayer(nn.BatchNorm1d):
    def __init__(self):
        super().__init__(3)

    def forward(self, x):
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class CoarseLayer(FrozenLayer):
    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, 0.01)


class Instance(Norm):
    def forward(self, x):
        return F.instance_norm(x, self.running_mean, self.running_var, None, None, self.training, 0.2)


class Always(Norm):
    def forward(self, x):
        first = F.instance_norm(x, self.running_mean, self.running_var, self.scale)
        return F.batch_norm(first, self.running_mean, self.running_var, training=True)


class Reassigned(Norm):
    def forward(self, x):
        if self.training:
            self.running_mean = 0.9 * self.running_mean + 0.1 * x.detach().mean((0, 2))
        return x - self.running_mean[:, None]


class Unread(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        self.norm(x)
        return x + 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [Norm, Frozen, FrozenLayer, CoarseLayer, Instance, Always, Unread])
def test_statistics_follow_the_mode_of_the_module_unless_its_code_says_otherwise(kind, training):
    torch.manual_seed(0)
    model, x = nn.Sequential(kind(), nn.Flatten()).train(training), torch.randn(4, 3, 5)
    original = copy.deepcopy(model)
    port = parity.port(model, (x,)).module
    for mode in (True, False):  # evaluation reads what training has left
        original.train(mode)
        port.train() if mode else port.eval()
        np.testing.assert_allclose(port(jnp.asarray(x)), original(x).detach(), atol=1e-5)
    held = state_dict(port)
    for name, x in original.state_dict().items():
        np.testing.assert_allclose(held[name], x, atol=1e-5)


@pytest.mark.parametrize("path", ["", "0."])
def test_a_buffer_that_is_another_after_training_is_written_once(path):
    model, x = Reassigned() if not path else nn.Sequential(Reassigned()), torch.randn(4, 3, 5)
    port = parity.port(model.train(), (x,))
    assert port.source.count("set_value") == 1
    port.module(jnp.asarray(x))
    model(x)
    name = f"{path}running_mean"
    np.testing.assert_allclose(state_dict(port.module)[name], model.state_dict()[name], atol=1e-6)
