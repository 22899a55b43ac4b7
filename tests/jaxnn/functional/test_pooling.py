"""Pooling: index arithmetic against torch on shapes drawn at random, ties, NaN, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import functional as F

few = settings(max_examples=10, deadline=None, derandomize=True)
dims = st.integers(1, 3)
T = torch.nn.functional


def drawn(shape, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    values = rng.integers(-2, 3, shape) if ties else rng.normal(size=shape)
    return values.astype(np.float32)


def with_gradient(torch_function, jax_function, x):
    """Output of both and the gradient of its product with one random cotangent."""
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    expected = torch_function(leaf)
    cotangent = drawn(expected.shape, 1)
    (expected_gradient,) = torch.autograd.grad(expected, leaf, torch.from_numpy(cotangent))
    found, pullback = jax.vjp(jax_function, jnp.asarray(x))
    return (expected.detach().numpy(), expected_gradient.numpy()), (found, pullback(jnp.asarray(cotangent))[0])


def assert_same(torch_function, jax_function, x):
    expected, found = with_gradient(torch_function, jax_function, x)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@st.composite
def geometries(draw, dilated):
    n = draw(dims)
    kernel = [draw(st.integers(1, 6)) for _ in range(n)]
    spread = [draw(st.integers(1, 3)) if dilated else 1 for _ in range(n)]
    size = [(k - 1) * d + 1 + draw(st.integers(0, 5)) for k, d in zip(kernel, spread, strict=True)]
    options = {
        "kernel_size": tuple(kernel),
        "stride": draw(st.none() | st.tuples(*[st.integers(1, 4)] * n)),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }
    if dilated:
        options["dilation"] = tuple(spread)
    return n, (2, *size), options


@few
@given(geometries(dilated=True), st.booleans())
def test_max_pooling_of_any_geometry_finds_torchs_maxima_indices_and_gradients(geometry, ties):
    n, shape, options = geometry
    x = drawn(shape, ties=ties)
    ours, theirs = getattr(F, f"max_pool{n}d"), getattr(T, f"max_pool{n}d")
    assert_same(lambda x: theirs(x, **options), lambda x: ours(x, **options), x)
    values, indices = theirs(torch.from_numpy(x), **options, return_indices=True)
    found = ours(x, **options, return_indices=True)
    np.testing.assert_array_equal(found[0], values)
    np.testing.assert_array_equal(found[1], indices)


@few
@given(geometries(dilated=False), st.booleans(), st.sampled_from([None, 3, -2]))
def test_average_pooling_of_any_geometry_counts_as_torch_does(geometry, count_include_pad, divisor):
    n, shape, options = geometry
    options |= {"count_include_pad": count_include_pad} | ({"divisor_override": divisor} if n > 1 else {})
    ours, theirs = getattr(F, f"avg_pool{n}d"), getattr(T, f"avg_pool{n}d")
    assert_same(lambda x: theirs(x, **options), lambda x: ours(x, **options), drawn(shape))


@few
@given(dims.flatmap(lambda n: st.tuples(st.tuples(*[st.integers(1, 7)] * n), st.tuples(*[st.integers(1, 7)] * n))))
def test_adaptive_windows_of_any_sizes_are_torchs(sizes):
    spatial, output = sizes
    n = len(spatial)
    x = drawn((2, *spatial), ties=True)
    for kind in ("avg", "max"):
        ours, theirs = getattr(F, f"adaptive_{kind}_pool{n}d"), getattr(T, f"adaptive_{kind}_pool{n}d")
        assert_same(lambda x, f=theirs: f(x, output), lambda x, f=ours: f(x, output), x)
    indices = getattr(T, f"adaptive_max_pool{n}d")(torch.from_numpy(x), output, return_indices=True)[1]
    np.testing.assert_array_equal(getattr(F, f"adaptive_max_pool{n}d")(x, output, return_indices=True)[1], indices)


@few
@given(st.data(), st.sampled_from([2, 3]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_fractional_windows_start_where_torchs_do(data, n, dtype):
    kernel = tuple(data.draw(st.integers(1, 3)) for _ in range(n))
    output = tuple(data.draw(st.integers(1, 5)) for _ in range(n))
    spatial = tuple(k + o + data.draw(st.integers(0, 6)) for k, o in zip(kernel, output, strict=True))
    x = torch.from_numpy(drawn((2, 3, *spatial), ties=True)).to(dtype)
    samples = torch.rand(2, 3, n, generator=torch.Generator().manual_seed(spatial[0])).to(dtype)
    theirs = getattr(T, f"fractional_max_pool{n}d")(x, kernel, output, None, True, samples)
    short = jnp.bfloat16 if dtype == torch.bfloat16 else jnp.float32
    ours = getattr(F, f"fractional_max_pool{n}d")(
        jnp.asarray(x.float().numpy(), short), kernel, output, None, True, jnp.asarray(samples.float().numpy(), short)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), b.float())


@pytest.mark.parametrize("values", [[1, np.nan, 3, np.nan, 2, 0], [-np.inf] * 6, [np.inf, -np.inf] * 3, [2.0] * 6])
@pytest.mark.parametrize("kernel", [3, 5])
def test_ties_nan_and_infinity_choose_torchs_element(values, kernel):
    x = np.array([values], np.float32)
    for name, options in (("max_pool1d", {"stride": 1, "padding": 1}), ("adaptive_max_pool1d", {})):
        theirs = getattr(T, name)(torch.from_numpy(x), kernel, **options, return_indices=True)
        ours = getattr(F, name)(x, kernel, **options, return_indices=True)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_nan_outside_a_window_stays_out_of_its_mean():
    x = np.array([[np.nan, 1, 2, 3, 4, np.inf, 6]], np.float32)
    for name, size in (("avg_pool1d", 2), ("adaptive_avg_pool1d", 3), ("adaptive_avg_pool1d", 5)):
        expected = getattr(T, name)(torch.from_numpy(x), size)
        np.testing.assert_allclose(getattr(F, name)(x, size), expected, rtol=1e-6)


def test_a_window_that_dilation_carries_over_the_input_is_minus_infinity_without_gradient():
    value, gradient = jax.value_and_grad(lambda x: F.max_pool1d(x, 2, 1, 1, 2)[0, 0])(jnp.full((1, 1), 5.0))
    assert value == -np.inf
    assert gradient == 0


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_max_pooling_takes_integers(dtype):
    x = drawn((1, 2, 5, 5), ties=True).astype(dtype)
    expected = T.max_pool2d(torch.from_numpy(x), 3, 2, 1)
    np.testing.assert_array_equal(F.max_pool2d(x, 3, 2, 1), expected)


def test_the_mean_of_integers_is_rounded_towards_zero():
    x = np.array([[-3, -4, 5, 6]])
    with jax.enable_x64(True):
        np.testing.assert_array_equal(F.avg_pool1d(x, 2), T.avg_pool1d(torch.from_numpy(x), 2))


@pytest.mark.parametrize("norm_type", [1, 2, 2.0, 3.5, -1.0, float("inf"), -float("inf")])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_power_means_are_torchs(n, norm_type):
    x = np.abs(drawn((2, *(5,) * n))) + 0.1
    ours, theirs = getattr(F, f"lp_pool{n}d"), getattr(T, f"lp_pool{n}d")
    assert_same(lambda x: theirs(x, norm_type, 2, ceil_mode=True), lambda x: ours(x, norm_type, 2, None, True), x)


def test_a_power_mean_of_zeros_has_no_gradient():
    for norm_type in (2.0, float("inf")):
        gradient = jax.grad(lambda x, p=norm_type: jnp.sum(F.lp_pool2d(x, p, 2)))(jnp.zeros((1, 4, 4)))
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_undoes_pooling_and_passes_the_gradient_back(n):
    x = torch.from_numpy(drawn((2, 3, *(6,) * n)))
    pooled, indices = getattr(T, f"max_pool{n}d")(x, 2, return_indices=True)
    ours, theirs = getattr(F, f"max_unpool{n}d"), getattr(T, f"max_unpool{n}d")
    places = jnp.asarray(indices.numpy(), jnp.int32)
    assert_same(lambda x: theirs(x, indices, 2), lambda x: ours(x, places, 2), pooled.numpy())


def test_elements_unpooled_to_one_place_all_receive_its_gradient():
    places = jnp.zeros((1, 2), jnp.int32)
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(F.max_unpool1d(x, places, 2)))(jnp.ones((1, 2))), 1)


@pytest.mark.parametrize("place", [-1, 4])
def test_an_index_outside_the_output_raises_and_under_jit_makes_its_channel_nan(place):
    x, places = jnp.ones((2, 2)), jnp.array([[0, place], [0, 2]])
    with pytest.raises(F.ArgumentError, match="indices must lie in"):
        F.max_unpool1d(x, places, 2)
    unpooled = jax.jit(lambda x, places: F.max_unpool1d(x, places, 2))(x, places)
    np.testing.assert_array_equal(unpooled, [[np.nan] * 4, [1, 0, 1, 0]])


CALLS = {
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max_pool2d of many taps": lambda x: F.max_pool2d(x, 6, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "lp_pool2d": lambda x: F.lp_pool2d(jnp.abs(x), 2.0, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 3),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 3),
    "fractional_max_pool2d": lambda x: F.fractional_max_pool2d(
        x, 2, 3, _random_samples=jnp.full((*x.shape[:-2], 2), 0.3, x.dtype).reshape(-1, x.shape[-3], 2)
    ),
    "max_unpool2d": lambda x: F.max_unpool2d(
        x, jnp.broadcast_to(jnp.arange(49, dtype=jnp.int32).reshape(7, 7) * 4, x.shape), 2
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_transformations_compose(name):
    function = CALLS[name]
    x = jnp.asarray(drawn((2, 1, 7, 7)))
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(x), function(x), rtol=1e-6)

    def energy(x):
        return jnp.sum(function(x) ** 2)

    v = jnp.asarray(drawn(x.shape, 2))
    forward = jax.jvp(energy, (x,), (v,))[1]
    gradient, product = jax.jvp(jax.grad(energy), (x,), (v,))
    np.testing.assert_allclose(forward, jnp.vdot(gradient, v), rtol=1e-4, atol=1e-5)
    by_reverse = jax.grad(lambda x: jnp.vdot(jax.grad(energy)(x), v))(x)
    np.testing.assert_allclose(by_reverse, product, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_bfloat16_errs_no_more_than_rounding_its_result(name):
    x = jnp.asarray(drawn((2, 1, 7, 7)), jnp.bfloat16)
    exact = CALLS[name](x.astype(jnp.float32))
    found = CALLS[name](x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2.0**-7)


x4 = np.zeros((1, 1, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.max_pool2d(x4, 5), "output size is too small"),
        (lambda: F.max_pool2d(x4, 3, padding=2), "padding must lie between 0 and half"),
        (lambda: F.max_pool2d(x4, 3, padding=-1), "padding must lie between 0 and half"),
        (lambda: F.max_pool2d(x4, (2, 2, 2)), "kernel_size must be an integer or a sequence of 2"),
        (lambda: F.max_pool2d(x4, 2, 0), "stride must be positive"),
        (lambda: F.max_pool2d(x4, 2, dilation=0), "dilation must be positive"),
        (lambda: F.max_pool2d(x4[0, 0], 2), "3 or 4 axes"),
        (lambda: F.max_pool2d(x4[:, :0], 2), "every axis but the batch"),
        (lambda: F.avg_pool2d(x4, 2, divisor_override=0), "divisor_override"),
        (lambda: F.avg_pool3d(x4, 5, padding=2), "at least as large as kernel_size"),
        (lambda: F.adaptive_avg_pool2d(x4, -1), "must not be negative"),
        (lambda: F.adaptive_max_pool2d(x4, (2,)), "sequence of 2"),
        (lambda: F.fractional_max_pool2d(x4, 2), "output_size and output_ratio"),
        (lambda: F.fractional_max_pool2d(x4, 3, 3), "does not fit"),
        (lambda: F.fractional_max_pool2d(x4, 2, 2), "needs a key"),
        (lambda: F.max_unpool2d(x4, x4.astype(int), 2, output_size=(9, 10)), "less than a stride"),
        (lambda: F.max_unpool2d(x4, x4[..., :1].astype(int), 2), "shape of input"),
    ],
)
def test_what_torch_refuses_is_refused_by_name(call, message):
    with pytest.raises(F.ArgumentError, match=message):
        call()


def test_an_empty_batch_pools_to_an_empty_batch():
    x = jnp.zeros((0, 2, 6, 6))
    for function in (F.max_pool2d, F.avg_pool2d, F.adaptive_max_pool2d, F.adaptive_avg_pool2d):
        assert function(x, 3).shape == (0, 2, *function(jnp.zeros((1, 2, 6, 6)), 3).shape[2:])


@pytest.mark.parametrize("pool", [lambda x: F.avg_pool2d(x, 3), lambda x: F.adaptive_avg_pool2d(x, (2, 4))])
def test_means_side_by_side_have_a_broadcast_for_a_transpose(pool):
    # XLA on a CPU takes the window sums that would be it element by element.
    x = jnp.ones((2, 3, 6, 12))
    assert "reduce_window" not in str(jax.make_jaxpr(jax.grad(lambda x: pool(x).sum()))(x))
