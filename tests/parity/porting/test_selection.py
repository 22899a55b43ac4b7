"""Entries picked by a mask and then summed up: of fixed shapes in the port, and the same to all who differentiate."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from parity.checking import DivergenceError
from parity.porting import PortError, port

X, Y = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(1))


class Does(torch.nn.Module):
    """Gives ``does(x, y, mask of entries, mask of rows)``."""

    def __init__(self, does):
        super().__init__()
        self.does = does

    def forward(self, x, y):
        return self.does(x, y, y > 0, y[..., 0] > 0)


SUMS = {
    "mean": lambda x, y, entries, rows: x[entries].mean(),
    "mean by rows": lambda x, y, entries, rows: x[rows].mean(),
    "mean of rows": lambda x, y, entries, rows: x[rows].mean(0),
    "sum": lambda x, y, entries, rows: (x[entries] * y[entries]).pow(2).sum(),
    "masked_select": lambda x, y, entries, rows: torch.masked_select(x, entries).abs().mean(),
    "mse_loss": lambda x, y, entries, rows: F.mse_loss(x[entries], y[entries]),
    "mse_loss with zeros": lambda x, y, entries, rows: F.mse_loss(x[rows], torch.zeros_like(x[rows])),
    "smooth_l1_loss": lambda x, y, entries, rows: F.smooth_l1_loss(x[rows], y[rows], reduction="sum", beta=0.3),
    "logits": lambda x, y, entries, rows: F.binary_cross_entropy_with_logits(x[rows], y[rows].sigmoid()),
    "cross_entropy": lambda x, y, entries, rows: F.cross_entropy(x[rows], y.argmax(-1)[rows], label_smoothing=0.1),
    "nll_loss": lambda x, y, entries, rows: F.nll_loss(x.log_softmax(-1)[rows], y.argmax(-1)[rows], reduction="sum"),
    "accuracy": lambda x, y, entries, rows: (x.argmax(-1) == y.argmax(-1))[rows].float().mean() + x[rows].sum(),
    "counted": lambda x, y, entries, rows: (~(x > 0)[rows]).sum().float() + x.sum(),
    "standardized": lambda x, y, entries, rows: ((x[rows] - y[rows].mean(0)) / y[rows].exp().sum(0)).pow(2).sum(),
}


@pytest.mark.parametrize("does", SUMS.values(), ids=SUMS)
def test_entries_picked_by_a_mask_are_summed_up_in_their_places(does):
    module = port(Does(does), (X, Y)).module
    x = X.clone().requires_grad_()
    expected = does(x, Y, Y > 0, Y[..., 0] > 0)
    expected.sum().backward()
    given, y = jnp.asarray(X.numpy()), jnp.asarray(Y.numpy())
    # Sums cancel: their rounding is relative to the entries, which are of order one, and not to the result.
    np.testing.assert_allclose(jax.jit(module)(given, y), expected.detach(), 2e-6, 2e-6)
    np.testing.assert_allclose(jax.grad(lambda x: module(x, y).sum())(given), x.grad, 2e-6, 1e-6)


class Experts(torch.nn.Module):
    """Each row by the experts that its scores are highest for."""

    def __init__(self, dispatch):
        super().__init__()
        self.gate, self.dispatch = torch.nn.Linear(3, 3), dispatch
        self.experts = torch.nn.ModuleList(torch.nn.Linear(3, 3) for _ in range(3))

    def forward(self, x):
        rows = x.reshape(-1, 3)
        weights, chosen = self.gate(rows).softmax(-1).topk(2)
        result = torch.zeros_like(rows)
        for i, expert in enumerate(self.experts):
            result = self.dispatch(result, rows, weights, chosen == i, expert)
        return result.view_as(x)


def by_mask(result, rows, weights, chosen, expert):
    mask = chosen.any(-1)
    result[mask] += (weights * chosen.float()).sum(-1)[mask].unsqueeze(1) * expert(rows[mask]).log_softmax(1)
    return result


def by_place(result, rows, weights, chosen, expert):
    row, rank = torch.where(chosen)
    return result.index_add_(0, row, expert(rows[row]) * weights[row, rank, None])


def by_place_in_front(result, rows, weights, chosen, expert):
    rank, row = chosen.T.nonzero(as_tuple=True)
    result[row] += expert(rows[None, row].reshape(-1, 3)).exp() * weights[row, rank, None]
    return result


class Hit(Experts):
    """Goes through the experts that any row chooses, by their numbers; none chooses the second, none is the fourth."""

    def __init__(self):
        super().__init__(None)
        self.experts = torch.nn.ModuleDict({f"expert_{i}": torch.nn.Linear(3, 3) for i in range(3)})

    def forward(self, x):
        rows = x.reshape(-1, 3)
        weights, chosen = self.gate(rows).softmax(-1)[:, ::2].topk(1)
        mask = F.one_hot(2 * chosen, 4).permute(2, 1, 0)
        result = torch.zeros_like(rows)
        for hit in torch.greater(mask.sum((-1, -2)), 0).nonzero():
            rank, row = torch.where(mask[hit].squeeze(0))
            made = self.experts[f"expert_{hit[0]}"](rows[row]).view(-1, 3).exp()
            result.index_add_(0, row, made * weights[row, rank, None])
        return result.view_as(x)


@pytest.mark.parametrize(
    "build", [partial(Experts, by_mask), partial(Experts, by_place), partial(Experts, by_place_in_front), Hit]
)
def test_experts_are_given_the_rows_that_choose_them(build):
    torch.manual_seed(0)
    module, x = build(), X[0]
    ported = port(module, x).module
    given = x.clone().requires_grad_()
    module(given).pow(2).sum().backward()
    gradient = jax.grad(lambda x: (ported(x) ** 2).sum())(jnp.asarray(x.numpy()))
    np.testing.assert_allclose(gradient, given.grad, 1e-4, 1e-5)


class Counted(Hit):
    """Does something in each round, whether or not it picks anything; the example has rows for every expert."""

    def forward(self, x):
        mask = F.one_hot((10 * x[..., :1]).long() % 3, 3).permute(2, 1, 0)
        for hit in torch.greater(mask.sum((-1, -2)), 0).nonzero():
            x = x + hit.float()
        return x


def test_rounds_for_what_occurs_that_do_more_than_pick_are_refused():
    with pytest.raises(DivergenceError):
        port(Counted(), torch.tensor([[0.05], [0.15], [0.25]]).expand(3, 3).clone())


class Summed(Hit):
    """As a loop over experts, but by a sum of numbers that may be negative; those of the example are not."""

    def forward(self, x):
        for hit in (x.sum(0) > 0).nonzero():
            x = x + self.experts[f"expert_{hit[0]}"](x)
        return x


def test_rounds_for_what_is_no_mask_are_refused():
    with pytest.raises(PortError):
        port(Summed(), torch.rand(4, 3))


class Root(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        return (self.scale * x).sqrt()


class Positive(torch.nn.Module):
    """The root of rows that have one; the last has none, or an infinite slope."""

    def __init__(self):
        super().__init__()
        self.root = Root()

    def forward(self, x):
        (row,) = torch.where(x[:, 0] > 0)
        return torch.zeros_like(x).index_add(0, row, self.root(x[row]))


@pytest.mark.parametrize("last", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("first", [0.5, 0.0])
def test_rows_that_are_not_picked_spoil_no_gradient_of_a_parameter(first, last):
    module, x = Positive(), torch.tensor([[first, 1.0, 2.0], [last, last, last]])
    ported = port(module, torch.rand(2, 3)).module
    module(x).sum().backward()
    gradient = nnx.grad(lambda module: module(jnp.asarray(x.numpy())).sum())(ported)
    np.testing.assert_allclose(gradient["root"]["scale"][...], module.root.scale.grad, 1e-6)


@pytest.mark.parametrize(
    "does",
    [
        lambda x, y, entries, rows: x[torch.where(rows)].cumsum(0),
        lambda x, y, entries, rows: x.flatten(0, 1)[torch.where(rows.flatten())[0]].mean(0),
        lambda x, y, entries, rows: torch.where(rows.flatten())[0],
        lambda x, y, entries, rows: torch.argwhere(rows).sum(),
        lambda x, y, entries, rows: x.index_put((torch.where(rows)[0],), x[torch.where(entries)[0]]),
        lambda x, y, entries, rows: x.index_add(0, torch.where(rows)[0] // 2, y[torch.where(rows)[0]]),
        lambda x, y, entries, rows: x.index_add(0, torch.where(rows[:3])[0], y[torch.where(rows[:3])[0]]),
    ],
)
def test_places_whose_number_shows_in_the_result_are_refused(does):
    with pytest.raises(PortError, match="depends on the data"):
        port(Does(does), (X[0], Y[0]))


def test_a_mask_that_no_input_decides_picks_what_it_picks():
    def others(x, y, entries, rows):
        alike = x.flatten(1) @ x.flatten(1).T
        return alike[~torch.eye(x.shape[0], dtype=torch.bool)].view(x.shape[0], -1)

    assert "fixed" in port(Does(others), (X, Y)).notes[0]


def test_the_mean_of_nothing_is_not_a_number_and_the_sum_is_zero():
    module = port(Does(lambda x, y, entries, rows: (x[rows].mean(), x[rows].sum())), (X, Y)).module
    mean, total = module(jnp.asarray(X.numpy()), -jnp.ones(Y.shape))
    assert jnp.isnan(mean)
    assert total == 0


def test_entries_that_no_mask_picks_are_in_no_sum_and_no_gradient():
    module = port(Does(lambda x, y, entries, rows: (x * y)[entries].log().mean()), (X.abs(), Y)).module
    x = jnp.where(jnp.asarray(Y.numpy()) > 0, jnp.abs(jnp.asarray(X.numpy())), jnp.nan)
    value, gradient = jax.value_and_grad(module)(x, jnp.asarray(Y.numpy()))
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient[Y.numpy() > 0]).all()
    assert (jnp.nan_to_num(gradient[Y.numpy() <= 0]) == 0).all()


def test_the_mean_of_picked_half_precision_counts_beyond_what_half_can():
    module = port(Does(lambda x, y, entries, rows: x[entries].mean()), (X.half(), Y)).module
    many = jnp.full((4, 5000, 3), 30.0, jnp.float16)
    assert module(many, jnp.ones((4, 5000, 3))) == 30


@pytest.mark.parametrize(
    "does",
    [
        lambda x, y, entries, rows: x[entries].sum() / x[entries].shape[0],
        lambda x, y, entries, rows: x[entries].sort()[0].sum(),
        lambda x, y, entries, rows: x[rows].cumsum(0).sum(),
    ],
)
def test_what_depends_on_how_many_are_picked_is_refused_with_what_to_write(does):
    with pytest.raises(PortError, match=r"mask\.sum\(\)|torch\.where\(mask"):
        port(Does(does), (X, Y))


def test_entries_picked_of_a_buffer_are_the_ones_before_it_changes():
    class Counts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("state", torch.ones(4, 5, 3))

        def forward(self, x):
            picked = self.state[x > 0]
            self.state.add_(1)
            return picked.sum() + x.sum()

    port(Counts(), X)


class Classifies(torch.nn.Module):
    """By what stands at the last end that a row has; every row has as many."""

    def __init__(self, end):
        super().__init__()
        self.embedding, self.end = torch.nn.Embedding(9, 4), end

    def forward(self, ids):
        ends = self.embedding(ids)[ids.eq(2), :]
        return ends.view(ids.shape[0], -1, 4)[:, self.end, :]


@pytest.mark.parametrize("end", [0, -1])
def test_the_first_or_last_picked_of_every_row_needs_no_number_of_them(end):
    module = Classifies(end)
    ported = port(module, torch.tensor([[3, 2, 5, 2, 7], [2, 4, 5, 6, 2]]))
    assert not ported.notes  # on another batch, too
    ids = torch.tensor([[2, 2, 5], [2, 7, 2], [1, 2, 2]])
    np.testing.assert_array_equal(ported.module(jnp.asarray(ids.numpy())), module(ids).detach())
    assert np.isnan(ported.module(jnp.array([[2, 2], [1, 1]]))[1]).all()


class Experts(torch.nn.Module):
    def __init__(self, count, wide, out):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(count, out, wide))

    def forward(self, rows, sizes):
        parts = rows.split(sizes, dim=0)
        return torch.cat([F.linear(parts[i], self.weight[i]) for i in range(len(self.weight))], dim=0)


class Router(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3, bias=False)

    def forward(self, x):
        gates, chosen = self.layer(x).topk(2, dim=1)
        sizes = torch.zeros(x.shape[0], 3).scatter(1, chosen, 1).long().sum(0).tolist()
        order = chosen.flatten().sort(0).indices
        return order.div(2, rounding_mode="trunc"), gates.softmax(1).flatten()[order], sizes


class Mixture(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.router, self.up, self.down = Router(), Experts(3, 4, 6), Experts(3, 6, 4)

    def forward(self, x):
        rows, gates, sizes = self.router(x)
        h = self.down(self.up(x[rows], sizes).relu(), sizes) * gates[:, None]
        return torch.zeros_like(x).index_add(0, rows, h)


def test_rows_sorted_by_experts_are_split_by_sizes_that_the_data_decide():
    model, x = Mixture(), torch.randn(7, 4)
    twin = port(model, (torch.randn(5, 4),))
    assert "F.grouped_mm(rows" in twin.source
    np.testing.assert_allclose(twin.module(jnp.asarray(x.numpy())), model(x).detach().numpy(), atol=2e-6)
