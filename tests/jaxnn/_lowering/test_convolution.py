import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

from jaxnn._lowering import columns, convolution_cpu, dense, folded, pointwise, portions, taps, winograd
from jaxnn._lowering.convolution import convolution, image_gradient
from jaxnn._lowering.geometry import Geometry


@st.composite
def problems(draw):
    """A geometry, counts of images and channels, and a seed."""
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    axis = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(-1, 2), st.integers(1, 2))
    axes = draw(st.lists(axis, min_size=rank, max_size=rank))
    if draw(st.booleans()):  # blocks
        axes = [(kernel, kernel, 0, 0, 1) for kernel, *_ in axes]
    kernels, strides, befores, afters, dilations = (tuple(values) for values in zip(*axes, strict=True))
    spans = [d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True)]
    sizes = tuple(span + draw(st.integers(1, 6)) for span in spans)
    geometry = Geometry(sizes, kernels, strides, tuple(zip(befores, afters, strict=True)), dilations, groups)
    return geometry, [draw(st.integers(1, 3)) for _ in range(3)], draw(st.integers(0, 9))


def arrays(geometry, counts, seed):
    """Images, a kernel and weights of the outputs; ``counts`` are images and a group's inputs and outputs."""
    rng, (images, inputs, outputs) = np.random.default_rng(seed), counts
    x = jnp.asarray(rng.normal(size=(images, inputs * geometry.groups, *geometry.sizes)))
    w = jnp.asarray(rng.normal(size=(outputs * geometry.groups, inputs, *geometry.kernel_size)))
    y = jnp.asarray(rng.normal(size=(images, outputs * geometry.groups, *geometry.outputs)))
    return x, w, y


def plain(geometry):
    """XLA's own convolution."""
    return partial(
        lax.conv_general_dilated,
        window_strides=geometry.strides,
        padding=geometry.pads,
        rhs_dilation=geometry.dilations,
        feature_group_count=geometry.groups,
    )


@given(problem=problems(), few=st.sampled_from([0, 64]), memory=st.sampled_from([1, 2000, 2**23]))
@settings(max_examples=6, deadline=None)
def test_every_algorithm_is_xlas_convolution_and_its_transposes(problem, few, memory):
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(convolution_cpu, "FEW_TERMS", few)
        patch.setattr(convolution_cpu, "THIN_TERMS", few)
        patch.setattr(convolution_cpu, "FEW_OUTPUTS", few)
        patch.setattr(pointwise, "MANY_OUTPUTS", few or 512)
        patch.setattr(pointwise, "SOME_OUTPUTS", few)
        patch.setattr(pointwise, "SMALL", few)
        patch.setattr(taps, "LITTLE", few)
        patch.setattr(columns, "SOME_PLACES", 1 + few)
        patch.setattr(convolution_cpu, "WASTE", 1 + few)
        patch.setattr(convolution_cpu, "SOME_CHANNELS", few)
        patch.setattr(convolution_cpu, "LONG_STRIDE", 2 + few)
        patch.setattr(convolution_cpu, "LONG", 1 + few)
        patch.setattr(dense, "TERMS", 0)
        patch.setattr(dense, "WORK", 0)
        patch.setattr(portions, "LEAST_BYTES", memory)
        patch.setattr(dense, "ROW_BYTES", memory)
        geometry, *_ = problem
        x, w, y = arrays(*problem)
        expected, transposes = jax.vjp(plain(geometry), x, w)
        by_image, by_kernel = transposes(y)
        operators = [convolution_cpu.convolution, convolution_cpu.image_gradient, convolution_cpu.kernel_gradient]
        for operator, args, theirs in zip(
            operators, [(x, w), (y, w), (x, y)], (expected, by_image, by_kernel), strict=True
        ):
            ours = jax.jit(partial(operator, geometry=geometry))(*args)
            if ours is not None:
                np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("small", [0, 2**14])
