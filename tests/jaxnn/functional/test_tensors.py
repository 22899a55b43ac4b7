"""Functions of torch's tensors, at the places where JAX's own have another gradient."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn import functional as F

NAN, INF = math.nan, math.inf
ROWS = [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-2.0, 0.0, 2.0], [0.5, -0.0, 3.0]]


def agree(ours, theirs, *arrays):
    """Values, and the gradients of their weighted sum."""
    inputs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    expected = theirs(*inputs)
    weights = np.random.default_rng(0).normal(size=expected.shape)
    gradients = torch.autograd.grad(expected, inputs, torch.tensor(weights), allow_unused=True, materialize_grads=True)
    with jax.enable_x64():
        found, back = jax.vjp(ours, *(jnp.asarray(a, jnp.float64) for a in arrays))
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-12)
        for gradient, expected_gradient in zip(back(jnp.asarray(weights)), gradients, strict=True):
            np.testing.assert_allclose(gradient, expected_gradient.numpy(), rtol=1e-12)


def test_median_shares_the_gradient_among_equal_values():
    agree(F.median, torch.median, [3.0, 1.0, 1.0, 0.0, 1.0, 7.0])
    agree(F.nanmedian, torch.nanmedian, [3.0, NAN, 1.0, 1.0, 7.0, NAN])
    assert jnp.isnan(F.median(jnp.array([1.0, NAN])))
    assert jnp.isnan(F.median(jnp.zeros(0)))
    assert jnp.isnan(F.nanmedian(jnp.zeros(0)))


def test_mode_is_the_least_of_the_most_frequent_values():
    x = [[2.0, 1.0, 2.0, 1.0, 3.0], [0.0, 0.0, 5.0, 5.0, 5.0]]
    for dim in (0, 1):
        values, indices = F.mode(jnp.array(x), dim, keepdim=True)
        np.testing.assert_array_equal(values, torch.mode(torch.tensor(x), dim, keepdim=True)[0])
        np.testing.assert_array_equal(jnp.take_along_axis(jnp.array(x), indices, dim), values)


def test_masked_scatter_puts_entries_one_after_the_other():
    mask = [[True, False], [True, True]]
    x, source = torch.zeros(2, 2), torch.arange(5.0)
    ours = F.masked_scatter(jnp.zeros((2, 2)), jnp.array(mask), jnp.arange(5.0))
    np.testing.assert_array_equal(ours, x.masked_scatter(torch.tensor(mask), source))
    few = jnp.zeros((2, 2)), jnp.array(mask), jnp.arange(2.0)
    assert jnp.isnan(jax.jit(F.masked_scatter)(*few)[1, 1])
    with pytest.raises(ValueError, match="3 entries"):
        F.masked_scatter(*few)
    with pytest.raises(ValueError, match="one dtype"):
        F.masked_scatter(jnp.zeros(2), jnp.array([True, False]), jnp.arange(2))
    assert (F.masked_scatter(jnp.ones(2), jnp.zeros(2, bool), jnp.zeros(0)) == 1).all()


def test_multinomial_draws_in_proportion_and_none_twice():
    weights = jnp.array([[0.0, 1.0, 3.0], [1.0, 0.0, 0.0]])
    drawn = F.multinomial(weights, 4000, replacement=True, key=jax.random.key(0))
    np.testing.assert_allclose([(drawn[0] == i).mean() for i in range(3)], [0, 0.25, 0.75], atol=0.03)
    assert (drawn[1] == 0).all()
    assert set(F.multinomial(jnp.ones((2, 3)), 3, key=jax.random.key(0))[0].tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="cannot draw 4 of 3"):
        F.multinomial(weights, 4, key=jax.random.key(0))


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0], [NAN, 1.0], [INF, 1.0]])
def test_multinomial_draws_of_no_distribution_nothing(weights):
    draw, weights = lambda x: F.multinomial(x, 1, key=jax.random.key(0)), jnp.array(weights)
    with pytest.raises(RuntimeError):
        torch.multinomial(torch.tensor(weights.tolist()), 1)
    with pytest.raises(ValueError, match="weights must be finite"):
        draw(weights)
    assert jax.jit(draw)(weights) == -1


@pytest.mark.parametrize("length", [None, 30, 66])
@pytest.mark.parametrize("options", [{}, {"normalized": True}, {"onesided": False}, {"win_length": 8}])
def test_istft_gives_the_signal_back(options, length):
    signal = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    window = torch.hann_window(options.get("win_length", 12), dtype=torch.float64) + 0.1
    spectrum = torch.stft(signal, 12, 3, window=window, return_complex=True, **options)
    expected = torch.istft(spectrum, 12, 3, window=window, length=length, **options)
    with jax.enable_x64():
        given = jnp.asarray(spectrum.numpy())
        ours = F.istft(given, 12, 3, window=jnp.asarray(window.numpy()), length=length, **options)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)
    assert ours.shape == expected.shape


def test_istft_refuses_windows_that_leave_a_gap():
    spectrum, window = jnp.ones((4, 3), complex), jnp.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    with pytest.raises(RuntimeError):
        torch.istft(torch.ones(4, 3, dtype=torch.complex64), 6, 4, window=torch.tensor(window.tolist()))
    with pytest.raises(ValueError, match="gap"):
        F.istft(spectrum, 6, 4, window=window)
    assert jnp.isnan(jax.jit(lambda x: F.istft(x, 6, 4, window=window))(spectrum)).any()


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, None), (None, 0.5), (2.0, 1.0), (-INF, 0.0)])
def test_clamp_passes_the_whole_gradient_at_a_bound(bounds):
    agree(lambda x: F.clamp(x, *bounds), lambda x: torch.clamp(x, *bounds), ROWS)


def test_clamp_between_arrays_shares_the_gradient_out_as_torch_does():
    low, high = [[0.25], [1.5], [-3.0], [4.0]], [1.0, 0.5, 2.5]
    agree(F.clamp, torch.clamp, ROWS, low, high)


def test_clamp_lets_nan_through_and_takes_integers():
    assert np.isnan(F.clamp(NAN, 0.0, 1.0))
    np.testing.assert_array_equal(F.clamp(jnp.arange(5), 1, 3), [1, 1, 2, 3, 3])


def test_abs_has_no_gradient_at_zero():
    agree(F.abs, torch.abs, ROWS)
    assert F.abs(jnp.int32(-3)) == 3


@pytest.mark.parametrize("options", [{}, {"dim": 1}, {"dim": (0, 1), "keepdim": True}, {"dim": -1, "correction": 0}])
def test_std_of_equal_values_has_no_gradient(options):
    agree(lambda x: F.std(x, **options), lambda x: torch.std(x, **options), ROWS)
    agree(lambda x: F.std(x, **options), lambda x: torch.std(x, **options), [[3.0, 3.0]])


@pytest.mark.parametrize("order", [2, 1, 0, 3, 0.5, INF, -INF])
@pytest.mark.parametrize("dim", [None, 1, (0, 1)])
def test_a_norm_of_zero_has_no_gradient(order, dim):
    norms = lambda x: F.vector_norm(x, order, dim), lambda x: torch.linalg.vector_norm(x, order, dim)
    if order in (0.5, -INF):  # of zeros torch's own gradient is NaN or undefined
        agree(*norms, [[1.0, -2.0, 3.0]])
    else:
        agree(*norms, ROWS)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("keepdim", [False, True])
def test_the_whole_gradient_of_an_extreme_along_an_axis_goes_to_the_first_of_equal_values(name, keepdim):
    ours, theirs = getattr(F, name), getattr(torch, name)
    agree(lambda x: ours(x, 1, keepdim)[0], lambda x: theirs(x, 1, keepdim)[0], ROWS)
    expected = theirs(torch.tensor(ROWS), -1, keepdim)[1]
    np.testing.assert_array_equal(ours(jnp.asarray(ROWS), -1, keepdim)[1], expected.numpy())


def test_the_greatest_of_integers_and_nan():
    np.testing.assert_array_equal(F.max(jnp.array([[3, 1, 3]]), 1), ([3], [0]))
    agree(lambda x: F.max(x, 0)[0], lambda x: torch.max(x, 0)[0], [[1.0, NAN], [2.0, 0.0]])


def test_an_angle_at_the_origin_has_no_gradient():
    agree(F.atan2, torch.atan2, ROWS, [1.0, 0.0, -1.0])
    agree(F.angle, torch.angle, ROWS)
    agree(lambda x: F.angle(jax.lax.complex(x, x)), lambda x: torch.angle(torch.complex(x, x)), ROWS)


OTHER = [[0.0, -0.0, 2.0], [1.0, 0.5, 3.0], [0.0, -1.0, 2.0], [NAN, 1.0, 3.0]]


@pytest.mark.parametrize("name", ["fmax", "fmin"])
def test_of_equal_numbers_the_first_argument_has_the_gradient(name):
    agree(getattr(F, name), getattr(torch, name), ROWS, OTHER)
    agree(getattr(F, name), getattr(torch, name), OTHER, ROWS)


def test_a_sign_of_nan_is_zero_and_equal_bounds_have_no_gradient():
    agree(F.sign, torch.sign, OTHER)
    bounds = [-1.0, 0.0, 1.0], [[0.0, 0.0, 1.0], [-1.0, 0.5, 3.0], [-2.0, 0.0, 0.5], [1.0, 1.0, 1.0]]
    agree(F.clamp, torch.clamp, ROWS, *bounds)


def test_the_sign_of_zero_has_no_gradient():
    agree(F.copysign, torch.copysign, ROWS, OTHER[:3] + OTHER[1:2])


def test_zero_times_no_logarithm_has_no_gradient():
    agree(F.xlogy, torch.xlogy, ROWS, OTHER)


def test_zero_to_the_zeroth_power_has_no_gradient():
    agree(F.pow, torch.pow, [0.0, 0.0, 2.0, 0.0, 3.0], [0.0, 2.0, 0.0, 1.0, 2.5])
    assert F.pow(jnp.int32(3), jnp.int32(2)) == 9


def test_second_derivatives_of_powers_of_zero():
    x, y = [0.0, 0.0, 2.0, -2.0], [1.0, 2.0, 2.5, 3.0]
    given = torch.tensor(x, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.pow(given, torch.tensor(y)).sum(), given, create_graph=True)
    (expected,) = torch.autograd.grad(slope.sum(), given)
    second = jax.vmap(jax.grad(jax.grad(F.pow)))(jnp.array(x), jnp.array(y))
    np.testing.assert_allclose(second, expected, 1e-6)
    forward = jax.vmap(jax.hessian(F.pow))(jnp.array(x), jnp.array(y))
    np.testing.assert_allclose(forward, expected, 1e-6)
