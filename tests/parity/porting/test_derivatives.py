"""Models that differentiate themselves with ``torch.autograd.grad``."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn
from torch.autograd import grad
from torch.nn import functional as F

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


class Descent(nn.Module):
    """What the gradient reads is called as something else is afterwards; the loop stands within the gradient only."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
        self.before, self.after = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        y = x.detach().clone().requires_grad_()
        h, u = self.before(x), y
        for layer in self.layers:
            u = torch.tanh(layer(u))
        step = grad((u * h * h.cos()).sum(), y, create_graph=True)[0]
        h = self.after(x)
        return step + h * h.sin()


def test_a_gradient_that_waits_for_its_reader_keeps_the_names_that_its_function_reads():
    source = parity.port(Descent(), torch.randn(4, 3)).source
    assert source.count("for layer in self.layers:") == 1


class Dropped(Descent):
    def forward(self, x):
        y = x.requires_grad_()
        return grad(F.dropout(self.before(y).sin(), 0.5, self.training).sum(), y, create_graph=True)[0]


def test_a_gradient_through_chance_is_refused():
    parity.port(Dropped().eval(), torch.randn(4, 3))
    with pytest.raises(parity.PortError, match="through what is drawn by chance"):
        parity.port(Dropped(), torch.randn(4, 3))


class Wrong(nnx.Module):
    def __init__(self, port):
        self.net = port.net

    def __call__(self, x, t):
        return jnp.ones((4, 1)) * self.net(jnp.concatenate([x, t], 1))


def test_a_wrong_port_of_a_model_that_differentiates_is_reported():
    model, inputs = Equation(), (torch.randn(4, 1), torch.randn(4, 1))
    port = parity.port(model, inputs, verify=False)
    assert not parity.check(model, Wrong(port.module), inputs, gradients=False).passed


class Counted(Equation):
    calls = 0

    def forward(self, x, t):
        self.calls += 1
        return super().forward(x, t)


def test_a_model_that_differentiates_may_count():
    parity.port(Counted(), (torch.randn(4, 1), torch.randn(4, 1)))
