"""Branches by what a mask holds: written for all data where they make no difference, else NaN beyond the example's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from parity import DivergenceError
from parity.porting import PortError, port

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


class Masked(torch.nn.Module):
    """Takes away a mask that masks nothing."""

    def forward(self, x, ids):
        padding = ids.eq(0)
        if not padding.any():
            padding = None
        x = x.exp()
        least = torch.zeros(4).fill_(torch.finfo(x.dtype).min)  # of float64 in the proof, which float32 cannot hold
        return x if padding is None else x.masked_fill(padding[..., None], 0).maximum(least)


class Turned(torch.nn.Module):
    """Does another thing where an entry is seven, of which no trace can know the shape, and clamps what overflows."""

    def forward(self, x, ids):
        special = ids.eq(7).any().item()
        if special:
            return x[:, ids.eq(7).sum(1).max() :]
        x = x * 3
        if not torch.isfinite(x).all():
            x = x.clamp(-1, 1)
        return x


@pytest.mark.parametrize("first", [1, 0])
def test_a_mask_is_applied_whether_or_not_the_example_masks_anything(first):
    ids = IDS * first
    ported = port(Masked(), (X, ids))
    for other in (ids, IDS, IDS * torch.tensor([1, 0, 1])):
        expected = Masked()(X, other)
        np.testing.assert_allclose(ported.module(jnp.asarray(X.numpy()), jnp.asarray(other.numpy())), expected, 1e-6)
    assert not ported.notes


def test_where_the_data_decide_otherwise_than_in_the_example_the_result_is_nan():
    ported = port(Turned(), (X, IDS))
    assert any("special = ids" in note and "test_deciding.py" in note for note in ported.notes)
    x, ids = jnp.asarray(X.numpy()), jnp.asarray(IDS.numpy())
    np.testing.assert_allclose(ported.module(x, ids), X * 3)
    assert np.isnan(ported.module(x, ids + 1)).all()
    assert np.isnan(ported.module(x.at[0, 0, 0].set(jnp.inf), ids)).all()


class Does(torch.nn.Module):
    """Does ``forward(x, *masks)``."""

    def __init__(self, forward):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.does = forward

    def forward(self, x, *masks):
        return self.does(self, x, *masks)


def in_a_region(self, x, ids):
    with torch.no_grad():
        scale = ids.float().sum() * (2 if ids.eq(9).any() else 1)
    return x * scale


def flag_that_changes(self, x, ids):
    small = ids.lt(4).any()
    if small:
        x = x * 3
    small |= ids.ge(0).any()
    return x


@pytest.mark.parametrize("forward", [in_a_region, flag_that_changes], ids=lambda f: f.__name__)
def test_what_was_decided_is_asked_where_and_when_the_model_asks(forward):
    ported = port(Does(forward), (X, IDS))
    assert ported.notes
    assert np.isnan(ported.module(jnp.asarray(X.numpy()), jnp.asarray(IDS.numpy() + 4))).all()


def test_the_gradient_is_nan_where_the_result_is():
    ported = port(Does(in_a_region), (X, IDS))
    ids = jnp.asarray(IDS.numpy() + 4)
    assert np.isnan(jax.grad(lambda x: ported.module(x, ids).sum())(jnp.asarray(X.numpy()))).all()


def test_a_mask_of_which_only_a_part_is_asked_is_not_known_by_the_answer():
    def forward(self, x, mask):
        return x if mask[:, -1].all() else x * mask[..., None]

    mask = torch.ones(2, 3, dtype=torch.long)
    ported = port(Does(forward), (X, mask))
    mask[0, 0] = 0
    found = ported.module(jnp.asarray(X.numpy()), jnp.asarray(mask.numpy()))
    np.testing.assert_allclose(found, forward(None, X, mask))
    mask[0, -1] = 0
    assert np.isnan(ported.module(jnp.asarray(X.numpy()), jnp.asarray(mask.numpy()))).all()


def test_two_masks_are_each_applied():
    def forward(self, x, a, b):
        x = x if a.all() else x.masked_fill(~a[..., None], 0)
        return x if b.all() else x.masked_fill(~b[..., None], 1)

    full = torch.ones(2, 3, dtype=torch.bool)
    ported = port(Does(forward), (X, full, full))
    assert not ported.notes
    for masks in ((IDS.ne(2), full), (full, IDS.ne(6)), (IDS.ne(2), IDS.ne(6))):
        found = ported.module(jnp.asarray(X.numpy()), *(jnp.asarray(mask.numpy()) for mask in masks))
        np.testing.assert_allclose(found, forward(None, X, *masks))


def counts(self, x, ids):
    self.seen.add_(1 if ids.eq(9).any() else 10)
    return x * 1


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x, ids: (x, ids * 2) if ids.eq(50).any() else (x, ids),
        lambda self, x, ids: (x * 2, bool(ids.eq(0).any())),
        counts,
    ],
    ids=["integers", "Python's", "a buffer"],
)
def test_what_cannot_be_nan_is_refused_where_the_data_decide(forward):
    with pytest.raises(PortError, match="decide"):
        port(Does(forward), (X, IDS))


class Bounded(torch.nn.Module):
    def forward(self, x, ids):
        if ids.max().item() > x.shape[-1] + 2:
            raise ValueError("ids")
        return x + ids[..., None].float()


def test_a_number_that_the_data_decide_may_be_compared():
    ported = port(Bounded(), (X, IDS))
    x, ids = jnp.asarray(X.numpy()), jnp.asarray(IDS.numpy())
    np.testing.assert_allclose(ported.module(x, ids - 1), Bounded()(X, IDS - 1), 1e-6)
    assert np.isnan(ported.module(x, ids + 1)).all()  # torch raises


ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


class Experts(torch.nn.Module):
    """Does ``one(self, y, x, mask, expert)`` with every expert, and the rows that chose it."""

    def __init__(self, one):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.gate, self.experts = torch.nn.Linear(6, 3), torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in "abc")
        self.one = one

    def forward(self, x):
        chosen, y = self.gate(x).argmax(-1), torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            y = self.one(y, x, chosen == i, expert)
        return y


def where_any(y, x, mask, expert):
    if mask.any():
        y[mask] = expert(x[mask])
    return y


def unless_none(y, x, mask, expert):
    return y if mask.sum() == 0 else y + mask[:, None].float() * expert(x)


def unless_no_place(y, x, mask, expert):
    (places,) = torch.where(mask)
    return y if places.numel() == 0 else y.index_add(0, places, expert(x[places]))


def unless_no_row(y, x, mask, expert):
    rows = x[mask]
    if len(rows) > 0:
        y[mask] = expert(rows)
    return y


@pytest.mark.parametrize("one", [where_any, unless_none, unless_no_place, unless_no_row], ids=lambda f: f.__name__)
def test_what_is_passed_over_where_nothing_is_picked_is_written(one):
    model = Experts(one)
    ported = port(model, ROWS)
    assert ported.notes == []
    for x in (ROWS[:3], ROWS[:1].repeat(4, 1)):
        expected = model(x).detach()
        np.testing.assert_allclose(ported.module(jnp.asarray(x.numpy())), expected, rtol=1e-4, atol=1e-6)


def on_the_last(y, x, mask, expert):
    return y + mask[:, None].float() * expert(x) if mask[-1:].any() else y


def another_way(y, x, mask, expert):
    return y + mask[:, None].float() * expert(x) if mask.any() else y + x


def by_their_number(y, x, mask, expert):
    return y + mask[:, None].float() * expert(x) if mask.sum() > 1 else y


def never(y, x, mask, expert):
    mask = mask & (x[:, 0] > 99)
    return y + mask[:, None].float() * expert(x) if mask.any() else y


@pytest.mark.parametrize("one", [on_the_last, another_way, by_their_number, never], ids=lambda f: f.__name__)
def test_what_numbers_with_fractions_decide_otherwise_is_refused(one):
    with pytest.raises((PortError, DivergenceError), match=r"the data decide|decides there by|nothing shows|off torch"):
        port(Experts(one), ROWS)
