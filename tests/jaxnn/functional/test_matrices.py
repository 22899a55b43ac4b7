"""Decompositions, and what is said of matrices that have none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn import functional as F

_RANDOM = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
POSITIVE = _RANDOM @ _RANDOM.mT + torch.eye(5)


def matrices():
    """Positive ones, but for the first leading minors of orders none, 1, 3 and 5, and NaN at the second."""
    batch = POSITIVE.repeat(5, 1, 1)
    for row, order in enumerate((1, 3, 5), 1):
        batch[row, order - 1, order - 1] = -1.0
    batch[4, 1, 1] = torch.nan
    return batch


@pytest.mark.parametrize("upper", [False, True])
def test_cholesky_ex_gives_the_order_of_the_first_minor_that_is_not_positive(upper):
    factor, info = jax.jit(F.cholesky_ex, static_argnames="upper")(jnp.asarray(matrices().numpy()), upper=upper)
    theirs = torch.linalg.cholesky_ex(matrices(), upper=upper)
    np.testing.assert_array_equal(info, theirs.info)
    np.testing.assert_allclose(factor[0], theirs.L[0], 1e-5)
    assert jnp.isnan(factor[1:]).any((1, 2)).all()
    assert F.cholesky_ex(jnp.eye(1))[1] == 0
    assert F.cholesky_ex(-jnp.eye(1))[1] == 1


def test_the_first_pivot_that_is_zero_is_told():
    singular = torch.tensor([[[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [3.0, 4.0]]])
    ours = jnp.asarray(singular.numpy())
    expected = torch.linalg.inv_ex(singular).info
    for info in (F.inv_ex(ours)[1], F.solve_ex(ours, jnp.ones((3, 2)))[1], F.lu_factor_ex(ours)[2]):
        np.testing.assert_array_equal(info, expected)
        assert info.dtype == jnp.int32
    with pytest.raises(np.linalg.LinAlgError, match="inv_ex"):
        F.inv_ex(ours, check_errors=True)
    with pytest.raises(NotImplementedError, match="pivot"):
        F.lu_factor(ours, pivot=False)


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 3, 5), (2, 5, 3)])
def test_the_product_of_what_is_unpacked_is_the_matrix(shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    found = F.lu_unpack(*F.lu_factor(jnp.asarray(x.numpy())))
    for ours, theirs in zip(found, torch.lu_unpack(*torch.linalg.lu_factor(x)), strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-4, 1e-5)


def test_gradient_takes_what_torchs_takes():
    x, places = POSITIVE[:4], torch.tensor([0.0, 1.0, 1.5, 4.0, 7.0])
    for given in ({}, {"spacing": 2.0, "dim": -1}, {"spacing": (2.0, 3.0)}, {"spacing": (places,), "dim": (1,)}):
        for order in (1, 2):
            theirs = torch.gradient(x, **given, edge_order=order)
            numbers = jax.tree.map(lambda t: jnp.asarray(t.numpy()) if isinstance(t, torch.Tensor) else t, given)
            found = F.gradient(jnp.asarray(x.numpy()), **numbers, edge_order=order)
            for ours, expected in zip(found, theirs, strict=True):
                np.testing.assert_allclose(ours, expected, 1e-4, 1e-5)
    for wrong in ({"edge_order": 3}, {"spacing": (1.0,)}, {"dim": 0, "edge_order": 2}):
        with pytest.raises(F.ArgumentError, match="gradient"):
            F.gradient(jnp.ones((2, 3)), **wrong)
