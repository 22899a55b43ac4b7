"""Branches by what a mask holds: written for all data where they make no difference, else NaN beyond the example's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

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
