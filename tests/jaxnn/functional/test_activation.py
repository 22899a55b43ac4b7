"""Activations and softmaxes, against torch where its database does not look."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn import functional as F

KEY = jax.random.key(0)
T = torch.nn.functional

ELEMENTWISE = {
    "threshold": ((1.0, 5.0), {}),
    "relu": ((), {}),
    "relu6": ((), {}),
    "hardtanh": ((-0.5, 3.0), {}),
    "hardsigmoid": ((), {}),
    "hardswish": ((), {}),
    "hardshrink": ((), {}),
    "softshrink": ((), {}),
    "leaky_relu": ((0.25,), {}),
    "rrelu": ((), {}),
    "elu": ((0.5,), {}),
    "selu": ((), {}),
    "celu": ((2.0,), {}),
    "gelu": ((), {}),
    "gelu tanh": ((), {"approximate": "tanh"}),
    "silu": ((), {}),
    "mish": ((), {}),
    "softplus": ((2.0, 7.0), {}),
    "logsigmoid": ((), {}),
    "sigmoid": ((), {}),
    "tanh": ((), {}),
    "tanhshrink": ((), {}),
    "softsign": ((), {}),
}
KINKS = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 6.0, -6.0]


def both(name):
    args, kwargs = ELEMENTWISE[name]
    ours, torchs = getattr(F, name.split()[0]), getattr(T, name.split()[0])
    return lambda x: ours(x, *args, **kwargs), lambda x: torchs(x, *args, **kwargs)


def torch_derivatives(function, x, order=2):
    x = torch.tensor(x, requires_grad=True)
    found = [function(x)]
    for _ in range(order):
        if not found[-1].requires_grad:
            break
        try:
            found.append(torch.autograd.grad(found[-1].sum(), x, create_graph=True)[0])
        except RuntimeError:  # torch has no second derivative of some
            break
    return [y.detach().numpy() for y in found]


def jax_derivatives(function, x, order=2):
    functions = [function]
    for _ in range(order):
        functions.append(jax.grad(lambda x, f=functions[-1]: f(x).sum()))
    return jax.jit(lambda x: [f(x) for f in functions])(x)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_value_and_two_derivatives_are_torchs_at_kinks_and_far_out(name):
    x = np.array([*KINKS, 0.1, -0.2, 2.0, 20.0, -20.0, 21.0, 100.0, -100.0, 1e4, -1e4])
    ours, torchs = both(name)
    expected = torch_derivatives(torchs, x)
    with jax.enable_x64(True):
        found = jax_derivatives(ours, x)
    for order, (a, b) in enumerate(zip(found, expected, strict=False)):
        there = np.isfinite(b)  # torch's second derivative of mish is NaN far out
        np.testing.assert_allclose(a[there], b[there], rtol=1e-12, atol=1e-13, err_msg=f"derivative {order}")
        assert np.isfinite(a).all()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_and_infinity_go_through_as_in_torch(name):
    # In float64, where torch's kernels for whole vectors and for remainders agree.
    x = np.array([np.nan, np.inf, -np.inf, 1.0])
    ours, torchs = both(name)
    with jax.enable_x64(True):
        np.testing.assert_allclose(ours(x), torchs(torch.tensor(x)).numpy())


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_float32_derivatives_stay_finite_where_torchs_do(name):
    x = np.array([88.0, -88.0, 104.0, -104.0, 3e4, -3e4, 1e18, -1e18], np.float32)
    ours, torchs = both(name)
    for a, b in zip(jax_derivatives(ours, x, order=1), torch_derivatives(torchs, x, order=1), strict=True):
        assert np.isfinite(a)[np.isfinite(b)].all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_half_precision_is_as_good_as_torchs(name, dtype):
    ours, torchs = both(name)
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(0, 3, 512)).to(getattr(torch, dtype))
    exact = torch_derivatives(torchs, x.double().numpy(), order=1)
    half = x.clone().requires_grad_()
    value = torchs(half)
    of_torch = [value.detach(), torch.autograd.grad(value.sum(), half)[0]]
    found = jax_derivatives(ours, jnp.asarray(x.float().numpy()).astype(dtype), order=1)
    for a, b, t in zip(found, of_torch, exact, strict=False):
        assert a.dtype == dtype
        error, of_torchs = (np.abs(np.asarray(y, np.float64) - t).max() for y in (a, b.float().numpy()))
        assert error <= 1.5 * of_torchs + 1e-6


@pytest.mark.parametrize("name", ["threshold", "relu", "relu6", "hardtanh"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_integers_stay_integers(name, dtype):
    x = np.arange(9).astype(dtype) - np.asarray(0 if dtype == "uint8" else 4, dtype)
    args = {"threshold": (2.7, 1.5), "hardtanh": (0.5, 2.5)}.get(name, ())
    found = getattr(F, name)(x, *args)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, getattr(T, name)(torch.tensor(x), *args).numpy())


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "tanhshrink", "softsign"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_integers_become_float32_even_with_float64_at_hand(name, dtype):
    x = np.array([0, 1, 3, 127, 255 if dtype == "uint8" else -127]).astype(dtype)
    with jax.enable_x64(True):
        found = getattr(F, name)(x)
    expected = getattr(T, name)(torch.tensor(x))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["silu", "sigmoid", "tanh", "tanhshrink", "softsign"])
def test_complex_values_and_gradients_are_torchs(name):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=8) + 1j * rng.normal(size=8)).astype(np.complex64)
    x[0] = 0
    ours, torchs = getattr(F, name), getattr(T, name)
    np.testing.assert_allclose(ours(x), torchs(torch.tensor(x)).numpy(), rtol=2e-6, atol=1e-7)
    # Torch has no gradient of its complex silu, so it gets that of the formula.
    differentiable = (lambda x: x * torch.sigmoid(x)) if name == "silu" else torchs
    leaf = torch.tensor(x, requires_grad=True)
    (gradient,) = torch.autograd.grad(differentiable(leaf).real.sum(), leaf)
    found = jax.grad(lambda x: ours(x).real.sum())(x)
    np.testing.assert_allclose(jnp.conj(found), gradient.numpy(), rtol=1e-5, atol=1e-6)


def test_elu_keeps_the_digits_of_a_small_derivative():
    gradient = jax.grad(F.elu)(jnp.float32(-12.5))
    np.testing.assert_allclose(gradient, math.exp(-12.5), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elu_is_within_three_units_in_the_last_place(dtype):
    x = np.concatenate([np.linspace(-20, 0, 200_001)[:-1], -np.logspace(-30, 0, 100_000), [-math.inf]]).astype(dtype)
    with jax.enable_x64(True):
        found = np.asarray(F.elu(jnp.asarray(x))).astype(np.longdouble)
    expected = np.expm1(x.astype(np.longdouble))
    assert np.max(np.abs(found - expected) / np.spacing(np.abs(expected).astype(dtype))) <= 3


def test_tanh_gelu_is_not_the_exact_one():
    assert abs(float(F.gelu(2.0, "tanh") - F.gelu(2.0))) > 1e-5


def test_in_place_spellings_are_the_same_functions():
    for name in ("relu", "elu", "hardtanh", "leaky_relu", "rrelu", "selu", "celu"):
        x = np.array([-2.0, 0.5, 3.0], np.float32)
        np.testing.assert_array_equal(getattr(F, f"{name}_")(x), getattr(F, name)(x))
    np.testing.assert_array_equal(F.threshold_(x, 1.0, 7.0), [7.0, 7.0, 3.0])


def test_threshold_compares_half_precision_in_float32():
    # 0.1 as a half is a little more than 0.1.
    x = jnp.asarray([0.1], jnp.bfloat16)
    assert F.threshold(x, 0.1, 9.0)[0] == x[0]
    assert F.hardshrink(x, 0.1)[0] == 0


def test_threshold_wraps_a_negative_number_in_unsigned_integers():
    x = np.array([3, 0, 2], np.uint8)
    expected = T.threshold(torch.tensor(x), 1, -1).numpy()  # not -1.0, which torch refuses
    np.testing.assert_array_equal(F.threshold(x, 1, -1), expected)


@pytest.mark.parametrize(("shape", "slopes"), [((2, 3, 4), 3), ((2, 3), 3), ((2, 3, 1, 2), 1), ((5,), 1), ((), 1)])
def test_prelu_has_a_slope_for_each_channel(shape, slopes):
    rng = np.random.default_rng(2)
    x, weight = rng.normal(size=shape).astype(np.float32), rng.normal(size=slopes).astype(np.float32)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, weight)]
    value = T.prelu(*leaves)
    gradients = torch.autograd.grad((value**2).sum(), leaves)
    np.testing.assert_allclose(F.prelu(x, weight), value.detach().numpy(), rtol=1e-6)
    for a, b in zip(
        jax.grad(lambda x, w: (F.prelu(x, w) ** 2).sum(), (0, 1))(jnp.asarray(x), jnp.asarray(weight)),
        gradients,
        strict=True,
    ):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-5)


def test_prelu_of_an_infinite_input_leaves_the_gradient_of_the_weight_finite():
    gradient = jax.grad(lambda w: F.prelu(jnp.asarray([jnp.inf, -2.0]), w)[1])(jnp.asarray([0.25]))
    np.testing.assert_array_equal(gradient, [-2.0])


def test_rrelu_draws_a_slope_for_each_element_in_training():
    slopes = -F.rrelu(-np.ones(4000, np.float32), 0.1, 0.5, training=True, key=KEY)
    assert slopes.min() >= 0.1
    assert slopes.max() < 0.5
    np.testing.assert_allclose([slopes.mean(), slopes.std()], [0.3, 0.4 / math.sqrt(12)], rtol=0.03)
    np.testing.assert_array_equal(F.rrelu(np.ones(3, np.float32), training=True, key=KEY), 1.0)


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "softmin", "log_softmax"])
def test_softmax_family_with_vmap_jit_and_second_derivatives(name, dim):
    x = np.random.default_rng(3).normal(0, 4, (2, 3, 4, 5))
    ours, torchs = getattr(F, name), getattr(T, name)
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            jax.vmap(lambda x: ours(x, dim))(x),
            torchs(torch.tensor(x), dim if dim < 0 else dim + 1).numpy(),
            rtol=1e-12,
            atol=1e-15,  # the logarithm of a sum near 1, which is rounded to 2e-16
        )
        found = jax_derivatives(lambda x: ours(x, dim) ** 2, x[0])
    for a, b in zip(found, torch_derivatives(lambda x: torchs(x, dim) ** 2, x[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_infinite_rows_is_nan_and_of_saturated_ones_is_not(name):
    rows = [[-np.inf, -np.inf], [np.inf, 1.0], [-np.inf, 1.0], [1e30, -1e30], [np.nan, 0.0]]
    x = np.array(rows, np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    value = getattr(T, name)(leaf, 1)
    value[:, 1].sum().backward()
    np.testing.assert_allclose(getattr(F, name)(x, 1), value.detach().numpy())
    np.testing.assert_allclose(jax.grad(lambda x: getattr(F, name)(x, 1)[:, 1].sum())(x), leaf.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "softmin", "log_softmax"])
def test_softmax_of_scalars_and_of_nothing(name):
    assert getattr(F, name)(2.0, -1).shape == ()
    assert getattr(F, name)(np.zeros((2, 0), np.float32), 1).shape == (2, 0)
    np.testing.assert_allclose(F.softmax(2.0, 0), 1.0)


@pytest.mark.parametrize("name", ["softmax", "softmin"])
def test_the_gradient_of_softmax_remembers_its_result_and_nothing_else(name):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    weights, back = jax.vjp(lambda x: getattr(F, name)(x, 1), x)
    (remembered,) = jax.tree.leaves(back)
    np.testing.assert_array_equal(remembered, weights)


def test_the_gradient_of_log_softmax_remembers_one_array():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    (remembered,) = jax.tree.leaves(jax.vjp(lambda x: F.log_softmax(x, 1), x)[1])
    assert remembered.shape == x.shape


def test_softmax_of_halves_is_taken_in_float32():
    x = torch.tensor(np.random.default_rng(4).normal(0, 3, (4, 1000))).bfloat16()
    exact = torch.softmax(x.double(), 1).numpy()
    found, of_torch = F.softmax(jnp.asarray(x.float().numpy()).astype(jnp.bfloat16), 1), torch.softmax(x, 1)
    assert found.dtype == jnp.bfloat16
    error, of_torchs = (np.abs(np.asarray(y, np.float64) - exact).max() for y in (found, of_torch.float().numpy()))
    assert error <= 1.5 * of_torchs


@pytest.mark.parametrize("source", [np.int32, np.uint8, np.bool_, np.float16])
def test_softmax_casts_to_dtype_first(source):
    x = np.array([[1, 0, 1], [0, 1, 1]]).astype(source)
    for name in ("softmax", "log_softmax"):
        found = getattr(F, name)(x, 1, dtype=jnp.float32)
        assert found.dtype == jnp.float32
        expected = getattr(T, name)(torch.tensor(x), 1, dtype=torch.float32)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_softmax_drops_the_imaginary_part_where_the_dtype_is_real():
    x = np.array([1 + 2j, 3 - 1j], np.complex64)
    np.testing.assert_array_equal(F.softmax(x, 0, dtype=jnp.float32), F.softmax(x.real, 0))


def test_softmin_negates_unsigned_integers_as_they_wrap():
    x = np.array([1, 0, 3], np.uint8)
    np.testing.assert_allclose(
        F.softmin(x, 0, dtype=jnp.float32), T.softmin(torch.tensor(x), 0, dtype=torch.float32).numpy(), rtol=1e-6
    )


@pytest.mark.parametrize(("ndim", "axis"), [(1, 0), (2, 1), (3, 0), (4, 1)])
def test_softmax_without_dim_warns_and_chooses_as_torch(ndim, axis):
    x = np.random.default_rng(5).normal(size=(2, 3, 4, 5)[:ndim]).astype(np.float32)
    with pytest.warns(UserWarning, match="pass dim"):
        found = F.softmax(x)
    np.testing.assert_array_equal(found, F.softmax(x, axis))


def test_gumbel_softmax_picks_categories_by_their_probability():
    logits = jnp.log(jnp.asarray([0.1, 0.2, 0.7]))
    picks = F.gumbel_softmax(jnp.tile(logits, (4000, 1)), tau=0.5, hard=True, key=KEY)
    np.testing.assert_array_equal(picks.sum(1), 1.0)
    np.testing.assert_allclose(picks.mean(0), [0.1, 0.2, 0.7], atol=0.03)


def test_hard_gumbel_softmax_has_the_gradient_of_the_soft_one():
    logits = jnp.asarray([0.3, -0.4, 1.0])
    soft, hard = (
        jax.grad(lambda x, hard=hard: (F.gumbel_softmax(x, hard=hard, key=KEY) * jnp.arange(3.0)).sum())(logits)
        for hard in (False, True)
    )
    np.testing.assert_allclose(hard, soft, rtol=1e-6)
    assert np.abs(soft).max() > 0


def test_gumbel_softmax_in_half_precision_never_draws_infinity():
    samples = F.gumbel_softmax(jnp.zeros((20000, 2), jnp.bfloat16), key=KEY)
    assert samples.dtype == jnp.bfloat16
    assert jnp.isfinite(samples).all()


def test_gumbel_softmax_warns_that_eps_is_ignored():
    with pytest.warns(UserWarning, match="eps"):
        F.gumbel_softmax(np.zeros(3, np.float32), eps=1e-6, key=KEY)


X = np.zeros((2, 3), np.float32)
REFUSALS = [
    (lambda: F.gelu(X, "fast"), RuntimeError, "approximate.*'fast'"),
    (lambda: F.hardtanh(X, 1.0, -1.0), ValueError, "min_val"),
    (lambda: F.hardtanh(np.zeros(2, np.uint8), -1.0, 1.0), RuntimeError, "negative"),
    (lambda: F.relu(np.zeros(2, bool)), RuntimeError, "boolean"),
    (lambda: F.relu(np.zeros(2, np.complex64)), NotImplementedError, "complex64"),
    (lambda: F.threshold(np.zeros(2, bool), 0.0, 1.0), NotImplementedError, "bool"),
    (lambda: F.threshold(np.zeros(2, np.uint8), 0.0, -1.0), RuntimeError, "uint8"),
    (lambda: F.threshold(np.zeros(2, np.int8), 200.0, 0.0), RuntimeError, "200"),
    (lambda: F.threshold(np.zeros(2, np.float16), 0.0, 1e6), RuntimeError, "float16"),
    (lambda: F.hardshrink(np.zeros(2, np.float16), 1e6), RuntimeError, "float16"),
    (lambda: F.softshrink(X, -0.5), RuntimeError, r"lambd.*-0\.5"),
    (lambda: F.softshrink(X, math.nan), RuntimeError, "lambd.*nan"),
    (lambda: F.celu(X, 0.0), RuntimeError, "alpha"),
    (lambda: F.elu(np.zeros(2, np.int32)), NotImplementedError, "int32"),
    (lambda: F.silu(np.zeros(2, np.int32)), NotImplementedError, "int32"),
    (lambda: F.softsign(np.zeros(2, bool)), NotImplementedError, "bool"),
    (lambda: F.tanhshrink(np.zeros(2, bool)), RuntimeError, "boolean"),
    (lambda: F.glu(X, -1), RuntimeError, "even"),
    (lambda: F.glu(X, 2), IndexError, "dim"),
    (lambda: F.glu(1.0), RuntimeError, "scalar"),
    (lambda: F.prelu(X, np.zeros((1, 1), np.float32)), RuntimeError, "weight"),
    (lambda: F.prelu(X, np.zeros(2, np.float32)), RuntimeError, "3 channels"),
    (lambda: F.prelu(X, np.zeros(3, np.float16)), RuntimeError, "float16"),
    (lambda: F.rrelu(X, 0.5, 0.1), RuntimeError, "lower"),
    (lambda: F.rrelu(X, 0.5, math.inf), RuntimeError, "upper"),
    (lambda: F.rrelu(X, training=True), ValueError, "key"),
    (lambda: F.softmax(X, 2), IndexError, "dim"),
    (lambda: F.softmax(np.zeros(3, np.int32), 0), NotImplementedError, "int32"),
    (lambda: F.log_softmax(X, 0, dtype=jnp.int32), NotImplementedError, "int32"),
    (lambda: F.softmin(np.zeros(2, bool), 0), RuntimeError, "bool"),
    (lambda: F.gumbel_softmax(X), ValueError, "key"),
    (lambda: F.gumbel_softmax(X, dim=2, key=KEY), IndexError, "dim"),
    (lambda: F.gumbel_softmax(np.zeros((3, 0), np.float32), hard=True, key=KEY), IndexError, "empty"),
]


@pytest.mark.parametrize(("call", "error", "says"), REFUSALS)
def test_what_torch_refuses_is_refused_by_name(call, error, says):
    with pytest.raises(error, match=says):
        jax.eval_shape(call)
