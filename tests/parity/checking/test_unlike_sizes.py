"""Layers that get all rows where torch's get those that a mask picks: right ports pass, mistakes in them are found."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity
from jaxnn import functional as F
from jaxnn import nn
from parity import weights
from tests.parity.checking.test_planted_faults import replaced


class TorchExpert(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.act = torch.nn.Linear(6, 9), torch.nn.GELU()
        self.down, self.norm = torch.nn.Linear(9, 6), torch.nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(self.down(self.act(self.up(x))))


class TorchMixture(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Linear(6, 2)
        self.experts = torch.nn.ModuleList(TorchExpert() for _ in range(2))

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(-1).topk(1)
        result = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            row, rank = torch.where(chosen == i)
            result.index_add_(0, row, expert(x[row]) * weights[row, rank, None])
        return result


class Expert(nn.Module):
    def __init__(self, *, rngs):
        self.up, self.act = nn.Linear(6, 9, rngs=rngs), nn.GELU()
        self.down, self.norm = nn.Linear(9, 6, rngs=rngs), nn.LayerNorm(6)

    def __call__(self, x):
        return self.norm(self.down(self.act(self.up(x))))


class Mixture(nn.Module):
    def __init__(self, *, rngs):
        self.gate = nn.Linear(6, 2, rngs=rngs)
        self.experts = nn.ModuleList([Expert(rngs=rngs) for _ in range(2)])
        self.weighted = True

    def __call__(self, x):
        weights, chosen = jax.lax.top_k(jax.nn.softmax(self.gate(x)), 1)
        result = jnp.zeros_like(x)
        for i, expert in enumerate(self.experts):
            share = jnp.where(chosen == i, weights if self.weighted else 1.0, 0.0).sum(-1, keepdims=True)
            result += expert(x) * share
        return result


def pair():
    """A mixture of experts with a layer behind it, and its port."""
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(TorchMixture(), torch.nn.Linear(6, 6))
    ours = nn.Sequential(Mixture(rngs=nnx.Rngs(0)), nn.Linear(6, 6, rngs=nnx.Rngs(0)))
    nn.load_state_dict(ours, weights.load(theirs))
    return theirs, ours, torch.randn(12, 6)


@pytest.mark.parametrize("gradients", [True, False])
def test_experts_that_get_all_rows_are_compared_on_those_of_torch(gradients):
    report = parity.check(*pair(), gradients=gradients)
    assert report.passed, report
    experts = [record for record in report.layers if "experts" in record.path]
    assert len(experts) == 2 * 5
    assert all(record.compared and record.error < 1e-6 for record in experts)
    assert all(record.unlike.startswith("12 rows where torch has ") for record in experts)
    assert "on torch's input: 12 rows where torch has" in repr(report)
    assert report.only_torch == report.only_jax == []


def with_tanh(expert):
    expert.act = nn.Tanh()


def with_epsilon(expert):
    expert.norm.eps = 1e-2


def with_transposed_weight(expert):
    expert.up.weight[...] = expert.up.weight[...].reshape(6, 9).T


@pytest.mark.parametrize(
    ("plant", "layer", "suspect"),
    [(with_tanh, "act", "activation"), (with_epsilon, "norm", "epsilon"), (with_transposed_weight, "up", None)],
)
def test_a_mistake_in_an_expert_is_found_there(plant, layer, suspect):
    theirs, ours, x = pair()
    plant(ours[0].experts[1])
    report = parity.check(theirs, ours, x, gradients=False)
    assert [fault.path for fault in report.faults] == [f"0.experts.1.{layer}"], report
    if suspect is not None:
        assert report.faults[0].suspect == suspect
    uncompared = [record.path for record in report.layers if not record.compared]
    assert uncompared == ["0"]  # its own code goes on from what the wrong expert gives
    assert "not compared" in repr(report)


def test_a_mistake_in_the_code_of_an_expert_is_found_there():
    theirs, ours, x = pair()
    replaced(ours[0].experts[0], lambda self, x: self.norm(self.down(self.up(x))))
    (fault,) = parity.check(theirs, ours, x, gradients=False).faults
    assert (fault.path, fault.suspect) == ("0.experts.0", "activation")


def test_a_mistake_in_what_is_made_of_the_experts_is_found_there():
    theirs, ours, x = pair()
    ours[0].weighted = False
    assert [fault.path for fault in parity.check(theirs, ours, x, gradients=False).faults] == ["0"]


def test_a_gradient_that_an_expert_stops_is_found_there():
    theirs, ours, x = pair()
    stopped = lambda self, x: x @ jax.lax.stop_gradient(self.weight[...]).T + self.bias[...]  # noqa: E731
    replaced(ours[0].experts[1].up, stopped)
    (fault,) = parity.check(theirs, ours, x).faults
    assert (fault.path, fault.suspect) == ("0.experts.1.up", "stopped gradient")


def for_twelve_rows(self, x):
    return self.norm(self.down(self.act(self.up(x.reshape(12, 6)))))


def test_a_layer_made_for_its_own_size_is_not_compared_but_those_in_it_are():
    theirs, ours, x = pair()
    for expert in ours[0].experts:
        replaced(expert, for_twelve_rows)
    report = parity.check(theirs, ours, x, gradients=False)
    assert report.passed, report
    assert [record.path for record in report.layers if not record.compared] == [f"0.experts.{i}" for i in range(2)]
    ours[0].experts[1].norm.eps = 1e-2
    (fault,) = parity.check(theirs, ours, x, gradients=False).faults
    assert (fault.path, fault.suspect) == ("0.experts.1.norm", "epsilon")


class TorchCut(torch.nn.Module):
    def forward(self, x, length):
        return x[: int(length)].exp()


class Whole(nn.Module):
    def __call__(self, x, length):
        return jnp.exp(x)


class TorchSum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cut, self.head = TorchCut(), torch.nn.Linear(6, 2)

    def forward(self, x, length):
        return self.head(self.cut(x, length)).sum(0)


class Sum(nn.Module):
    def __init__(self):
        self.cut, self.head = Whole(), nn.Linear(6, 2, rngs=nnx.Rngs(0))
        self.factor = 1.0

    def __call__(self, x, length):
        rows = jnp.arange(len(x)) < length
        return jnp.where(rows[:, None], self.head(self.factor * self.cut(x, length)), 0).sum(0)


def test_a_result_of_another_size_is_right_where_what_is_made_of_it_is():
    theirs, ours = TorchSum(), Sum()
    nn.load_state_dict(ours, weights.load(theirs))
    inputs = torch.randn(8, 6), torch.tensor(5)
    report = parity.check(theirs, ours, inputs, gradients=False)
    assert report.passed, report
    assert {r.path: (r.unlike, r.compared) for r in report.layers if r.unlike} == {
        "cut": ("8 rows where torch has 5", False),
        "head": ("8 rows where torch has 5", True),
    }
    ours.factor = 2.0
    report = parity.check(theirs, ours, inputs, gradients=False)
    assert [fault.path for fault in report.faults][:1] == ["cut"], report


class TorchMasked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x, mask):
        return self.drop(x * mask)


class Masked(nn.Module):
    def __init__(self):
        self.drop = nn.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x, mask):
        return self.drop(x * mask)


class TorchInner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = TorchMasked()

    def forward(self, x, mask):
        return self.inner(x, mask.expand_as(x)).relu()


class Inner(nn.Module):
    def __init__(self):
        self.inner = Masked()

    def __call__(self, x, mask):
        return F.relu(self.inner(x, mask))


def test_an_argument_with_one_row_for_all_leaves_a_layer_as_it_is():
    inputs = torch.randn(4, 6), torch.arange(6.0)
    report = parity.check(TorchInner(), Inner(), inputs, gradients=False)
    assert report.passed, report
    assert not any(record.unlike for record in report.layers)


class TorchRunning(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.sum, self.head = TorchTimes(), torch.nn.Linear(6, 2)

    def forward(self, x, mask):
        result = torch.zeros_like(x)
        result[mask] = self.sum(x[mask])
        return self.head(result)


class TorchTimes(torch.nn.Module):
    def forward(self, x):
        return x.cumsum(1)


class Times(nn.Module):
    axis = 0

    def __call__(self, x):
        return jnp.cumsum(x, self.axis)


class Running(nn.Module):
    def __init__(self):
        self.sum, self.head = Times(), nn.Linear(6, 2, rngs=nnx.Rngs(0))

    def __call__(self, x, mask):
        summed = jnp.swapaxes(self.sum(jnp.swapaxes(x, 0, 1)), 0, 1)
        return self.head(jnp.where(mask[:, None, None], summed, 0))


@pytest.mark.parametrize("gradients", [True, False])
def test_a_layer_that_takes_all_rows_on_another_axis_is_right_where_what_is_around_it_is(gradients):
    theirs, ours = TorchRunning(), Running()
    nn.load_state_dict(ours, weights.load(theirs))
    inputs = torch.randn(4, 5, 6), torch.tensor([True, False, True, True])
    report = parity.check(theirs, ours, inputs, gradients=gradients)
    assert report.passed, report
    assert {record.path for record in report.layers if not record.compared} == {"sum"}
    ours.sum.axis = -1
    report = parity.check(theirs, ours, inputs, gradients=gradients)
    assert [fault.path for fault in report.faults] == ["sum"], report


def test_dropout_of_more_rows_than_torchs_is_said_to_be_compared_in_eval_mode_only():
    theirs, ours, x = pair()
    theirs[0].experts[0].act, ours[0].experts[0].act = torch.nn.Dropout(0.5), nn.Dropout(0.5, rngs=nnx.Rngs(0))
    report = parity.check(theirs, ours, x, gradients=False)
    assert not report.passed
    assert "more rows than torch can be compared in eval mode only" in report.rows[0].reason
    theirs.eval(), ours.eval()
    assert parity.check(theirs, ours, x, gradients=False).passed
