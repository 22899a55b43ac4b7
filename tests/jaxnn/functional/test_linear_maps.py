"""Linear and bilinear maps, products by groups and products of scaled float8 matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import functional as F

T = torch.nn.functional
few = settings(max_examples=6, deadline=None, derandomize=True)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("bias", [(5,), (1,), (), (8, 5), (8, 1), (1, 5)])
def test_linear_takes_every_bias_that_broadcasts_to_the_result(bias):
    arrays = drawn(8, 3), drawn(5, 3, seed=1), drawn(*bias, seed=2)
    np.testing.assert_allclose(F.linear(*arrays), T.linear(*map(torch.from_numpy, arrays)), rtol=1e-5, atol=1e-6)


def test_linear_of_a_weight_without_output_axis_has_none_either():
    np.testing.assert_allclose(
        F.linear(drawn(2, 8, 3), drawn(3), drawn()), drawn(2, 8, 3) @ drawn(3) + drawn(), rtol=1e-5
    )


def test_linear_and_bilinear_of_narrow_integers_wrap_as_torchs_do():
    x, w = np.full((1, 3), 100, np.int8), np.full((2, 3), 100, np.int8)
    np.testing.assert_array_equal(F.linear(x, w), T.linear(*map(torch.from_numpy, (x, w))))
    w = np.full((2, 3, 3), 2, np.int8)
    np.testing.assert_array_equal(F.bilinear(x, x, w), T.bilinear(*map(torch.from_numpy, (x, x, w))))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_accumulated_in_single(dtype):
    x, w, w3 = (
        jax.random.uniform(jax.random.key(i), s).astype(dtype) for i, s in enumerate([(4, 99), (5, 99), (5, 99, 99)])
    )
    for found, exact in (
        (F.linear(x, w), np.einsum("ni,oi->no", *(np.asarray(a, np.float64) for a in (x, w)))),
        (F.bilinear(x, x, w3), np.einsum("ni,nj,oij->no", *(np.asarray(a, np.float64) for a in (x, x, w3)))),
    ):
        assert found.dtype == dtype
        assert np.abs(np.asarray(found, np.float64) / exact - 1).max() < 0.6 * float(jnp.finfo(dtype).eps)


def test_half_precision_is_rounded_once_after_the_bias():
    x, w, b = (jnp.asarray(drawn(*shape), jnp.bfloat16) for shape in [(4, 9), (5, 9), (5,)])
    b = -F.linear(x, w)[0] + b  # what cancels leaves the product's own rounding behind
    exact = np.einsum("ni,oi->no", *(np.asarray(a, np.float64) for a in (x, w))) + np.asarray(b, np.float64)
    np.testing.assert_array_equal(F.linear(x, w, b), exact.astype(b.dtype))


def test_the_gradient_of_a_bias_in_half_precision_is_summed_in_single():
    def ones(*shape):
        return jnp.ones(shape, jnp.bfloat16)

    operands = {
        F.linear: (ones(2, 2048, 1), ones(1, 1)),
        F.bilinear: (ones(2, 2048, 1), ones(2, 2048, 1), ones(1, 1, 1)),
        F.conv2d: (ones(4, 1, 33, 33), ones(1, 1, 2, 2)),
        F.conv_transpose2d: (ones(4, 1, 31, 31), ones(1, 1, 2, 2)),
        F.conv_tbc: (ones(65, 64, 1), ones(2, 1, 1)),
    }
    for function, arrays in operands.items():
        output, pullback = jax.vjp(lambda b, f=function, a=arrays: f(*a, b), ones(1))
        assert pullback(jnp.ones_like(output))[0] == 4096, function.__name__


def test_bilinear_is_its_formula_with_its_gradients():
    arrays = drawn(2, 8, 3), drawn(2, 8, 4, seed=1), drawn(5, 3, 4, seed=2), drawn(5, seed=3)
    leaves = [torch.from_numpy(x.copy()).requires_grad_() for x in arrays]
    expected = T.bilinear(*leaves)
    found, pullback = jax.vjp(F.bilinear, *map(jnp.asarray, arrays))
    gradients = torch.autograd.grad(expected.sin().sum(), leaves)
    for a, b in zip((found, *pullback(jnp.cos(found))), (expected, *gradients), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-4, atol=1e-5)


x, y = drawn(8, 3), drawn(8, 4)
REFUSED = [
    ("linear", (x, drawn(5, 4)), RuntimeError),
    ("linear", (x, drawn(2, 5, 3)), RuntimeError),
    ("linear", (x, drawn(5, 3), drawn(4)), RuntimeError),
    ("linear", (x, drawn(5, 3), drawn(2, 8, 5)), RuntimeError),
    ("linear", (x, drawn(5, 3).astype(np.float16)), RuntimeError),
    ("linear", (x > 0, drawn(5, 3) > 0), NotImplementedError),
    ("bilinear", (x, y[:7], drawn(5, 3, 4)), RuntimeError),
    ("bilinear", (x, y[:1], drawn(5, 3, 4)), RuntimeError),
    ("bilinear", (x, x, drawn(5, 3, 4)), RuntimeError),
    ("bilinear", (x, y, drawn(3, 4)), RuntimeError),
    ("bilinear", (x, y, drawn(5, 3, 4), drawn(1)), RuntimeError),
    ("bilinear", (x, y.astype(np.float16), drawn(5, 3, 4)), RuntimeError),
    ("bilinear", (drawn(), drawn(), drawn(5, 3, 4)), IndexError),
    ("bilinear", (x > 0, y > 0, drawn(5, 3, 4) > 0), NotImplementedError),
]


@pytest.mark.parametrize(("name", "arrays", "error"), REFUSED)
def test_what_torch_refuses_is_refused(name, arrays, error):
    with pytest.raises(error, match=name):
        getattr(F, name)(*arrays)
    with pytest.raises(error):
        getattr(T, name)(*(torch.from_numpy(np.asarray(a)) for a in arrays))


def groups_of(ends):
    return list(zip([0, *ends[:-1]], ends, strict=True))


def products_by_group(a, b, ends):
    """One product after the other; what belongs to no group is zero."""
    if a.ndim == 3:
        return products_by_group(b.T, a.swapaxes(1, 2), ends).T
    if b.ndim == 2:
        return np.stack([a[:, i:j] @ b[i:j] for i, j in groups_of(ends)])
    out = np.zeros((len(a), b.shape[2]), np.float32)
    for matrix, (i, j) in zip(b, groups_of(ends), strict=True):
        out[i:j] = a[i:j] @ matrix
    return out


@few
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 3))
def test_groups_of_any_size_are_multiplied_each_with_its_own_matrix(sizes, left_over):
    ends = np.cumsum(sizes).astype(np.int32)
    count, length = len(sizes), int(ends[-1]) + left_over
    for a, b in (
        (drawn(length, 3), drawn(count, 3, 4, seed=1)),
        (drawn(count, 4, 3), drawn(3, length, seed=1)),
        (drawn(4, length), drawn(length, 3, seed=1)),
    ):
        found = jax.jit(F.grouped_mm)(a, b, offs=ends)
        np.testing.assert_allclose(found, products_by_group(a, b, ends), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_products_are_torchs(dtype):
    a, b, ends = (
        torch.randn(8, 16).to(dtype),
        torch.randn(3, 16, 24).to(dtype),
        torch.tensor([2, 2, 8], dtype=torch.int32),
    )
    expected = T.grouped_mm(a, b, offs=ends)
    name = str(dtype).removeprefix("torch.")
    found = F.grouped_mm(*(jnp.asarray(x.float().numpy()).astype(name) for x in (a, b)), offs=ends.numpy())
    assert found.dtype == name
    np.testing.assert_allclose(np.asarray(found, np.float32), expected.float().numpy(), rtol=1e-2, atol=1e-5)


def test_grouped_products_jit_map_over_the_ends_and_differentiate():
    a, b = jnp.asarray(drawn(8, 3)), jnp.asarray(drawn(3, 3, 4, seed=1))
    ends = np.array([[2, 5, 8], [0, 8, 8]], np.int32)
    mapped = jax.jit(jax.vmap(lambda ends: F.grouped_mm(a, b, offs=ends)))(ends)
    np.testing.assert_allclose(mapped, [products_by_group(a, b, e) for e in ends], rtol=1e-5, atol=1e-5)
    by_row = jnp.asarray([0, 0, 1, 1, 1, 2, 2, 2])
    for argument in (0, 1):
        found = jax.grad(lambda a, b: jnp.sum(F.grouped_mm(a, b, offs=ends[0]) ** 2), argument)(a, b)
        expected = jax.grad(lambda a, b: jnp.sum(jnp.einsum("nk,nkm->nm", a, b[by_row]) ** 2), argument)(a, b)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


ends = np.array([2, 5, 8], np.int32)
WRONG_GROUPS = [
    ((drawn(8, 16), drawn(3, 16, 8)), {}, "offs"),
    ((drawn(3, 8, 16), drawn(3, 16, 8)), {"offs": ends}, "offs"),
    ((drawn(2, 8, 16), drawn(3, 16, 8)), {}, "groups"),
    ((drawn(8, 16), drawn(2, 16, 8)), {"offs": ends}, "offs"),
    ((drawn(8, 16), drawn(3, 16, 8)), {"offs": ends[None]}, "offs"),
    ((drawn(8, 16), drawn(3, 8, 8)), {"offs": ends}, "last axis"),
    ((drawn(16), drawn(3, 16, 8)), {"offs": ends}, "axes"),
    ((drawn(8, 16), drawn(3, 16, 8)), {"offs": ends, "bias": drawn(8)}, "bias"),
    ((drawn(8, 16).astype(int), drawn(3, 16, 8).astype(int)), {"offs": ends}, "float32"),
]


@pytest.mark.parametrize(("arrays", "options", "why"), WRONG_GROUPS)
def test_groups_torch_refuses_are_refused_with_the_reason(arrays, options, why):
    with pytest.raises(F.ArgumentError, match=why):
        F.grouped_mm(*arrays, **options)
    with pytest.raises(RuntimeError):
        T.grouped_mm(*map(torch.from_numpy, arrays), **{k: torch.from_numpy(v) for k, v in options.items()})


def float8(*shape, seed=0):
    return jnp.asarray(drawn(*shape, seed=seed)).astype(jnp.float8_e4m3fn)


@pytest.mark.parametrize("rowwise", [False, True])
def test_scaled_products_are_torchs(rowwise):
    a, b, bias = float8(8, 16), float8(16, 24, seed=1), drawn(24, seed=4)
    scales = (drawn(8, 1, seed=2), drawn(1, 24, seed=3)) if rowwise else (np.float32([0.5]), np.float32([3.0]))
    recipe = T.ScalingType.RowWise if rowwise else T.ScalingType.TensorWise
    a_torch, b_torch = (torch.from_numpy(np.asarray(x, np.float32)).to(torch.float8_e4m3fn) for x in (a, b))
    s, t = map(torch.from_numpy, scales)
    expected = T.scaled_mm(
        a_torch, b_torch, s, recipe, t, recipe, bias=torch.from_numpy(bias), output_dtype=torch.float32
    )
    for own in (recipe, F.ScalingType(recipe.value)):
        found = F.scaled_mm(a, b, scales[0], own, [scales[1]], [own], bias=bias, output_dtype=jnp.float32)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
    assert F.scaled_mm(a, b, scales[0], recipe, scales[1], recipe).dtype == jnp.bfloat16


def test_scaled_groups_take_a_scale_for_each_row_and_column():
    recipe, a, b = F.ScalingType.RowWise, float8(8, 16), float8(3, 16, 4, seed=1)
    rows, columns = drawn(8, seed=2), drawn(3, 4, seed=3)
    found = F.scaled_grouped_mm(a, b, rows, recipe, columns, recipe, offs=ends)
    expected = products_by_group(a.astype(np.float32) * rows[:, None], b.astype(np.float32) * columns[:, None], ends)
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=1e-2, atol=1e-2)
    b, rows, columns = float8(16, 4, seed=1), drawn(24, seed=2), drawn(12, seed=3)
    cuts = np.array([3, 3, 16], np.int32)
    found = F.scaled_grouped_mm(a, b, rows, recipe, columns, recipe, offs=cuts)
    expected = products_by_group(a.astype(np.float32), b.astype(np.float32), cuts)
    expected = expected * rows.reshape(3, 8, 1) * columns.reshape(3, 1, 4)
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=1e-2, atol=1e-2)


one = np.float32([1.0])
TENSOR, ROW = F.ScalingType.TensorWise, F.ScalingType.RowWise
WRONG_SCALES = [
    ((drawn(8, 16), drawn(16, 4), one, TENSOR, one, TENSOR), {}, "float8"),
    ((float8(8, 16), float8(8, 4), one, TENSOR, one, TENSOR), {}, r"\(M, K\)"),
    ((float8(8, 16), float8(16, 4), drawn(2), TENSOR, one, TENSOR), {}, "scale_a"),
    ((float8(8, 16), float8(16, 4), drawn(8), ROW, drawn(1, 4), ROW), {}, "scale_a"),
    ((float8(8, 16), float8(16, 4), drawn(8, 1), ROW, one, TENSOR), {}, "both"),
    (
        (float8(8, 16), float8(16, 4), one, F.ScalingType.BlockWise1x32, one, F.ScalingType.BlockWise1x32),
        {},
        "BlockWise1x32",
    ),
    (
        (float8(8, 16), float8(16, 4), one, TENSOR, one, TENSOR),
        {"swizzle_a": F.SwizzleType.SWIZZLE_32_4_4},
        "swizzle_a",
    ),
    ((float8(8, 16), float8(16, 4), one, TENSOR, one, TENSOR), {"bias": drawn(3)}, "bias"),
    ((float8(8, 16), float8(16, 4), one, TENSOR, one, TENSOR), {"contraction_dim": (0, 1)}, "contraction_dim"),
]


@pytest.mark.parametrize(("arguments", "options", "why"), WRONG_SCALES)
def test_scales_that_do_not_fit_are_refused_with_the_reason(arguments, options, why):
    with pytest.raises(F.ArgumentError, match=why):
        F.scaled_mm(*arguments, **options)