@pytest.mark.parametrize(("strides", "groups"), [((1, 1), 1), ((2, 3), 1), ((1, 2), 3)])
def test_pointwise_products_are_xlas_convolution_and_its_transposes(small, strides, groups, monkeypatch):
    monkeypatch.setattr(pointwise, "SMALL", small)
    geometry = Geometry((5, 7), (1, 1), strides, ((0, 0),) * 2, (1, 1), groups)
    with jax.enable_x64(True):
        x, w, y = arrays(geometry, (2, 3, 2), 0)
        expected, transposes = jax.vjp(plain(geometry), x, w)
        results = pointwise.convolution(x, w, geometry), pointwise.image_gradient(y, w, geometry)
        for ours, theirs in zip(results, (expected, transposes(y)[0]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(pointwise.kernel_gradient(x, y, geometry), transposes(y)[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "pads"), [(16, (8, 8)), (37, (25, -3))])
def test_a_folded_kernel_gives_xlas_convolution_and_its_transposes(kernel, pads, monkeypatch):
    monkeypatch.setattr(convolution_cpu, "FEW_TERMS", 0)
    geometry = Geometry((50,), (kernel,), (1,), (pads,), (1,), 2)
    assert folded.suits(geometry)
    with jax.enable_x64(True):
        x, w, y = arrays(geometry, (2, 3, 4), 0)
        expected, transposes = jax.vjp(plain(geometry), x, w)
        operators = [convolution_cpu.convolution, convolution_cpu.image_gradient, convolution_cpu.kernel_gradient]
        for operator, args, theirs in zip(operators, [(x, w), (y, w), (x, y)], (expected, *transposes(y)), strict=True):
            ours = jax.jit(partial(operator, geometry=geometry))(*args)
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@given(
    problem=problems(),
    lead=st.integers(0, 3),
    small=st.sampled_from([0, 2**14]),
    memory=st.sampled_from([1, 500, 2**23]),
)
@settings(max_examples=6, deadline=None)
def test_every_cut_of_a_kernel_gives_xlas_convolution_and_its_transposes(problem, lead, small, memory):
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(taps, "leading_axes", lambda geometry, *_: min(lead, len(geometry.sizes)))
        patch.setattr(taps, "SMALL", small)
        patch.setattr(taps, "SMALL_GRADIENT", small)
        patch.setattr(taps, "MANY_OUTPUTS", small + 1)
        patch.setattr(portions, "LEAST_BYTES", memory)
        patch.setattr(portions, "SHARE", 0)
        patch.setattr(taps, "CACHED_BYTES", memory)
        geometry, *_ = problem
        x, w, y = arrays(*problem)
        expected, transposes = jax.vjp(plain(geometry), x, w)
        operators = [taps.convolution, taps.image_gradient, taps.kernel_gradient]
        for operator, args, theirs in zip(operators, [(x, w), (y, w), (x, y)], (expected, *transposes(y)), strict=True):
            ours = jax.jit(partial(operator, geometry=geometry))(*args)
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("images_at_once", [1, 3])
@pytest.mark.parametrize("pads", [((1, 1), (1, 1)), ((0, 2), (3, 0)), ((-1, 1), (0, -2))])
def test_filtered_tiles_are_xlas_convolution_and_its_transposes(pads, images_at_once, monkeypatch):
    monkeypatch.setattr(winograd, "_step", lambda *_, **__: images_at_once)
    geometry = Geometry((7, 8), (3, 3), (1, 1), pads, (1, 1))
    with jax.enable_x64(True):
        x, w, y = arrays(geometry, (3, 4, 5), 0)
        expected, transposes = jax.vjp(plain(geometry), x, w)
        of_images, of_kernel = transposes(y)
        transposed = geometry._replace(sizes=geometry.outputs, pads=geometry.transposed_pads)
        for operator, args, its_geometry, theirs in [
            (winograd.convolution, (x, w), geometry, expected),
            (winograd.image_gradient, (y, w), transposed, of_images),
            (winograd.kernel_gradient, (x, y), geometry, of_kernel),
        ]:
            ours = jax.jit(partial(operator, geometry=its_geometry))(*args)
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_filtered_tiles_err_at_most_four_times_as_much_as_torch():
    geometry = Geometry((14, 14), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    with jax.enable_x64(True):
        x, w, y = arrays(geometry, (4, 256, 256), 1)
        exact, transposes = jax.vjp(plain(geometry), x, w)
        exact_gradient = transposes(y)[1]
        x, w, y = (a.astype(jnp.float32) for a in (x, w, y))
        assert winograd.suits(x, 256, geometry)
        assert winograd.suits_gradient(x, 256, geometry)
        ours = winograd.convolution(x, w, geometry), winograd.kernel_gradient(x, y, geometry)
    images, kernel, weights = map(torch.tensor, (x, w, y))
    theirs = (
        torch.nn.functional.conv2d(images, kernel, padding=1),
        torch.nn.grad.conv2d_weight(images, kernel.shape, weights, padding=1),
    )
    for one, other, true in zip(ours, theirs, (exact, exact_gradient), strict=True):
        error, torchs = (np.linalg.norm(np.asarray(a, np.float64) - np.asarray(true)) for a in (one, other))
        assert error <= 4 * torchs  # torch's own error depends on the machine, by three times as measured


def test_tiles_are_filtered_where_that_pays():
    def suited(images=8, inputs=64, outputs=64, dtype=jnp.float32, **changes):
        geometry = Geometry((56, 56), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))._replace(**changes)
        return winograd.suits(jnp.zeros((images, inputs, *geometry.sizes), dtype), outputs, geometry)

    assert suited()
    assert not suited(strides=(2, 2))
    assert not suited(outputs=32)
    assert not suited(images=7)  # one has too few products, seven have too many tiles
    with jax.enable_x64(True):
        assert not suited(dtype=jnp.float64)


def test_both_ways_go_by_taps_where_they_copy_little_though_tiles_would_suit(monkeypatch):
    gone = []
    for module, name in itertools.product((winograd, taps), ("convolution", "image_gradient")):
        monkeypatch.setattr(module, name, lambda x, *_, module=module: gone.append(module) or x)
    geometry = Geometry((14, 14), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    x, w, y = arrays(geometry, (8, 64, 1024), 0)
    x, w, y = (a.astype(jnp.float32) for a in (x, w, y))
    assert winograd.suits(x, 1024, geometry)
    convolution_cpu.convolution(x, w, geometry=geometry)
    convolution_cpu.image_gradient(y, w, geometry=geometry)
    assert gone == [taps, taps]


def test_a_kernel_is_cut_where_the_least_is_copied():
    geometry = Geometry((64, 64), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    assert taps.leading_axes(geometry, 64, 64) == 1
    assert taps.leading_axes(geometry, 64, 8) == 2
    assert taps.leading_axes(geometry, 4, 64) == 0
    assert taps.leading_axes(geometry._replace(strides=(2, 2)), 24, 48) == 0  # each phase copies its own rows


def test_little_is_copied_where_channels_are_few_on_either_side():
    geometry = Geometry((64, 64), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    assert taps.copies_little(3, 64, geometry)
    assert taps.copies_little(64, 1, geometry)
    assert not taps.copies_little(64, 64, geometry)


def test_a_long_stride_never_falls_to_xla_which_would_multiply_its_zeros():
    def classes(geometry, inputs, outputs):
        kernel = jax.ShapeDtypeStruct((outputs, inputs, *geometry.kernel_size), jnp.float32)
        weights = jax.ShapeDtypeStruct((2, outputs, *geometry.outputs), jnp.float32)
        return jax.eval_shape(partial(convolution_cpu.image_gradient, geometry=geometry), weights, kernel)

    vocoder = Geometry((131072,), (1024,), (256,), ((0, 0),), (1,))
    assert classes(vocoder, 64, 128) is not None
    assert classes(vocoder._replace(kernel_size=(1023,), dilations=(2,)), 64, 128) is not None
    dilated = Geometry((64, 64), (4, 4), (2, 2), ((3, 3), (3, 3)), (2, 2))
    assert classes(dilated, 64, 16) is None


def kernel_gradient(x, y, geometry):
    """What the transpose of the convolution in its kernel makes of weights ``y`` of the outputs."""
    kernel = jnp.zeros((y.shape[1], x.shape[1] // geometry.groups, *geometry.kernel_size), x.dtype)
    return jax.linear_transpose(lambda w: convolution(x, w, geometry), kernel)(y)[0]


GEOMETRIES = {
    "plain": (Geometry((6, 5), (3, 2), (1, 1), ((1, 1), (0, 1)), (1, 2)), 3, 2),
    "strided": (Geometry((7, 6), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)), 2, 3),
    "depthwise": (Geometry((6, 6), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 4), 1, 1),
    "pointwise": (Geometry((4, 4), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)), 3, 2),
}


def drawn(name, seed):
    geometry, inputs, outputs = GEOMETRIES[name]
    return geometry, *arrays(geometry, (2, inputs, outputs), seed)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_all_three_differentiate_twice_forward_and_backward(name):
    with jax.enable_x64(True):
        geometry, x, w, y = drawn(name, 0)
        for function, args in ((convolution, (x, w)), (image_gradient, (y, w)), (kernel_gradient, (x, y))):
            check_grads(lambda *a, f=function: f(*map(jnp.asarray, a), geometry), args, order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("axes", [(0, None), (None, 1), (2, 0)])
def test_vmap_over_either_operand_is_the_stack_of_calls(name, axes):
    with jax.enable_x64(True):
        geometry, *first = drawn(name, 0)
        _, *second = drawn(name, 1)
        pairs = [(convolution, 0, 1), (image_gradient, 2, 1), (kernel_gradient, 0, 2)]
        for function, i, j in pairs:
            many = [np.stack([first[k], second[k]]) for k in (i, j)]
            given_axes = list(zip(many, axes, strict=True))
            args = [jnp.asarray(m[0] if axis is None else np.moveaxis(m, 0, axis)) for m, axis in given_axes]
            each = [
                function(*(jnp.asarray(m[0 if axis is None else row]) for m, axis in given_axes), geometry)
                for row in range(2)
            ]
            mapped = jax.vmap(lambda a, b, f=function: f(a, b, geometry), in_axes=axes)(*args)
            np.testing.assert_allclose(mapped, np.stack(each), rtol=1e-12, atol=1e-12)


def test_half_precision_is_summed_in_single():
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(1, 512, 5)), rng.normal(size=(4, 512, 3))
    geometry = Geometry((5,), (3,), (1,), ((1, 1),), (1,))
    half = [jnp.asarray(a, jnp.bfloat16) for a in (x, w)]
    exact = plain(geometry)(*(a.astype(jnp.float32) for a in half), precision=lax.Precision.HIGHEST)
    result = convolution(*half, geometry)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_elsewhere_than_on_a_cpu_it_is_one_convolution(platform):
    geometry, x, w, _ = drawn("plain", 3)
    gradients = jax.grad(lambda x, w: convolution(x, w, geometry).sum(), argnums=(0, 1))
    for function in (lambda x, w: convolution(x, w, geometry), gradients):
        args = x.astype(jnp.float32), w.astype(jnp.float32)
        text = jax.export.export(jax.jit(function), platforms=[platform])(*args).mlir_module()
        assert "stablehlo.convolution" in text
        assert "dot_general" not in text


def test_a_program_for_several_platforms_holds_a_branch_for_each():
    geometry, x, w, _ = drawn("pointwise", 4)
    args = x.astype(jnp.float32), w.astype(jnp.float32)
    exported = jax.export.export(jax.jit(lambda x, w: convolution(x, w, geometry)), platforms=["cpu", "tpu"])(*args)
    assert "stablehlo.convolution" in exported.mlir_module()
    assert "dot_general" in exported.mlir_module()
    np.testing.assert_allclose(exported.call(*args), plain(geometry)(*args), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (64, 1), (64, 64)])
def test_a_program_may_leave_the_number_of_images_open(channels, groups):
    geometry = Geometry((56, 56), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), groups)
    x, w, _ = (a.astype(jnp.float32) for a in arrays(geometry, (1, channels // groups, channels // groups), 6))
    (count,) = jax.export.symbolic_shape("count")
    gradients = jax.jit(jax.grad(lambda x, w: jnp.sum(convolution(x, w, geometry) ** 2), argnums=(0, 1)))
    exported = jax.export.export(gradients)(jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), w)
    for ours, theirs in zip(exported.call(x, w), gradients(x, w), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(jnp.abs(theirs).max()))


def test_gradients_within_shard_map_are_summed_over_its_axis():
    """The kernel is whole on every device: its gradient is a sum over them, which JAX knows from types."""
    geometry, x, w, y = drawn("plain", 5)
    mesh = jax.make_mesh((1,), ("images",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec("images"), PartitionSpec()

    def gradient(x, w, y):
        return jax.grad(lambda w: jnp.sum(convolution(x, w, geometry) * y))(w)

    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(split, whole, split), out_specs=whole)
    np.testing.assert_allclose(mapped(x, w, y), gradient(x, w, y), rtol=1e-5, atol=1e-5)


def test_channels_lie_last_on_a_cpu_where_a_loop_would_be_slow_without():
    x, w = jnp.ones((2, 64, 40, 40)), jnp.ones((64, 64, 3, 3))
    geometry = Geometry((40, 40), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    program = jax.jit(convolution, static_argnums=2).trace(x, w, geometry).lower(lowering_platforms=("cpu",)).as_text()
    layouts = re.findall(r"dim_numbers = \[(.*?)\]x", program)
    assert set(layouts) == {"b, 0, 1, f"}


@pytest.mark.parametrize("sizes", [(12, 8), (8, 12)])
def test_a_row_or_column_more_is_computed_and_dropped(sizes):
    geometry = Geometry(sizes, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    x, w, _ = arrays(geometry, (2, dense.SOME_CHANNELS, dense.SOME_CHANNELS), 0)
    axis, more = dense._beyond(w, geometry)
    assert (axis, more) == (sizes.index(12), 1)
    expected = lax.conv_general_dilated(x, w, (1, 1), geometry.pads)
    np.testing.assert_allclose(dense.convolution(x, w, geometry), expected, rtol=1e-4, atol=1e-4)
    narrow = Geometry(sizes, (6, 6), (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    assert dense._beyond(w, narrow)[1] == 0  # as many more as there are do not pay
    assert dense._beyond(w[:3], geometry)[1] == 0  # nor do they for few channels
