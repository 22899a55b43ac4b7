"""What makes the source of a port read as written by hand."""

import pytest
import torch
from torch.nn import functional

from parity.porting import port

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1))


class Block(torch.nn.Module):
    def __init__(self, out=8):
        super().__init__()
        self.proj = torch.nn.Linear(8, out)

    def forward(self, x):
        return functional.pad(self.proj(x), (0, 0, 0, 0)).tanh()


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.Sequential(Block(), Block(), Block(), torch.nn.Tanh())
        self.drop, self.head = torch.nn.Dropout(0.1), torch.nn.Linear(8, 3)

    def heads(self, features):
        weights = features.softmax(-1)
        return weights.view(-1, 6, 4, 2).reshape(-1, 3, 16) * 1.0 @ weights.view(-1, 16, 3) + weights.sum()

    def features(self, x):
        hidden = self.drop(self.blocks(x))
        return hidden * hidden

    def forward(self, x):
        return self.head((self.heads(self.features(x)) + 1).mean(-1, keepdim=True).expand(-1, -1, 8))


@pytest.fixture(scope="module")
def source():
    return port(Net().eval(), (X,), verify=False).source


@pytest.mark.parametrize(
    "written",
    [
        "nn.Sequential(*(Block(rngs=rngs) for _ in range(3)), nn.Tanh())",
        "return jnp.tanh(self.proj(x))",
        "weights.reshape(-1, 3, 16) @ ",
        "weights = jax.nn.softmax(",
        "hidden = self.drop(self.blocks(x))",
    ],
    ids=[
        "equal blocks",
        "no padding",
        "one reshape and no factor of one",
        "name in a method",
        "name of a layer's result",
    ],
)
def test_a_port_is_written_with(written, source):
    assert written in source


class Biased(torch.nn.Module):
    """Keeps in evaluation what it makes of its parameter."""

    def __init__(self):
        super().__init__()
        self.biases, self.kept = torch.nn.Parameter(torch.randn(4)), {}

    def forward(self, x):
        if "bias" not in self.kept:
            self.kept["bias"] = self.biases[[0, 1, 2, 3, 3, 2, 1, 0]]
        return x + self.kept["bias"]


def test_what_a_model_keeps_of_an_earlier_call_is_made_of_its_parameters_again():
    model = Biased().eval()
    model(X)
    ported = port(model, (X,))
    assert "self.biases[" in ported.source
    assert list(model.kept) == ["bias"]
    ported.report.raise_for_divergence()  # gradients of the parameter among it


class Table(torch.nn.Module):
    """Has what it never makes."""

    def __init__(self):
        super().__init__()
        self.table = {"scale": torch.tensor(2.0)}

    def forward(self, x):
        return x * self.table["scale"]


def test_what_a_model_needs_to_have_is_kept():
    port(Table().eval(), (X,))


class Floor(torch.nn.Module):
    """Makes a tensor of a number each time."""

    def __init__(self):
        super().__init__()
        self.proj = torch.nn.Linear(8, 8)

    def forward(self, x):
        x = self.proj(x)
        return torch.where(x > -0.5, x, torch.tensor(-0.5)).reshape(x.shape)


class Masked(torch.nn.Module):
    """Builds its mask in steps, as libraries of many models do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("bias", torch.tril(torch.ones(1, 1, 9, 9)))
        self.layer = torch.nn.ModuleList([Floor(), Floor()])

    def forward(self, x):
        for layer in self.layer:
            x = layer(x)
        rows = (torch.arange(6) + 0)[None][:, None][..., None]
        seen = x.new_ones((), dtype=torch.bool) & (rows >= torch.arange(6))
        weights = torch.where(seen, torch.cat([self.bias[:, :, :6][..., :6]], 1), -1.0)
        return (weights @ x[:, None].repeat(1, 1, 1, 1))[:, 0, 1:][..., :4]


@pytest.fixture(scope="module")
def mask():
    return port(Masked().eval(), (X,)).source


@pytest.mark.parametrize(
    "written",
    [
        "for layer in self.layer:",
        "jnp.arange(6)[None, None, :, None] >= ",
        "self.bias[..., :6, :6]",
        "x[:, None]",
        "return jnp.where(x > -0.5, x, jnp.array(-0.5, jnp.float32))",
    ],
    ids=["number made anew", "new axes", "slices", "repeated once", "same shape"],
)
def test_what_a_library_does_in_steps_is_written_in_one(written, mask):
    assert written in mask
    assert " & " not in mask


class Places(torch.nn.Module):
    """Reads numbers of what it makes itself, for as many rows as it is given."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(20, 4)

    def forward(self, x):
        places = torch.arange(x.shape[1])[None].expand(x.shape[0], -1)
        if torch.ones(x.shape).all():
            x = x * 2
        return x + self.table.weight[: places.max().item() + 1, :1][places][..., 0]


class Summed(Places):
    def forward(self, x):
        return x * float(torch.ones(x.shape).sum())


def test_numbers_of_what_any_number_of_rows_holds_leave_it_free():
    assert not port(Places(), X[..., 0]).notes
    assert port(Summed(), X[..., 0]).notes[0].startswith("sizes are fixed")
