"""Normalizations, against torch where its database does not look."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import functional as F

T = torch.nn.functional
RNG = np.random.default_rng(0)
X = RNG.normal(1, 2, (3, 4, 5, 2))
WEIGHT, BIAS = RNG.normal(size=4), RNG.normal(size=4)
MEAN, VARIANCE = RNG.normal(size=4), RNG.uniform(0.5, 2, 4)

NORMS = {
    "batch_norm": lambda f, x, w, b: f.batch_norm(x, None, None, w, b, training=True),
    "instance_norm": lambda f, x, w, b: f.instance_norm(x, weight=w, bias=b),
    "group_norm": lambda f, x, w, b: f.group_norm(x, 2, w, b),
    "layer_norm": lambda f, x, w, b: f.layer_norm(x.swapaxes(1, 3), (4,), w, b),
    "rms_norm": lambda f, x, w, b: f.rms_norm(x.swapaxes(1, 3), (4,), w),
    "local_response_norm": lambda f, x, w, b: f.local_response_norm(x[..., 0], 3, 0.5),
    "normalize": lambda f, x, w, b: f.normalize(x),
}


def scalar(output):
    return (output * output * output).sum()


@pytest.mark.parametrize("name", NORMS)
def test_gradient_of_the_gradient_is_torchs(name):
    leaves = [torch.tensor(a, requires_grad=True) for a in (X, WEIGHT, BIAS)]
    gradients = torch.autograd.grad(scalar(NORMS[name](T, *leaves)), leaves, create_graph=True, materialize_grads=True)
    direction = RNG.normal(size=X.shape)
    seconds = torch.autograd.grad((gradients[0] * torch.tensor(direction)).sum(), leaves, materialize_grads=True)

    def first(*arrays):
        return jax.grad(lambda *a: scalar(NORMS[name](F, *a)), (0, 1, 2))(*arrays)

    with jax.enable_x64(True):
        found = jax.jit(lambda *a: (first(*a), jax.grad(lambda *a: (first(*a)[0] * direction).sum(), (0, 1, 2))(*a)))(
            *map(jnp.asarray, (X, WEIGHT, BIAS))
        )
    for ours, torchs in zip(found, (gradients, seconds), strict=True):
        for a, b in zip(ours, torchs, strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NORMS)
def test_forward_mode_and_vmap_agree_with_the_plain_call(name):
    with jax.enable_x64(True):
        arrays = [jnp.asarray(a) for a in (X, WEIGHT, BIAS)]

        def norm(x):
            return NORMS[name](F, x, *arrays[1:])

        direction = jnp.asarray(RNG.normal(size=X.shape))

        @jax.jit
        def both_ways(x):
            output, forward = jax.jvp(norm, (x,), (direction,))
            cotangent = output + output**2  # a direction alone is orthogonal to its derivative
            return (forward * cotangent).sum(), (jax.vjp(norm, x)[1](cotangent)[0] * direction).sum()

        np.testing.assert_allclose(*both_ways(arrays[0]), rtol=1e-10)
        stacked = jnp.stack([arrays[0], -3 * arrays[0]])
        np.testing.assert_allclose(jax.vmap(norm)(stacked)[1], norm(stacked[1]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NORMS)
def test_half_precision_is_as_good_as_torchs(name, dtype):
    kind = getattr(torch, dtype)
    halves = [torch.tensor(a).to(kind) for a in (X, WEIGHT, BIAS)]
    found, truth, of_torch = [], [], []
    for leaves, results in ((halves, of_torch), ([a.double() for a in halves], truth)):
        leaves = [a.clone().requires_grad_() for a in leaves]
        output = NORMS[name](T, *leaves)
        gradients = torch.autograd.grad(
            output, leaves, torch.ones_like(output) / 3 + output.detach(), materialize_grads=True
        )
        results.extend(a.detach().double().numpy() for a in (output, *gradients))

    @jax.jit
    def outputs(*arrays):
        output, pullback = jax.vjp(lambda *a: NORMS[name](F, *a), *arrays)
        return output, *pullback(jnp.ones_like(output) / jnp.asarray(3, dtype) + output)

    ours = outputs(*(jnp.asarray(a.float().numpy()).astype(dtype) for a in halves))
    assert {a.dtype for a in ours} == {jnp.dtype(dtype)}
    found = [np.asarray(a, np.float64) for a in ours]
    for a, b, t in zip(found, of_torch, truth, strict=True):
        unit = float(jnp.finfo(dtype).eps) * np.abs(t).max()
        assert np.abs(a - t).max() <= 2 * np.abs(b - t).max() + unit


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm", "group_norm", "layer_norm"])
def test_variance_keeps_its_digits_beside_a_large_mean(name):
    x = (X + 3e3).astype(np.float32)
    exact = NORMS[name](T, torch.tensor(x).double(), None, None).numpy()
    found = NORMS[name](F, jnp.asarray(x), None, None)
    np.testing.assert_allclose(found, exact, atol=2e-3)


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0])
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_are_what_torch_writes(name, momentum):
    mean, variance = torch.tensor(MEAN), torch.tensor(VARIANCE)
    arrays = [torch.tensor(X), mean, variance, torch.tensor(WEIGHT), torch.tensor(BIAS)]
    expected = getattr(T, name)(*arrays, True, momentum)
    with jax.enable_x64(True):
        found = jax.jit(getattr(F, f"{name}_with_stats"), static_argnums=5)(
            X, MEAN, VARIANCE, WEIGHT, BIAS, True, momentum
        )
    for a, b in zip(found, (expected, mean, variance), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_are_used_and_kept_outside_training(name):
    x, mean, variance = (a.astype(np.float32) for a in (X, MEAN, VARIANCE))
    output, new_mean, new_variance = getattr(F, f"{name}_with_stats")(x, mean, variance, None, None, False)
    np.testing.assert_array_equal(new_mean, mean)
    np.testing.assert_array_equal(new_variance, variance)
    expected = getattr(T, name)(torch.tensor(x), torch.tensor(mean), torch.tensor(variance), None, None, False)
    np.testing.assert_allclose(output, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_no_gradient_flows_through_the_running_statistics():
    mean, variance = jnp.zeros(4), jnp.ones(4)
    gradient = jax.grad(lambda x: sum(F.batch_norm_with_stats(x, mean, variance, training=True)[1:]).sum())(
        jnp.asarray(X, jnp.float32)
    )
    np.testing.assert_array_equal(gradient, 0.0)


def test_running_statistics_keep_float32_beside_a_half_precision_batch():
    x = jnp.asarray(X, jnp.bfloat16)
    output, mean, variance = F.batch_norm_with_stats(x, np.zeros(4, np.float32), np.ones(4, np.float32), training=True)
    assert (output.dtype, mean.dtype, variance.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    expected = 0.1 * np.asarray(x, np.float64).mean((0, 2, 3))
    np.testing.assert_allclose(mean, expected, rtol=1e-6)


def test_an_empty_batch_leaves_the_running_statistics_alone():
    x, mean, variance = np.zeros((0, 4, 2), np.float32), MEAN.astype(np.float32), VARIANCE.astype(np.float32)
    output, new_mean, new_variance = F.batch_norm_with_stats(x, mean, variance, training=True)
    assert output.shape == x.shape
    np.testing.assert_array_equal(new_mean, mean)
    np.testing.assert_array_equal(new_variance, variance)


@settings(max_examples=8, deadline=None)
@given(
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    spatial=st.lists(st.integers(1, 4), max_size=3),
    n=st.integers(1, 3),
)
def test_group_norm_of_any_shape(groups, per_group, spatial, n):
    shape = (n, groups * per_group, *spatial)
    if n * per_group * math.prod(spatial) == 1:
        return
    x = np.random.default_rng(n).normal(size=shape).astype(np.float32)
    found = jax.jit(F.group_norm, static_argnums=1)(x, groups)
    np.testing.assert_allclose(
        found, T.group_norm(torch.tensor(x), groups).numpy(), atol=2e-3 if per_group == 1 else 1e-4
    )


@settings(max_examples=8, deadline=None)
@given(channels=st.integers(1, 6), size=st.integers(1, 9), ndim=st.integers(3, 5))
def test_local_response_window_of_any_size_sits_as_in_torch(channels, size, ndim):
    x = np.random.default_rng(size).normal(size=(2, channels, 2, 3, 1)[:ndim]).astype(np.float32)
    found = jax.jit(lambda x: F.local_response_norm(x, size, 0.5, 0.6, 2.0))(x)
    np.testing.assert_allclose(found, T.local_response_norm(torch.tensor(x), size, 0.5, 0.6, 2.0).numpy(), rtol=1e-5)


def test_the_gradient_of_local_response_norm_beside_infinity_is_torchs():
    x = torch.tensor([[[1.0], [-2.0], [torch.inf], [0.5], [3.0]]], requires_grad=True)
    (expected,) = torch.autograd.grad(T.local_response_norm(x, 2).sum(), x)
    found = jax.grad(lambda x: jnp.sum(F.local_response_norm(x, 2)))(jnp.asarray(x.detach().numpy()))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_local_response_norm_of_integers_rounds_the_mean_down():
    x = np.arange(12).reshape(1, 4, 3)
    expected = T.local_response_norm(torch.tensor(x), 2, alpha=1.0).numpy()
    for x64 in (False, True):
        with jax.enable_x64(x64):
            found = jax.jit(lambda x: F.local_response_norm(x, 2, alpha=1.0))(x)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, -1.0, -2.0, math.inf, -math.inf])
def test_normalize_has_torchs_gradient_at_zeros_ties_and_tiny_vectors(p):
    rows = [[0.0, 0, 0], [0, 2, -3], [2, -2, 1], [1e-13, 0, 0], [1e-12, 0, 0], [-3, 3, 3]]
    leaf = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    output = T.normalize(leaf, p)
    cotangent = np.tile([1.0, 2.0, 4.0], (6, 1))
    (gradient,) = torch.autograd.grad(output, leaf, torch.tensor(cotangent))
    with jax.enable_x64(True):

        @jax.jit
        def derivatives(x):
            output, pullback = jax.vjp(lambda x: F.normalize(x, p), x)
            second = jax.grad(lambda x: jax.grad(lambda x: (F.normalize(x, p) ** 3).sum())(x).sum())(x)
            return output, pullback(jnp.asarray(cotangent))[0], second

        found, of_jax, second = derivatives(jnp.asarray(rows))
    np.testing.assert_allclose(found, output.detach().numpy(), rtol=1e-12)
    # Of 1e-12, the size of eps, the roots and powers may round to either side, and the derivative is that side's.
    rows = [0, 1, 2, 3, 5] if p in (1.5, 3.0) else slice(None)
    np.testing.assert_allclose(np.asarray(of_jax)[rows], gradient.numpy()[rows], rtol=1e-9, atol=1e-9)
    assert np.isfinite(second).all()


@pytest.mark.parametrize(
    ("p", "dim"), [(2.0, 0), (2.0, (0, 2)), (2.0, ()), (2.0, None), (1.0, -1), (2.5, -1), (math.inf, -1)]
)
def test_normalize_complex_numbers_over_any_axes(p, dim):
    x = (RNG.normal(size=(2, 3, 4)) + 1j * RNG.normal(size=(2, 3, 4))).astype(np.complex64)
    leaf = torch.tensor(x, requires_grad=True)
    output = T.normalize(leaf, p, dim)
    (gradient,) = torch.autograd.grad(output.real.sum(), leaf)
    total, found = jax.jit(jax.value_and_grad(lambda x: F.normalize(x, p, dim).real.sum()))(x)
    np.testing.assert_allclose(total, output.real.sum().item(), rtol=1e-5)
    np.testing.assert_allclose(jnp.conj(found), gradient.numpy(), rtol=1e-4, atol=1e-5)


def test_direction_of_a_single_number_has_no_derivative():
    for p in (0.5, 1.2, 2.0, 3.0):
        assert jax.grad(lambda x, p=p: F.normalize(x, p, 0))(jnp.float32(-0.53633165)) == 0


def test_rms_norm_takes_its_epsilon_from_the_dtype_it_computes_in():
    x = jnp.full((1, 1), 1e-4)
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        expected = T.rms_norm(torch.tensor([[1e-4]]).to(getattr(torch, jnp.dtype(dtype).name)), (1,))
        np.testing.assert_allclose(np.float32(F.rms_norm(x.astype(dtype), (1,))), expected.float().numpy(), rtol=1e-2)


def test_complex_rms_norm_squares_without_conjugating():
    x = np.array([1 + 2j, 3 - 1j], np.complex64)
    np.testing.assert_allclose(F.rms_norm(x, (2,)), T.rms_norm(torch.tensor(x), (2,)).numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm", "group_norm", "layer_norm"])
def test_parameters_may_be_float32_beside_half_precision_and_nothing_else(name):
    half, single, double = (
        [jnp.asarray(a, dtype) for a in (X, WEIGHT, BIAS)] for dtype in (jnp.bfloat16, jnp.float32, jnp.float16)
    )
    assert NORMS[name](F, half[0], *single[1:]).dtype == jnp.bfloat16
    for x, weight, bias in ((single[0], *half[1:]), (half[0], single[1], half[2]), (half[0], *double[1:])):
        with pytest.raises(RuntimeError, match="weight"):
            NORMS[name](F, x, weight, bias)


A = np.zeros((2, 4, 3), np.float32)
ONE, THREE, FOUR = (np.ones(n, np.float32) for n in (1, 3, 4))
REFUSALS = [
    (lambda: F.batch_norm(FOUR, None, None, training=True), RuntimeError, "two axes"),
    (lambda: F.batch_norm(A, None, None), RuntimeError, "running_mean and running_var"),
    (lambda: F.batch_norm(A, FOUR, None, training=True), ValueError, "running_mean and running_var"),
    (lambda: F.batch_norm(A, THREE, FOUR), RuntimeError, "running_mean must hold 4"),
    (lambda: F.batch_norm(A, FOUR, FOUR, THREE), RuntimeError, "weight must hold 4"),
    (lambda: F.batch_norm(A[:1, :, :1], None, None, training=True), ValueError, "more than one value"),
    (lambda: F.batch_norm(A, FOUR, FOUR, eps=-1.0), ValueError, "eps"),
    (lambda: F.batch_norm(A, FOUR, FOUR, training=True, eps=0.0), ValueError, "eps must be positive"),
    (lambda: F.batch_norm(A.astype(int), None, None, training=True), NotImplementedError, "int"),
    (lambda: F.instance_norm(A[:, :, :1]), ValueError, "spatial"),
    (lambda: F.instance_norm(A, use_input_stats=False), RuntimeError, "running_mean and running_var"),
    (lambda: F.instance_norm(A, weight=THREE), RuntimeError, "weight must hold 4"),
    (lambda: F.layer_norm(A, 3), TypeError, "normalized_shape"),
    (lambda: F.layer_norm(A, ()), RuntimeError, "normalized_shape"),
    (lambda: F.layer_norm(A, (4,)), RuntimeError, r"normalized_shape=\(4,\)"),
    (lambda: F.layer_norm(A, (3,), FOUR), RuntimeError, "weight"),
    (lambda: F.layer_norm(A, (3,), None, FOUR), RuntimeError, "bias"),
    (lambda: F.layer_norm(A.astype(np.complex64), (3,)), NotImplementedError, "complex64"),
    (lambda: F.rms_norm(A, 3), TypeError, "normalized_shape"),
    (lambda: F.rms_norm(A, (3,), FOUR), RuntimeError, "weight"),
    (lambda: F.group_norm(FOUR, 2), RuntimeError, "two axes"),
    (lambda: F.group_norm(A, 3), RuntimeError, "num_groups"),
    (lambda: F.group_norm(A, -2), RuntimeError, "num_groups"),
    (lambda: F.group_norm(A, 0), ZeroDivisionError, "num_groups"),
    (lambda: F.group_norm(A[:1, :, :1], 4), ValueError, "more than one value"),
    (lambda: F.group_norm(A, 2, THREE), RuntimeError, "weight"),
    (lambda: F.local_response_norm(A[0], 2), ValueError, "three axes"),
    (lambda: F.local_response_norm(A, 0), RuntimeError, "size"),
    (lambda: F.local_response_norm(A.astype(np.int16), 2), NotImplementedError, "int16"),
    (lambda: F.batch_norm(A, None, None, training=True, momentum=None), TypeError, "momentum.*None"),
    (lambda: F.normalize(A, dim=3), IndexError, "dim"),
    (lambda: F.normalize(A, dim=(1, -2)), RuntimeError, "twice"),
    (lambda: F.normalize(A.astype(int)), RuntimeError, "int"),
    (lambda: F.normalize(A[:, :0], math.inf), RuntimeError, "empty"),
    (lambda: F.normalize(A, out=A), RuntimeError, "out"),
]


@pytest.mark.parametrize(("call", "error", "says"), REFUSALS)
def test_what_torch_refuses_is_refused_by_name(call, error, says):
    with pytest.raises(error, match=says):
        jax.eval_shape(call)
