"""Models that differentiate themselves with ``torch.autograd.grad``."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import grad

import parity


class Equation(nn.Module):
    """The residual of Burgers' equation."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x, t):
        x.requires_grad_(True), t.requires_grad_(True)
        u = self.net(torch.cat([x, t], 1))
        u_x, u_t = grad(u, (x, t), grad_outputs=torch.ones_like(u), create_graph=True)
        u_xx = grad(u_x.sum(), x, create_graph=True)[0]
        return u_t + u * u_x - 0.1 * u_xx


class Forces(nn.Module):
    """Forces, which training does not go through; what is read beside the differentiated input stays as it is."""

    def __init__(self):
        super().__init__()
        self.energy = nn.Linear(3, 1)

    def forward(self, x):
        with torch.enable_grad():
            places = x.detach().clone().requires_grad_()
            energy = self.energy((places * x).sin()) ** 2
        return energy, -grad([energy], [places], [x[:, :1]], retain_graph=True)[0]


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.forces = Forces()

    def forward(self, x):
        energy, forces = self.forces(x)
        return energy.sum() + forces


@pytest.mark.parametrize(("kind", "inputs"), [(Equation, 2), (Field, 1)])
def test_a_model_that_differentiates_is_ported_with_its_gradients(kind, inputs):
    torch.manual_seed(0)
    width = 1 if kind is Equation else 3
    port = parity.port(kind(), tuple(torch.randn(4, width) for _ in range(inputs)))
    assert not port.notes
    assert port.report.passed
    x = [torch.randn(3, width) for _ in range(inputs)]
    ours = port.module(*(jnp.asarray(part) for part in x))
    np.testing.assert_allclose(ours, port._subject[0](*x).detach(), atol=1e-5)


def test_a_gradient_function_is_written_once():
    port = parity.port(Equation(), (torch.randn(4, 1), torch.randn(4, 1)), verify=False)
    assert port.source.count("def u_of_x_t(") == 1


class Meta(Forces):
    def forward(self, x):
        loss = self.energy(x).sum() ** 2
        return x @ (self.energy.weight - grad(loss, self.energy.weight, create_graph=True)[0]).mT


def test_a_gradient_by_a_parameter_is_refused_with_its_line():
    with pytest.raises(parity.PortError, match=r"grad\(loss, self.energy.weight.*with regard to a parameter"):
        parity.port(Meta(), torch.randn(4, 3))
