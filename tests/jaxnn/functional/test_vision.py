"""Resizing, grid sampling and shuffling against torch: index arithmetic on sizes drawn at random, kinks, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import functional as F

T = torch.nn.functional


def drawn(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_same(name, arrays, options, rtol=2e-5):
    """Value and gradients of ``name`` in both libraries, pulled back from one random cotangent."""
    leaves = [torch.from_numpy(x.copy()).requires_grad_() for x in arrays]
    expected = getattr(T, name)(*leaves, **options)
    cotangent = drawn(*expected.shape, seed=9, dtype=arrays[0].dtype)
    gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(cotangent))

    @jax.jit
    def both(arrays, cotangent):
        found, pullback = jax.vjp(lambda *xs: getattr(F, name)(*xs, **options), *arrays)
        return found, *pullback(cotangent)

    for found, wanted in zip(both(arrays, cotangent), (expected, *gradients), strict=True):
        wanted = wanted.detach().numpy()
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * max(1.0, np.abs(wanted).max()))


@st.composite
def resizings(draw):
    modes = [("linear", 1), ("bilinear", 2), ("bicubic", 2), ("trilinear", 3), ("bilinear", -2), ("bicubic", -2)]
    mode, axes = draw(st.sampled_from([*modes, ("lanczos", -2)]))
    # Antialiased from 2 pixels on: torch reads the wrong row where the output is 1 pixel wide.
    options, low = {"mode": mode, "antialias": axes < 0}, 1 if axes > 0 else 2
    shape = tuple(draw(st.integers(low, 13)) for _ in range(abs(axes)))
    if mode != "lanczos":
        options["align_corners"] = draw(st.booleans())
    if draw(st.booleans()):
        options["size"] = [draw(st.integers(low, 17)) for _ in shape]
    else:
        # Never a factor that leaves a size: torch's gradient is then not that of its value.
        factors = [0.55, 0.7, 1.6, 2.0, 2.3, 3.0]
        options["scale_factor"] = [
            draw(st.sampled_from([f for f in factors if int(n * f) >= low and int(n * f) != n])) for n in shape
        ]
        options["recompute_scale_factor"] = draw(st.booleans())
    return (2, 2, *shape), options


@settings(max_examples=30, deadline=None, derandomize=True)
@given(resizings())
def test_weighted_modes_read_the_pixels_torch_reads(resizing):
    shape, options = resizing
    assert_same("interpolate", [drawn(*shape)], options)


def _nearest_cases(axes):
    # Axes are alike: all sizes are tried on one.
    for n in [*range(1, 12), 55, 57] if axes == 1 else [1, 7, 57]:
        yield from ((n, {"size": o}) for o in (1, 2, 5, n, 2 * n, 3 * n, 41, 97, 129))
        yield from ((n, {"scale_factor": s}) for s in (1.1, 1.3, 2.3, 1 / 3, 0.7) if int(n * s))


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_copies_the_pixel_torch_copies_where_rounding_decides(mode, axes, dtype):
    with jax.enable_x64(True), jax.disable_jit():
        for n, options in _nearest_cases(axes):
            x = np.broadcast_to(np.arange(n, dtype=dtype), (1, 1, *[3] * (axes - 1), n))
            if "size" in options:
                options = {"size": (*[3] * (axes - 1), options["size"])}
            expected = T.interpolate(torch.from_numpy(x.copy()), mode=mode, **options)
            np.testing.assert_array_equal(F.interpolate(x, mode=mode, **options), expected.numpy())


@pytest.mark.parametrize("options", [{"mode": "nearest"}, {"mode": "bicubic"}, {"mode": "bilinear", "antialias": True}])
@pytest.mark.parametrize("size", [(20, 9), (5, 30)])
def test_bytes_are_resized_to_the_same_bytes(options, size):
    x = np.random.default_rng(0).integers(0, 256, (1, 3, 13, 17), np.uint8)
    expected = T.interpolate(torch.from_numpy(x), size=size, **options).numpy()
    np.testing.assert_array_equal(F.interpolate(x, size=size, **options), expected)


def test_nan_stays_among_the_pixels_that_read_it():
    x = drawn(1, 1, 8, 8)
    x[0, 0, 3, 4] = np.nan
    found = F.interpolate(x, size=(13, 20), mode="bicubic")
    expected = T.interpolate(torch.from_numpy(x), size=(13, 20), mode="bicubic")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected.numpy()))


def test_infinite_edges_of_resized_images_are_torchs():
    x = drawn(1, 1, 5, 5)
    x[..., -1] = np.inf
    expected = T.interpolate(torch.from_numpy(x), size=(7, 7), mode="bilinear")
    found = F.interpolate(x, size=(7, 7), mode="bilinear")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # some pixels cancel to a fiftieth of their terms


def test_area_is_adaptive_average_pooling():
    x = drawn(1, 2, 7, 9)
    assert_same("interpolate", [x], {"scale_factor": 0.6, "mode": "area"})


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_resizing_maps_over_a_leading_axis_and_runs_forward(mode):
    x = drawn(3, 1, 2, 5, 6)
    resize = functools.partial(F.interpolate, size=(8, 4), mode=mode)
    np.testing.assert_allclose(jax.vmap(resize)(x), np.stack([resize(each) for each in x]), rtol=1e-5, atol=1e-6)
    value, tangent = jax.jvp(resize, (x[0],), (x[1],))
    np.testing.assert_allclose(tangent, resize(x[1]), rtol=1e-5, atol=1e-6)
    curvature = jax.jvp(jax.grad(lambda x: jnp.sum(resize(x) ** 3)), (x[0],), (x[1],))[1]
    expected = jax.vjp(resize, x[0])[1](6 * value * tangent)[0]
    np.testing.assert_allclose(curvature, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("error", "options", "match"),
    [
        (ValueError, {}, "one of size and scale_factor"),
        (ValueError, {"size": 3, "scale_factor": 2}, "one of size and scale_factor"),
        (ValueError, {"size": (3, 3, 3)}, "a value for each"),
        (ValueError, {"size": 3, "align_corners": True}, "align_corners"),
        (ValueError, {"size": 3, "recompute_scale_factor": True}, "recompute_scale_factor"),
        (ValueError, {"size": 3, "antialias": True}, "antialias"),
        (ValueError, {"size": 3, "mode": "lanczos"}, "antialias=True"),
        (RuntimeError, {"size": 0}, "positive"),
        (TypeError, {"size": 3.0}, "float"),
        (NotImplementedError, {"size": 3, "mode": "linear"}, "linear"),
        (NotImplementedError, {"size": 3, "mode": "cubic"}, "cubic"),
    ],
)
def test_interpolate_refuses_with_torchs_exceptions(error, options, match):
    with pytest.raises(error, match=match):
        F.interpolate(drawn(1, 1, 4, 4), **options)
    with pytest.raises(error):
        T.interpolate(torch.zeros(1, 1, 4, 4), **options)


SAMPLERS = [(2, "bilinear"), (2, "nearest"), (2, "bicubic"), (3, "bilinear"), (3, "nearest")]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(("axes", "mode"), SAMPLERS)
def test_grids_are_sampled_as_in_torch_far_outside_too(axes, mode, padding_mode, align_corners):
    x = drawn(2, 3, *(4, 5, 3)[:axes])
    grid = drawn(2, *(3, 4, 2)[:axes], axes, seed=1) * 1.5
    grid[0, 0] *= 4
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    assert_same("grid_sample", [x, grid], options, rtol=1e-4)


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_on_pixels_borders_and_half_ways_value_and_subgradient_are_torchs(mode, padding_mode, align_corners):
    ticks = np.arange(-2.0, 2.25, 0.25, dtype=np.float32)
    grid = np.stack(np.meshgrid(ticks, ticks), -1)[None]
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    for size in ((4, 4), (1, 2)) if not align_corners else ((5, 5), (1, 3)):
        assert_same("grid_sample", [drawn(1, 2, *size), grid], options, rtol=1e-4)


def test_infinite_pixels_outside_the_stencil_do_no_harm():
    x = drawn(1, 1, 4, 4)
    x[..., 0, :] = np.inf
    grid = np.array([[[[0.3, -3.0], [0.1, 0.8]]]], np.float32)
    found = F.grid_sample(x, grid, align_corners=False)
    np.testing.assert_allclose(found, T.grid_sample(torch.from_numpy(x), torch.from_numpy(grid), align_corners=False))


def test_nan_among_points_is_the_first_pixel_where_points_are_moved_into_the_image():
    x, grid = drawn(1, 2, 4, 5), np.array([[[[np.nan, 0.0], [np.inf, np.nan]]]], np.float32)
    for padding_mode in ("border", "reflection"):
        expected = T.grid_sample(*map(torch.from_numpy, (x, grid)), padding_mode=padding_mode, align_corners=True)
        found = F.grid_sample(x, grid, padding_mode=padding_mode, align_corners=True)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("error", "shapes", "options", "match"),
    [
        (ValueError, ((1, 1, 4, 4), (1, 3, 3, 2)), {"mode": "cubic"}, "got 'cubic'"),
        (ValueError, ((1, 1, 4, 4), (1, 3, 3, 2)), {"padding_mode": "circular"}, "got 'circular'"),
        (RuntimeError, ((1, 1, 4, 4), (2, 3, 3, 2)), {}, "batch=1"),
        (RuntimeError, ((1, 1, 4, 4), (1, 3, 3, 3)), {}, "2 coordinates"),
        (RuntimeError, ((1, 1, 0, 4), (1, 3, 3, 2)), {}, "pixels on every"),
        (RuntimeError, ((1, 1, 2, 4, 4), (1, 3, 3, 3, 3)), {"mode": "bicubic"}, "bicubic"),
    ],
)
def test_grid_sample_refuses_what_does_not_fit(error, shapes, options, match):
    with pytest.raises(error, match=match):
        F.grid_sample(*(np.zeros(shape, np.float32) for shape in shapes), **options)


@pytest.mark.parametrize(("batch", "channels", "points"), [(0, 2, 3), (2, 0, 3), (2, 2, 0)])
def test_no_images_no_channels_or_no_points_give_an_empty_sample(batch, channels, points):
    sampled = F.grid_sample(jnp.zeros((batch, channels, 4, 4)), jnp.zeros((batch, points, 3, 2)))
    assert sampled.shape == (batch, channels, points, 3)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 3, 2, 4)])
def test_affine_grids_are_those_of_torch(size, align_corners):
    n = len(size) - 2
    assert_same("affine_grid", [drawn(2, n, n + 1)], {"size": size, "align_corners": align_corners})


@pytest.mark.parametrize(
    ("error", "theta", "size", "match"),
    [
        (ValueError, np.zeros((2, 2, 3), np.int32), (2, 1, 4, 4), "floating point"),
        (ValueError, np.zeros((2, 2, 3), np.float32), (1, 1, 4, 4), "shape"),
        (ValueError, np.zeros((2, 2, 3), np.float32), (2, 1, 0, 4), "positive"),
        (NotImplementedError, np.zeros((2, 2, 3), np.float32), (2, 4, 4), "4 or 5"),
    ],
)
def test_affine_grid_refuses_what_does_not_fit(error, theta, size, match):
    with pytest.raises(error, match=match):
        F.affine_grid(theta, size)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 2), max_size=2), st.integers(1, 3), st.tuples(*[st.integers(0, 3)] * 3))
def test_shuffles_move_pixels_as_torch_does_and_back(batch, r, sizes):
    channels, height, width = sizes
    x = drawn(*batch, channels * r * r, height, width)
    shuffled = F.pixel_shuffle(x, r)
    np.testing.assert_array_equal(shuffled, torch.pixel_shuffle(torch.from_numpy(x), r).numpy())
    np.testing.assert_array_equal(F.pixel_unshuffle(shuffled, r), x)


@pytest.mark.parametrize("name", ["channel_shuffle", "native_channel_shuffle"])
@pytest.mark.parametrize("shape", [(2, 6, 3), (1, 12, 2, 2), (4, 6, 1, 2, 2)])
def test_channels_are_dealt_as_in_torch(name, shape):
    x = drawn(*shape)
    groups = 2 if shape[0] == 4 else 3
    expected = getattr(T, name)(torch.from_numpy(x), groups).numpy()
    np.testing.assert_array_equal(getattr(F, name)(x, groups), expected)


@pytest.mark.parametrize(
    ("name", "argument", "match"),
    [
        ("pixel_shuffle", 0, "must be positive"),
        ("pixel_shuffle", 3, "multiple of upscale_factor"),
        ("pixel_unshuffle", 5, "multiples of downscale_factor"),
        ("channel_shuffle", 3, "divide the channels"),
    ],
)
def test_shuffles_refuse_what_does_not_divide(name, argument, match):
    with pytest.raises(F.ArgumentError, match=match):
        getattr(F, name)(np.zeros((1, 4, 6, 6), np.float32), argument)
