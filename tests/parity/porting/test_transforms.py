"""Models that transform functions of theirs with ``torch.func``."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import parity
from parity.porting.errors import PortError


class InnerStep(nn.Module):
    """A step of gradient descent for each task; what is detached is not differentiated by."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 1)
        self.rate = nn.Parameter(torch.tensor(0.1))

    def forward(self, support, targets, query):
        weights = dict(self.net.named_parameters())

        def adapted(x, y, query):
            def loss(weights):
                error = functional_call(self.net, weights, (x,)) - y
                return (error * error.detach().tanh()).mean()

            slopes = grad(loss)(weights)
            return functional_call(self.net, {k: w - self.rate * slopes[k] for k, w in weights.items()}, (query,))

        return vmap(adapted)(support, targets, query)


class Derivatives(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x, direction):
        uphill = vmap(grad(lambda row: F.softplus(self.net(row)).sum()))(x)
        return uphill, vmap(torch.dot)(uphill, direction)


@pytest.mark.parametrize(("kind", "shapes"), [(InnerStep, ((5, 4), (5, 1), (2, 4))), (Derivatives, ((3,), (3,)))])
def test_a_transformed_function_is_ported_with_its_gradients(kind, shapes):
    torch.manual_seed(0)
    model = kind()
    port = parity.port(model, tuple(torch.randn(3, *shape) for shape in shapes))
    assert not port.notes
    assert port.report.passed
    given = [torch.randn(2, *shape) for shape in shapes]
    ours, theirs = port.module(*map(jnp.asarray, given)), model(*given)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y.detach(), atol=1e-5)


def test_a_transformed_function_without_gradients_is_refused():
    class Blind(nn.Linear):
        def forward(self, x):
            def function(row):
                with torch.no_grad():
                    scale = row.norm()
                return super(Blind, self).forward(row) * scale

            return vmap(function)(x)

    with pytest.raises(PortError, match="no_grad in a function"):
        parity.port(Blind(3, 2), (torch.randn(3, 3),))
