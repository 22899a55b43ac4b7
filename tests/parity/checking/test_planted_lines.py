"""Slips in one line of a model's own code: each is named, and none is where the port is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import parity
from jaxnn import functional as F
from jaxnn import nn
from parity import weights


class TorchLine(torch.nn.Module):
    def __init__(self, line):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)
        self.line = line

    def forward(self, x):
        return self.line(self.inner, x)


class Line(nn.Module):
    def __init__(self, line):
        self.inner = nn.Linear(4, 4, rngs=nnx.Rngs(0))
        self.line = line

    def __call__(self, x):
        return self.line(self.inner, x)


def checked(theirs, ours, inputs):
    torch.manual_seed(0)
    theirs, ours = TorchLine(theirs), Line(ours)
    nn.load_state_dict(ours, weights.load(theirs))
    return parity.check(theirs, ours, inputs, gradients=False)


def masked(inner, x):
    causal, short = torch.ones(4, 4).triu(1).bool(), torch.tensor([False, True, False, True])
    return inner(x).masked_fill((causal | short)[..., None], 0.0)


def masked_by(mask):
    causal, short = np.triu(np.ones((4, 4), bool), 1), np.array([False, True, False, True])
    return lambda inner, x: jnp.where(mask(causal, short)[..., None], 0.0, inner(x))


LINES = {
    "running sum": (
        lambda inner, x: inner(x).cumsum(1),
        {
            "": lambda inner, x: jnp.cumsum(inner(x), 1),
            "runs backwards along axis 1": lambda inner, x: jnp.cumsum(inner(x)[:, ::-1], 1)[:, ::-1],
            "(exclusive)": lambda inner, x: jnp.cumsum(inner(x), 1) - inner(x),
            "runs along axis 2, torch's along 1": lambda inner, x: jnp.cumsum(inner(x), 2),
        },
    ),
    "sine": (
        lambda inner, x: torch.sin(inner(x)),
        {
            "": lambda inner, x: jnp.sin(inner(x)),
            "it computes cos, torch sin": lambda inner, x: jnp.cos(inner(x)),
        },
    ),
    "roll": (
        lambda inner, x: torch.roll(inner(x), (1, 2), (1, 2)),
        {
            "": lambda inner, x: jnp.roll(inner(x), (1, 2), (1, 2)),
            "rolled along axis 1 alone": lambda inner, x: jnp.roll(inner(x), 1, 1),
            "in the other order": lambda inner, x: jnp.roll(inner(x), (2, 1), (1, 2)),
        },
    ),
    "factor": (
        lambda inner, x: torch.sin(0.37 * inner(x)),
        {
            "": lambda inner, x: jnp.sin(0.37 * inner(x)),
            "a factor is as if 0.41, torch's is 0.37": lambda inner, x: jnp.sin(0.41 * inner(x)),
        },
    ),
    "factor computed": (
        lambda inner, x: torch.sin(torch.tensor(1.3).exp() * inner(x)),
        {"a factor is as if 2.9, torch's is 3.6693": lambda inner, x: jnp.sin(2.9 * inner(x))},
    ),
    "quotient": (
        lambda inner, x: inner(x) / (1 + inner(x).abs()),
        {
            "the division is missing": lambda inner, x: inner(x),
            "the divisor stands for the quotient": lambda inner, x: 1 + jnp.abs(inner(x)),
        },
    ),
    "gate": (
        lambda inner, x: torch.sigmoid(inner(x)) * x + (1 - torch.sigmoid(inner(x))),
        {"taken from one": lambda inner, x: jax.nn.sigmoid(-inner(x)) * x + jax.nn.sigmoid(inner(x))},
    ),
    "unit": (
        lambda inner, x: torch.nn.functional.normalize(inner(x), dim=-1),
        {"dim is as if 1, torch's is -1": lambda inner, x: F.normalize(inner(x), dim=1)},
    ),
    "exponential": (
        lambda inner, x: x + inner(x).exp(),
        {"what exp gives is halved": lambda inner, x: x + jnp.exp(inner(x)) / 2},
    ),
    "masks": (
        masked,
        {
            "": masked_by(lambda causal, short: causal | short),
            "the second of two masks is missing": masked_by(lambda causal, short: causal),
            "the first of two masks is missing": masked_by(lambda causal, short: causal * False | short),
            "joined by and": masked_by(lambda causal, short: causal & short),
        },
    ),
    "reversed": (
        lambda inner, x: inner(x),
        {
            "": lambda inner, x: inner(x),
            "inner gets is reversed along axis 1": lambda inner, x: inner(x[:, ::-1]),
        },
    ),
    "scores": (
        lambda inner, x: inner(x) @ x.transpose(1, 2) * 0.3 + torch.arange(1, 5).sqrt(),
        {
            "": lambda inner, x: inner(x) @ x.swapaxes(1, 2) * 0.3 + jnp.sqrt(jnp.arange(1, 5)),
            "added before the scores or sums are scaled": lambda inner, x: (
                (inner(x) @ x.swapaxes(1, 2) + jnp.sqrt(jnp.arange(1, 5))) * 0.3
            ),
            "each one less": lambda inner, x: inner(x) @ x.swapaxes(1, 2) * 0.3 + jnp.sqrt(jnp.arange(4)),
            "bfloat16 factors": lambda inner, x: (
                (inner(x).astype(jnp.bfloat16) @ x.swapaxes(1, 2).astype(jnp.bfloat16)).astype(jnp.float32) * 0.3
                + jnp.sqrt(jnp.arange(1, 5))
            ),
        },
    ),
    "masks of windows": (
        lambda inner, x: inner(x).view(2, 4, 2, 4) + torch.arange(16.0).sin().view(1, 4, 1, 4),
        {
            "as if they stood in the other order": lambda inner, x: (
                inner(x).reshape(4, 2, 2, 4) + jnp.sin(jnp.arange(16.0)).reshape(4, 1, 1, 4)
            ).reshape(2, 4, 2, 4),
        },
    ),
    "term that a factor makes vanish": (
        lambda inner, x: inner(x).sum(2) + 0.5 ** (12 * torch.arange(1, 5) / 12.0),
        {"a term is not added": lambda inner, x: inner(x).sum(2)},
    ),
    "normalization by hand": (
        lambda inner, x: (inner(x) - inner(x).mean(1, keepdim=True)) / inner(x).std(1, keepdim=True),
        {
            "mean, std run along axis 2": lambda inner, x: (
                (inner(x) - inner(x).mean(2, keepdims=True)) / inner(x).std(2, keepdims=True, ddof=1)
            )
        },
    ),
    "one number of two outputs": (
        lambda inner, x: (torch.nn.functional.leaky_relu(inner(x), 0.2), (inner(x) ** 2).mean()),
        {
            "": lambda inner, x: (jax.nn.leaky_relu(inner(x), 0.2), (inner(x) ** 2).mean()),
            "the exponent is 4": lambda inner, x: (jax.nn.leaky_relu(inner(x), 0.2), (inner(x) ** 4).mean()),
            "the absolute value": lambda inner, x: (jax.nn.leaky_relu(inner(x), 0.2), jnp.abs(inner(x)).mean()),
        },
    ),
}


@pytest.mark.parametrize(("line", "slip"), [(line, slip) for line, (_, slips) in LINES.items() for slip in slips])
def test_a_slip_in_a_line_is_named(line, slip):
    theirs, slips = LINES[line]
    report = checked(theirs, slips[slip], torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert report.passed == (slip == ""), report
    assert slip == "" or slip in report.faults[0].reason, report


def test_group_norm_for_instance_norm_is_named():
    theirs = torch.nn.Sequential(torch.nn.InstanceNorm2d(8, affine=True))
    ours = nn.Sequential(nn.GroupNorm(4, 8))
    nn.load_state_dict(ours, weights.load(theirs))
    report = parity.check(theirs, ours, torch.randn(2, 8, 4, 4), gradients=False)
    assert "4 groups" in report.faults[0].reason, report


def test_gumbel_softmax_done_otherwise_is_reported():
    def drawn(tau):
        return lambda inner, x: F.gumbel_softmax(inner(x), tau=tau, key=jax.random.key(0))

    report = checked(
        lambda inner, x: torch.nn.functional.gumbel_softmax(inner(x), tau=0.5), drawn(1.0), torch.randn(3, 4)
    )
    assert not report.passed
    assert [(fault.path, fault.kind) for fault in report.faults] == [("", "code")]
