"""Convolution: index arithmetic against torch on shapes drawn at random, every refusal, half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import functional as F

few = settings(max_examples=4, deadline=None, derandomize=True)
T = torch.nn.functional


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_same(name, *arrays, **options):
    """Value and gradients of ``name`` in both libraries, pulled back from one random cotangent."""
    leaves = [torch.from_numpy(x.copy()).requires_grad_() for x in arrays]
    expected = getattr(T, name)(*leaves, **options)
    cotangent = drawn(*expected.shape, seed=9)
    gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(cotangent))
    found, pullback = jax.vjp(lambda *xs: getattr(F, name)(*xs, **options), *map(jnp.asarray, arrays))
    for a, b in zip((found, *pullback(jnp.asarray(cotangent))), (expected, *gradients), strict=True):
        b = b.detach().numpy()
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(b).max()))


@st.composite
def geometries(draw, transposed):
    n, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3]))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(n))

    kernel, stride, dilation = each(1, 4), each(1, 3), each(1, 2)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if transposed:
        options["padding"] = tuple(draw(st.integers(0, span)) for span in spans)
        options["output_padding"] = tuple(
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
        )
        size = [draw(st.integers(2, 5)) + 2 * p for p in options["padding"]]
        channels, weight = 2 * groups, (2 * groups, 2, *kernel)
    else:
        options["padding"] = draw(st.sampled_from(["valid", "same", None]))
        if options["padding"] == "same":
            options["stride"] = 1
        if options["padding"] is None:
            options["padding"] = each(0, 3)
        size = [span + 1 + draw(st.integers(0, 4)) for span in spans]
        channels, weight = 2 * groups, (2 * groups, 2, *kernel)
    batch = draw(st.sampled_from([(), (2,)]))
    return n, (*batch, channels, *size), weight, options


@few
@given(geometries(transposed=False))
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_convolution_of_any_geometry_has_torchs_values_and_gradients(geometry):
    n, shape, weight, options = geometry
    assert_same(f"conv{n}d", drawn(*shape), drawn(*weight, seed=1), drawn(weight[0], seed=2), **options)


@few
@given(geometries(transposed=True))
def test_transposed_convolution_of_any_geometry_has_torchs_values_and_gradients(geometry):
    n, shape, weight, options = geometry
    bias = drawn(weight[1] * options["groups"], seed=2)
    assert_same(f"conv_transpose{n}d", drawn(*shape), drawn(*weight, seed=1), bias, **options)


def test_same_padding_of_an_even_kernel_pads_one_more_on_the_right():
    ones, kernel = np.ones((1, 1, 4), np.float32), np.ones((1, 1, 4), np.float32)
    np.testing.assert_array_equal(F.conv1d(ones, kernel, padding="same")[0, 0], [3, 4, 3, 2])


def test_transposed_convolution_is_the_transpose_of_convolution_in_its_input():
    x, w, y = drawn(1, 4, 9), drawn(6, 2, 3, seed=1), drawn(1, 6, 5, seed=2)
    options = {"stride": 2, "padding": 1, "groups": 2}
    forward = jnp.vdot(F.conv1d(x, w, **options), y)
    np.testing.assert_allclose(forward, jnp.vdot(x, F.conv_transpose1d(y, w, **options)), rtol=1e-5)


@pytest.mark.parametrize("pad", [0, 2, -1])
@pytest.mark.parametrize("width", [1, 3])
def test_conv_tbc_has_torchs_values_and_gradients(pad, width):
    assert_same("conv_tbc", drawn(7, 2, 3), drawn(width, 3, 5, seed=1), drawn(5, seed=2), pad=pad)


def test_conv_tbc_of_a_kernel_one_step_too_long_is_empty():
    assert F.conv_tbc(drawn(2, 3, 4), drawn(3, 4, 5), drawn(5)).shape == (0, 3, 5)


@pytest.mark.parametrize("shape", [(0, 2, 5), (3, 0, 5)])
def test_no_images_and_no_channels_give_torchs_empty_result(shape):
    x, w = drawn(*shape), drawn(4, shape[1], 3)
    assert F.conv1d(x, w, drawn(4)).shape == tuple(T.conv1d(*map(torch.from_numpy, (x, w, drawn(4)))).shape)


REFUSED = {
    "conv1d": [
        ((3, 4, 3), {}, "must fit into the padded input"),
        ((1, 4, 2), {"padding": 1}, "must fit into the padded input"),
        ((3, 3, 7), {}, "channels"),
        ((3, 4, 7), {"groups": 2}, "channels"),
        ((3, 4, 7), {"groups": 0}, "groups"),
        ((3, 4, 7), {"groups": 5}, "groups"),
        ((3, 1, 4, 7), {}, "input must have 3 axes"),
        ((7,), {}, "input must have 3 axes"),
        ((3, 4, 7), {"stride": 0}, "stride must be positive"),
        ((3, 4, 7), {"stride": (1, 1)}, "stride must be an integer or a sequence of 1"),
        ((3, 4, 7), {"dilation": 0}, "dilation must be positive"),
        ((3, 4, 7), {"padding": -1}, "padding must not be negative"),
        ((3, 4, 7), {"padding": "full"}, "padding must be integers, 'same' or 'valid'"),
        ((3, 4, 7), {"padding": "same", "stride": 2}, "needs stride 1"),
        ((3, 4, 7), {"bias": np.ones(5, np.float32)}, "bias must have one element per output channel"),
        ((3, 4, 7), {"bias": np.ones((6, 1), np.float32)}, "bias must have one element per output channel"),
        ((3, 4, 7), {"bias": np.ones(6, np.int32)}, "one dtype"),
    ],
    "conv_transpose1d": [
        ((3, 4, 3), {}, "in_channels"),
        ((3, 6, 3), {"groups": 4}, "groups"),
        ((3, 6, 3), {"output_padding": 1}, "output_padding must be smaller"),
        ((3, 6, 3), {"output_padding": -1}, "output_padding must not be negative"),
        ((3, 6, 3), {"padding": -1}, "padding must not be negative"),
        ((3, 6, 1), {"padding": 4}, "output must have elements"),
        ((3, 6, 0), {}, "output must have elements"),
        ((3, 6, 3), {"stride": 0}, "stride must be positive"),
        ((3, 6, 3), {"bias": np.ones(6, np.float32)}, "bias must have one element per output channel"),
    ],
}


@pytest.mark.parametrize(
    ("name", "shape", "options", "why"), [(n, *case) for n, cases in REFUSED.items() for case in cases]
)
def test_what_torch_refuses_is_refused_while_tracing_with_the_reason(name, shape, options, why):
    function, x, w = getattr(F, name), jax.ShapeDtypeStruct(shape, jnp.float32), drawn(6, 4, 5)
    with pytest.raises(F.ArgumentError, match=why):
        jax.eval_shape(lambda x: function(x, w, **options), x)
    tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    with pytest.raises(RuntimeError):
        getattr(T, name)(torch.zeros(shape), torch.from_numpy(w), **tensors)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_accumulated_in_single(name, dtype):
    x, w = (
        jax.random.uniform(jax.random.key(i), s).astype(dtype) for i, s in enumerate([(1, 512, 5, 5), (512, 512, 3, 3)])
    )
    found = getattr(F, name)(x, w)
    exact = getattr(F, name)(x.astype(jnp.float32), w.astype(jnp.float32))
    assert found.dtype == dtype
    # Half a unit in the last place is the rounding of the result; sums in half precision would be off by far more.
    assert jnp.max(jnp.abs(found.astype(jnp.float32) / exact - 1)) < 0.6 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["conv1d", "conv_transpose1d"])
def test_vmap_jit_and_second_derivatives_agree_with_plain_calls(name):
    function, x, w = getattr(F, name), jnp.asarray(drawn(3, 2, 4, 6)), jnp.asarray(drawn(4, 4, 3))
    mapped = jax.jit(jax.vmap(function, (0, None)))(x, w)
    np.testing.assert_allclose(mapped, jnp.stack([function(image, w) for image in x]), rtol=1e-5, atol=1e-5)
    # y is linear in w, so the Hessian of sum(y**3) along v is the gradient of sum(6 y**2 Jv / 2), with Jv = y(v).
    v, image = jnp.asarray(drawn(4, 4, 3, seed=1)), x[0]
    slope = jax.grad(lambda w: jnp.sum(function(image, w) ** 3))
    along = jax.jit(jax.grad(lambda w: jnp.vdot(slope(w), v)))(w)
    expected = jax.grad(lambda w: jnp.sum(3 * function(image, w) ** 2 * function(image, v)))(w)
    np.testing.assert_allclose(along, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_integers_and_complex_numbers_convolve_exactly(name):
    rng = np.random.default_rng(0)
    x, w = rng.integers(-3, 4, (2, 3, 5, 5)), rng.integers(-3, 4, (3, 3, 2, 2))
    expected = getattr(T, name)(torch.from_numpy(x), torch.from_numpy(w)).numpy()
    np.testing.assert_array_equal(getattr(F, name)(x.astype(np.int32), w.astype(np.int32)), expected)
    turned = getattr(F, name)(x.astype(np.complex64), (1j * w).astype(np.complex64))
    np.testing.assert_allclose(turned, 1j * expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype"), [("conv1d", bool), ("conv_transpose1d", bool), ("conv_transpose1d", np.int8)]
)
def test_dtypes_torch_does_not_convolve_are_refused(name, dtype):
    with pytest.raises(NotImplementedError, match=np.dtype(dtype).name):
        getattr(F, name)(np.ones((1, 1, 4), dtype), np.ones((1, 1, 2), dtype))
