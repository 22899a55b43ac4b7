import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import functional as F

rng = np.random.default_rng(0)
TABLE = rng.normal(size=(6, 3)).astype(np.float32)


@pytest.mark.parametrize("wrong", [6, -1])
def test_an_index_out_of_range_is_refused_and_nan_under_jit(wrong):
    indices = np.array([[0, wrong], [1, 2]])
    with pytest.raises(IndexError, match=f"index {wrong} is not a row of weight, which has 6"):
        F.embedding(indices, TABLE)
    np.testing.assert_array_equal(np.isnan(jax.jit(F.embedding)(indices, TABLE))[..., 0], [[False, True], [False] * 2])
    with pytest.raises(RuntimeError, match=f"index {wrong}"):
        F.embedding_bag(indices, TABLE)
    for mode in ("sum", "mean", "max"):
        bags = jax.jit(lambda i, w, mode=mode: F.embedding_bag(i, w, mode=mode))(indices, TABLE)
        np.testing.assert_array_equal(np.isnan(bags)[:, 0], [True, False])


def test_the_padding_row_and_frequent_rows_have_torchs_gradient():
    indices = np.array([2, 2, 1, 0, 2])
    weight = torch.tensor(TABLE, requires_grad=True)
    theirs = torch.nn.functional.embedding(torch.tensor(indices), weight, padding_idx=-5, scale_grad_by_freq=True)
    theirs.square().sum().backward()
    ours = jax.grad(lambda w: jnp.sum(F.embedding(indices, w, padding_idx=-5, scale_grad_by_freq=True) ** 2))(
        jnp.asarray(TABLE)
    )
    np.testing.assert_allclose(ours, weight.grad.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(ours[1], 0)


def test_renorm_returns_the_table_that_torch_leaves_and_passes_the_gradient():
    indices = np.array([[4, 1], [1, 3]])
    weight = torch.tensor(TABLE * 3, requires_grad=True)
    theirs = torch.nn.functional.embedding(torch.tensor(indices), weight, max_norm=1.0, norm_type=1.0)
    theirs.sum().backward()
    table = jnp.asarray(TABLE * 3)
    output, renormed = F.embedding_with_renorm(indices, table, max_norm=1.0, norm_type=1.0)
    np.testing.assert_allclose(output, theirs.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(renormed, weight.detach().numpy(), rtol=1e-6)
    gradient = jax.grad(lambda w: jnp.sum(F.embedding(indices, w, max_norm=1.0, norm_type=1.0)))(table)
    np.testing.assert_allclose(gradient, weight.grad.numpy(), rtol=1e-6)


@settings(max_examples=6, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    mode=st.sampled_from(["sum", "mean", "max"]),
    last=st.booleans(),
    padding=st.sampled_from([None, 2, -1]),
    seed=st.integers(0, 99),
)
def test_bags_of_any_lengths_are_torchs_with_gradient(lengths, mode, last, padding, seed):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.random.default_rng(seed).integers(0, 6, starts[-1])
    offsets = starts if last else starts[:-1]
    options = {"mode": mode, "include_last_offset": last, "padding_idx": padding}
    weight = torch.tensor(TABLE, requires_grad=True)
    theirs = torch.nn.functional.embedding_bag(torch.tensor(indices), weight, torch.tensor(offsets), **options)
    theirs.square().sum().backward()
    output, pullback = jax.vjp(lambda w: F.embedding_bag(indices, w, offsets, **options), jnp.asarray(TABLE))
    np.testing.assert_allclose(output, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pullback(2 * output)[0], weight.grad.numpy(), rtol=1e-5, atol=1e-5)


def test_equal_maxima_give_the_gradient_to_the_first():
    table = jnp.array([[1.0, 2.0], [3.0, 2.0], [3.0, 2.0]])
    gradient = jax.grad(lambda w: jnp.sum(F.embedding_bag(jnp.array([[0, 1, 2]]), w, mode="max")))(table)
    np.testing.assert_array_equal(gradient, [[0, 1], [1, 0], [0, 0]])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: F.embedding(np.array([0.0]), TABLE), RuntimeError, "must be int32 or int64, got float"),
        (lambda: F.embedding(np.array([0]), TABLE[0]), RuntimeError, "two axes"),
        (lambda: F.embedding(np.array([0]), TABLE, padding_idx=6), AssertionError, "padding_idx"),
        (lambda: F.embedding_bag(np.array([0]), TABLE), ValueError, "offsets must have one axis.*None"),
        (lambda: F.embedding_bag(np.array([0]), TABLE, np.array([1])), RuntimeError, "begin with 0, got 1"),
        (lambda: F.embedding_bag(np.array([0]), TABLE, np.array([0, 3])), RuntimeError, "got 3"),
        (lambda: F.embedding_bag(np.array([[0]]), TABLE, np.array([0])), ValueError, "offsets must be None"),
        (lambda: F.embedding_bag(np.array([[0]]), TABLE, mode="min"), ValueError, "got 'min'"),
        (lambda: F.embedding_bag(np.zeros((2, 0), int), TABLE), RuntimeError, r"at least one index each.*\(2, 0\)"),
        (lambda: F.one_hot(np.array([3]), 3), RuntimeError, "below num_classes=3, got 3"),
        (lambda: F.one_hot(np.array([-3])), RuntimeError, "negative, got -3"),
        (lambda: jax.jit(F.one_hot)(np.array([1])), ValueError, "under jit shapes cannot depend on values"),
        (lambda: F.one_hot(np.zeros(0, int)), RuntimeError, "input is empty"),
    ],
)
def test_bad_input_is_refused_with_its_name_and_value(call, error, match):
    with pytest.raises(error, match=match):
        call()
