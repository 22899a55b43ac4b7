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


class Scaled(Base):
    def forward(self, x):
        return self.linear(x).sum(1) / x.shape[1] ** 0.5


class Cut(Base):
    def forward(self, x):
        return x[:, : x.shape[1] // 2]


class Rearranged(Base):
    def forward(self, x):
        return x.view(x.shape[0], 2, -1, 2).cumsum(1)


class Flattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 2, 1), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x).flatten(1))


@pytest.mark.parametrize("kind", [Scaled, Cut, Rearranged, Flattened])
def test_a_size_that_is_a_number_in_the_port_is_refused_where_it_is_another(kind):
    """Without that all of these would give something for twice the size, and nothing that the model gives."""
    port = parity.port(kind(), torch.randn(3, 4, 2), verify=False)
    sizes = r"x.shape\[(1|2)\] is fixed to \d, got \d"
    with pytest.raises(ValueError, match=sizes):
        port.module(jnp.ones((3, 4, 4) if kind is Flattened else (3, 8, 2)))


class Averaged(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x).mean(-1).flatten(1))


def test_a_size_of_which_the_port_makes_what_the_model_does_is_not_looked_at():
    model, x = Averaged(), torch.randn(3, 2, 9)
    port = parity.port(model, torch.randn(2, 2, 4), verify=False)
    assert "fixed" not in port.source
    assert jnp.allclose(port.module(jnp.asarray(x.numpy())), model(x).detach().numpy(), atol=1e-6)


def test_one_row_leaves_the_number_of_rows_free():
    model, x = Averaged(), torch.randn(3, 2, 4)
    port = parity.port(model, torch.randn(1, 2, 4))
    assert not port.notes
    assert jnp.allclose(port.module(jnp.asarray(x.numpy())), model(x).detach().numpy(), atol=1e-6)


class Positions(nn.Module):
    """Looks at the number of rows, and does the same with one."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, x):
        places = torch.arange(x.shape[1])[None]
        if x.shape[0] != places.shape[0]:
            places = places.expand(x.shape[0], -1)
        return self.table(x) * torch.stack(self.table(places).unbind(1), 1)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_model_that_looks_at_the_number_of_rows_and_does_the_same_takes_one_and_more(rows):
    model, x = Positions(), torch.randint(0, 9, (3, 5))
    port = parity.port(model, x[:rows])
    assert not port.notes
    for given in (x, x[:1]):
        assert jnp.allclose(port.module(jnp.asarray(given.numpy())), model(given).detach().numpy(), atol=1e-6)


def test_what_a_model_does_with_one_row_only_is_ported_for_one_row():
    port = parity.port(Single(), torch.randn(1, 2))
    assert port.notes == ["sizes are fixed to the example's: the model does something else with more than one row"]
    with pytest.raises(ValueError, match=r"x.shape\[0\] is fixed to 1, got 2"):
        port.module(jnp.ones((2, 2)))


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


class Steps(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        scale = 1 / (int(self.steps) + 1)
        self.steps += 1
        return self.linear(x) * scale


def test_a_number_read_from_a_buffer_that_the_model_writes_is_refused():
    with pytest.raises(parity.PortError, match="reads a number from the buffer steps and writes it"):
        parity.port(Steps(), torch.randn(3, 2))


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
