"""Subclasses of torch's layers that call the layer's operator themselves."""

import jax.numpy as jnp
import pytest
import torch
from torch.nn import functional

from jaxnn import nn
from parity.porting import port

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class NormAct(torch.nn.BatchNorm2d):
    def __init__(self, features):
        super().__init__(features)
        self.act = torch.nn.ReLU()

    def forward(self, x):
        if self.training:
            self.num_batches_tracked.add_(1)
        x = functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        return self.act(x)


class SameConv(torch.nn.Conv2d):
    def forward(self, x):
        x = functional.pad(x, (0, 1, 0, 1))
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class PlainNorm(torch.nn.LayerNorm):
    def forward(self, x):
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = SameConv(3, 8, 3, stride=2), NormAct(8), PlainNorm(4)

    def forward(self, x):
        return self.last(self.norm(self.conv(x)))


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_a_subclass_is_one_of_jaxnns_layer_and_trains_like_it(training):
    torch.manual_seed(0)
    ported = port(Net().train(training), (X,))
    assert "class NormAct(nn.BatchNorm2d):" in ported.source
    assert "super().__call__(F.pad(x, (0, 1, 0, 1)))" in ported.source
    ported.report.raise_for_divergence()
    ported.module.train()
    ported.module(jnp.asarray(X.numpy()))
    assert ported.module.norm.num_batches_tracked.get_value() == 1 + ported.arrays["norm.num_batches_tracked"]


def test_a_subclass_that_adds_nothing_is_the_layer_itself():
    assert type(port(Net().eval(), (X,)).module.last) is nn.LayerNorm


class Standardized(torch.nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean()
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Coarse(torch.nn.LayerNorm):
    def forward(self, x):
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, 0.1)


@pytest.mark.parametrize("module", [Standardized(3, 8, 3), Coarse(8)], ids=["weight", "eps"])
def test_what_calls_the_operator_with_something_else_is_no_such_layer(module):
    assert "(nnx.Module)" in port(module.eval(), (X,)).source
