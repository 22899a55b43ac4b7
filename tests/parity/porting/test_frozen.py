"""What a trace would freeze, and a port may not: branches on sizes, Python's chance, what is kept in attributes."""

import random

import jax.numpy as jnp
import pytest
import torch
from torch import nn

import parity


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.calls = 0
        self.mask = None


class Branches(Base):
    def forward(self, x):
        h = self.linear(x)
        return h * 2 if x.shape[0] > 4 else h


class Halves(Base):
    def forward(self, x):
        first, second = (torch.zeros_like(x), x) if x.shape[0] % 2 else self.linear(x).chunk(2)
        return torch.cat([second, first])


class Squeezed(Base):
    def forward(self, x):
        return self.linear(x).squeeze()


class Single(Base):
    def forward(self, x):
        return self.linear(x) if x.shape[0] == 1 else x * 2


class Rows(Base):
    def forward(self, x):
        return torch.stack([self.linear(row) for row in x])


@pytest.mark.parametrize(
    ("kind", "size", "fits", "refuses", "said"),
    [
        (Branches, 3, 4, 5, r"only ported for x.shape\[0\] <= 4"),
        (Halves, 4, 6, 5, r"only ported for \(x.shape\[0\] % 2\) == 0"),
        (Squeezed, 3, 2, 1, r"only ported for x.shape\[0\] != 1"),
        (Single, 3, 2, 1, r"only ported for x.shape\[0\] != 1"),
        (Rows, 3, 3, 4, r"x.shape\[0\] is fixed to 3, got 4"),
    ],
)
def test_a_size_for_which_the_model_does_something_else_is_refused(kind, size, fits, refuses, said):
    port = parity.port(kind(), torch.randn(size, 2))
    assert not any("not compared" in note for note in port.notes)
    assert port.module(jnp.ones((fits, 2))).shape == (fits, 2)
    with pytest.raises(ValueError, match=said):
        port.module(jnp.ones((refuses, 2)))


class OneOfTwo(nn.Module):
    def forward(self, x, y):
        return torch.stack([row * 2 for row in x]), y + 1


def test_sizes_of_some_inputs_that_are_fixed_are_said_and_those_of_others_are_free():
    port = parity.port(OneOfTwo(), (torch.randn(3, 2), torch.randn(3, 2)))
    (note,) = port.notes
    assert note.startswith("sizes of x are fixed to the example's")
    port.module(jnp.ones((3, 2)), jnp.ones((5, 2)))
    with pytest.raises(ValueError, match=r"x.shape\[0\] is fixed to 3, got 5"):
        port.module(jnp.ones((5, 2)), jnp.ones((5, 2)))


class Product(Base):
    def forward(self, x):
        return torch.einsum("ni,ij,nj->n", x, self.linear.weight, x).view(-1, 1).view(x.shape[0], 1)


def test_einsum_of_three_leaves_the_batch_free():
    assert parity.port(Product(), torch.randn(3, 2)).module(jnp.ones((5, 2))).shape == (5, 1)


class Chance(Base):
    def forward(self, x):
        return self.linear(x) * (random.random() if self.training else 1)


class Counts(Base):
    def forward(self, x):
        self.calls += 1
        return self.linear(x) / self.calls


class Caches(Base):
    def forward(self, x):
        if self.mask is None:
            self.mask = torch.tril(torch.ones(2, 2))
        return self.linear(x) @ self.mask


def test_numbers_that_python_keeps_or_draws_are_refused_where_the_result_depends_on_them():
    x = torch.randn(3, 2)
    with pytest.raises(parity.PortError, match="draws numbers by Python's"):
        parity.port(Chance(), x)
    parity.port(Chance().eval(), x)
    with pytest.raises(parity.PortError, match="keeps in calls"):
        parity.port(Counts(), x)
    parity.port(Caches(), x)
