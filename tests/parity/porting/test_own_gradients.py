"""Models with an ``autograd.Function`` of their own: what goes back is what they say, on any batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

import parity


class Reversed(Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.weight * gradient, None


class Rounded(Function):
    """A learned step size; what is kept for the way back is made on the way forward."""

    @staticmethod
    def forward(ctx, x, step, low=-2, high=2):
        scaled = x / step
        ctx.save_for_backward(scaled, step)
        ctx.limits = low, high
        return scaled.clamp(low, high).round() * step

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        scaled, _ = ctx.saved_tensors
        low, high = ctx.limits
        inside = (scaled >= low) & (scaled <= high)
        of_step = torch.where(inside, scaled.round() - scaled, scaled.clamp(low, high))
        return gradient * inside.float(), gradient * of_step / scaled.shape[1] ** 0.5, None, None


class Picked(Function):
    """Two results, one without a gradient; set up apart."""

    @staticmethod
    def forward(x, table):
        index = (x[:, None] - table).square().sum(-1).argmin(1)
        return table[index], index

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, table = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(table, output[1])

    @staticmethod
    def backward(ctx, gradient, _):
        table, index = ctx.saved_tensors
        return gradient, torch.zeros_like(table).index_add(0, index, 2 * gradient)


class Joined(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x)
        return x + y, x * y

    @staticmethod
    def backward(ctx, of_sum, of_product):
        (x,) = ctx.saved_tensors
        return of_sum, 3 * of_product * x


rounded = Rounded.apply


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 5)
        self.step = nn.Parameter(torch.tensor([0.3]))

    def forward(self, x):
        return self.linear(rounded(x * 2, self.step)), rounded(x * 3, self.step)


class Adversary(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.heads = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 2) for _ in range(2))
        self.reverse = Reversed.apply

    def forward(self, x):
        x = self.body(x)
        return [head(self.reverse(x, 0.5 + i)) for i, head in enumerate(self.heads)]


class Codebook(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        return Picked.apply(x, self.table)[0]


class Pair(nn.Module):
    def forward(self, x):
        a, b = Joined.apply(x, x.sin())
        c, d = Joined.apply(x, x)
        return a * b + c * d


@pytest.mark.parametrize("kind", [Quantized, Adversary, Codebook, Pair])
def test_a_gradient_of_the_models_own_goes_back_on_any_batch(kind):
    torch.manual_seed(0)
    model = kind()
    port = parity.port(model, torch.randn(4, 4))
    assert not port.notes
    x = (torch.randn(3, 4) * 2).requires_grad_()

    def value(outputs):
        return sum((x**2).sum() for x in jax.tree.leaves(outputs))

    value(model(x)).backward()
    ours = jax.grad(lambda x: value(port.module(x)))(jnp.asarray(x.detach()))
    np.testing.assert_allclose(ours, x.grad, rtol=1e-4, atol=1e-5)


def test_a_function_called_twice_is_written_once():
    source = parity.port(Quantized(), torch.randn(4, 4)).source
    assert source.count("@jax.custom_vjp") == source.count("def rounded(x, step):") == 1
