"""Branches by what a mask holds: written for all data where they make no difference, else NaN beyond the example's."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from parity.porting import port

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
