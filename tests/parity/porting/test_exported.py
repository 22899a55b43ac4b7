"""What export alone would refuse, and what an operator's writer does not know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from parity.porting import PortError, port


class Does(torch.nn.Module):
    """Does ``forward(self, x)``; the buffer ``count`` is 3."""

    def __init__(self, forward):
        super().__init__()
        self.register_buffer("count", torch.tensor(3))
        self.does = forward

    def forward(self, x):
        return self.does(self, x)


X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def test_a_number_kept_in_a_buffer_is_read_where_nothing_writes_it():
    def steps(self, x):
        for _ in range(int(self.count)):
            x = torch.tanh(x)
        return x

    np.testing.assert_allclose(port(Does(steps), (X,)).module(jnp.asarray(X.numpy())), X.tanh().tanh().tanh(), 1e-6)


def test_a_number_is_not_read_from_a_buffer_that_the_model_writes():
    def counted(self, x):
        self.count.add_(1)
        return x * int(self.count)

    with pytest.raises(PortError):
        port(Does(counted), (X,))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cdist(x, x),
        lambda x: x.clamp(0, 1).square() + x.clamp_min(0),
        lambda x: (x[:, :1] * 0).std(0) + x.std(1),
        lambda x: x.abs() + (x * 0).norm(dim=(0, 1), keepdim=True),
    ],
    ids=["cdist", "clamp", "std", "norm"],
)
def test_gradients_are_torchs_where_jaxs_own_functions_have_another(function):
    x = torch.tensor([[0.0, 1.0, -1.0], [0.0, 0.0, 0.0], [2.0, 2.0, 0.5]], requires_grad=True)
    (expected,) = torch.autograd.grad(function(x).sum(), x)
    module = port(Does(lambda self, x: function(x)), (X,)).module
    gradient = jax.grad(lambda x: module(x).sum())(jnp.asarray(x.detach().numpy()))
    np.testing.assert_allclose(gradient, expected, 1e-6)


def test_an_argument_that_the_writer_would_drop_stops_the_port():
    with pytest.raises(PortError, match="input_scale"):
        port(Does(lambda self, x: torch.ops.aten.elu(x, 1.0, 1.0, 2.0)), (X,))
