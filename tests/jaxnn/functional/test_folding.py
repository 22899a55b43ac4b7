"""Unfold and fold against torch on shapes drawn at random, and as each other's transpose."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import functional as F

T = torch.nn.functional


@st.composite
def geometries(draw):
    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    options = {"kernel_size": pair(1, 4), "dilation": pair(1, 3), "padding": pair(0, 3), "stride": pair(1, 4)}
    rows = zip(options["kernel_size"], options["dilation"], options["padding"], strict=True)
    size = tuple(max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 5)) for k, d, p in rows)
    return draw(st.sampled_from([(), (2,)])), size, options


@settings(max_examples=25, deadline=None, derandomize=True)
@given(geometries())
def test_blocks_are_those_of_torch(geometry):
    batch, size, options = geometry
    x = np.random.default_rng(0).normal(size=(*batch, 3, *size)).astype(np.float32)
    expected = T.unfold(torch.from_numpy(x), **options).numpy()
    np.testing.assert_array_equal(jax.jit(lambda x: F.unfold(x, **options))(x), expected)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(geometries())
def test_fold_sums_as_torch_does_and_is_the_transpose_of_unfold(geometry):
    batch, size, options = geometry
    image = jnp.zeros((*batch, 2, *size))
    columns = jax.eval_shape(lambda x: F.unfold(x, **options), image)
    y = np.random.default_rng(1).normal(size=columns.shape).astype(np.float32)
    found, transposed = jax.jit(
        lambda y: (F.fold(y, size, **options), jax.linear_transpose(lambda x: F.unfold(x, **options), image)(y)[0])
    )(y)
    np.testing.assert_allclose(found, T.fold(torch.from_numpy(y), size, **options).numpy(), atol=1e-5)
    np.testing.assert_allclose(found, transposed, atol=1e-5)


def test_fold_sums_bfloat16_in_float32():
    y = np.zeros((9 * 9, 144), ml_dtypes.bfloat16)
    y[:] = 0.01
    exact = T.fold(torch.from_numpy(y.astype(np.float64)), 20, 9).numpy()
    np.testing.assert_array_equal(F.fold(y, 20, 9), exact.astype(ml_dtypes.bfloat16))


def test_booleans_are_folded_by_or():
    y = np.random.default_rng(0).random((1, 8, 4)) < 0.2
    np.testing.assert_array_equal(F.fold(y, 3, 2), T.fold(torch.from_numpy(y), 3, 2).numpy())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kernel_size": 6}, "no block"),
        ({"kernel_size": 0}, "kernel_size must be positive"),
        ({"kernel_size": (2, 2, 2)}, "kernel_size must be an integer or a sequence of 2"),
        ({"kernel_size": 2, "stride": 0}, "stride must be positive"),
        ({"kernel_size": 2, "padding": -1}, "padding must not be negative"),
    ],
)
def test_unfold_refuses_what_makes_no_blocks(options, match):
    with pytest.raises(F.ArgumentError, match=match):
        F.unfold(np.zeros((2, 3, 5, 5), np.float32), **options)


@pytest.mark.parametrize(
    ("shape", "size", "match"),
    [((1, 8, 4), 4, "holds 3 x 3 blocks"), ((1, 7, 4), 3, "multiple of the 4 pixels"), ((1, 1, 8, 4), 3, "got shape")],
)
def test_fold_refuses_columns_of_another_geometry(shape, size, match):
    with pytest.raises(F.ArgumentError, match=match):
        F.fold(np.zeros(shape, np.float32), size, 2)


def test_integers_are_refused_and_an_empty_batch_is_not():
    with pytest.raises(NotImplementedError, match="int32"):
        F.unfold(np.zeros((1, 1, 4, 4), np.int32), 2)
    assert F.unfold(np.zeros((0, 3, 5, 5), np.float32), 2).shape == (0, 12, 16)
    assert F.fold(np.zeros((0, 12, 16), np.float32), 5, 2).shape == (0, 3, 5, 5)
