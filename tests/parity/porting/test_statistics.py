"""Batch normalization as a function of a module's own statistics."""

import copy

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import parity


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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [Norm, Frozen, FrozenLayer, CoarseLayer])
def test_the_function_follows_the_mode_of_its_module_unless_it_is_said_to_be_frozen(kind, training):
    torch.manual_seed(0)
    model, x = nn.Sequential(kind(), nn.Flatten()).train(training), torch.randn(4, 3, 5)
    original = copy.deepcopy(model)
    port = parity.port(model, (x,)).module
    for mode in (True, False):  # evaluation reads what training has left
        original.train(mode)
        port.train() if mode else port.eval()
        np.testing.assert_allclose(port(jnp.asarray(x)), original(x).detach(), atol=1e-5)
