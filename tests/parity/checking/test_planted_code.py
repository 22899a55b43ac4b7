"""Slips in a model's own code between its layers: each is found, and named."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity import weights


class TorchPooled(torch.nn.Module):
    """A gated pooling over positions up to a length, of features rolled, modulated and joined."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Linear(6, 6)
        self.score = torch.nn.Linear(6, 1)
        self.head = torch.nn.Linear(24, 3)
        self.register_buffer("table", torch.arange(48.0).reshape(8, 6).sin())

    def forward(self, x, lengths):
        inside = torch.arange(8) < lengths[:, None]
        x = torch.roll(x, -2, 1) * 2.5 + self.table
        x = torch.nn.functional.silu(x) + torch.nn.functional.silu(self.shift(x.mean(1)))[:, None]
        x = torch.roll(x, 2, 1)
        share = self.score(x).squeeze(-1).masked_fill(~inside, -torch.inf).softmax(1)
        spread = x.var(1, unbiased=False)
        parts = [(share[..., None] * x).sum(1), x.max(1)[0], spread, x[:, 0]]
        return self.head(torch.cat(parts, 1)), share[:, None] * share[..., None] * torch.arange(8.0)


class Pooled(nnx.Module):
    def __init__(self, fault):
        self.fault = fault
        self.shift = nn.Linear(6, 6, rngs=nnx.Rngs(0))
        self.score = nn.Linear(6, 1, rngs=nnx.Rngs(0))
        self.head = nn.Linear(24, 3, rngs=nnx.Rngs(0))
        table = jnp.sin(jnp.arange(48.0)).reshape(8, 6)
        self.table = nn.Buffer(jnp.nextafter(table, 2.0) if fault else table)  # as of a library of other sines

    def __call__(self, x, lengths):
        fault = self.fault
        bound = lengths[:, None]
        inside = jnp.arange(8) <= bound if fault == "bound" else jnp.arange(8) < bound
        act = jax.nn.relu if fault == "relu" else jax.nn.silu
        turned = (lambda x, by: x) if fault == "unrolled" else lambda x, by: jnp.roll(x, by, 1)
        x = turned(x, -2) * 2.5 + self.table[...]
        y, e = act(x), act(self.shift(x.mean(1)))[:, None]
        x = turned(y * e if fault == "product" else y * (1 + e) if fault == "modulated" else y + e, 2)
        score = self.score(x)[..., 0]
        share = jax.nn.softmax(jnp.where(inside, score, -jnp.inf), 1)
        spread = x.var(1, ddof=1 if fault == "unbiased" else 0)
        best = x.mean(1) if fault == "mean" else x.max(1)
        parts = [(jax.lax.stop_gradient(share)[..., None] if fault == "stopped" else share[..., None]) * x]
        parts = [parts[0].sum(1), best, spread, x[:, 0]]
        parts = [parts[i] for i in ((0, 2, 1, 3) if fault == "joined" else (0, 1, 2, 3))]
        pairs = share[:, None] * share[..., None] * jnp.arange(8.0)
        return self.head(jnp.concatenate(parts, 1)), pairs.swapaxes(1, 2) if fault == "laid out" else pairs


def compared(fault, **options):
    torch.manual_seed(0)
    theirs, ours = TorchPooled(), Pooled(fault)
    arrays = weights.load(theirs)
    if fault is not None:
        del arrays["table"]
    nn.load_state_dict(ours, arrays, strict=fault is None)
    return parity.check(theirs, ours, (torch.randn(5, 8, 6), torch.tensor([8, 5, 3, 7, 2])), **options)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("bound", "the comparison takes the bound itself in"),
        ("relu", "in 2 calls of silu: it computes relu, torch silu"),
        ("unrolled", "in 2 calls of roll: it is not rolled"),
        ("product", "the terms are multiplied"),
        ("modulated", "multiplied by one plus the second"),
        ("unbiased", "in var: it takes the unbiased variance"),
        ("mean", "in max: it takes the mean, torch the maximum"),
        ("joined", "the parts are joined in the order (0, 2, 1, 3)"),
        ("laid out", "output[1] holds torch's numbers, laid out otherwise"),
    ],
)
def test_a_slip_is_named_though_a_table_is_rounded_otherwise(fault, reason):
    report = compared(fault, gradients=False)
    assert reason in report.faults[0].reason, report
    assert report.faults[0].path == ""


def test_where_the_gradient_stops_is_named():
    report = compared("stopped")
    assert report.faults[0].suspect == "stopped gradient"
    assert "stops the gradient of what" in report.faults[0].reason


def test_the_faithful_port_passes_though_its_score_has_a_bias_without_a_gradient():
    report = compared(None)
    assert report.passed, report


class TorchScaled(torch.nn.Module):
    """Rows of a table by place, times a parameter without axes."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(4, 3)
        self.scale = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return self.table(x.argmin(-1)) * (1 + self.scale)


class Scaled(nnx.Module):
    def __init__(self, start, factor):
        self.table, self.scale = nn.Embedding(4, 3, rngs=nnx.Rngs(0)), nnx.Param(jnp.zeros(()))
        self.start, self.factor = start, factor

    def __call__(self, x):
        return self.table(jnp.argmin(x, -1) + self.start) * (self.factor + self.scale[...])


@pytest.mark.parametrize(
    ("start", "factor", "said"),
    [(0, 1, ""), (0, 0, "a term is not added"), (2, 1, "raises IndexError with what it computes itself")],
)
def test_a_slip_beside_a_parameter_without_axes_or_beyond_a_table_is_a_fault(start, factor, said):
    torch.manual_seed(0)
    theirs, ours = TorchScaled(), Scaled(start, factor)
    nn.load_state_dict(ours, weights.load(theirs))
    report = parity.check(theirs, ours, torch.randn(6, 4), gradients=False)
    assert report.passed == (said == ""), report
    assert said in "".join(map(str, report.faults))
