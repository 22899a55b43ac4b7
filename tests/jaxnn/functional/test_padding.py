"""Padding: every mode against torch on widths drawn at random, crops too, and what torch refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import functional as F

MODES = ("constant", "reflect", "replicate", "circular")


def numbered(*shape, dtype=np.float32):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def outcome(function, *arguments):
    """What a call gives, or that it refuses."""
    try:
        return np.asarray(function(*arguments))
    except (RuntimeError, NotImplementedError):
        return "refused"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_every_mode_pads_crops_and_refuses_as_torch_does(data):
    mode = data.draw(st.sampled_from(MODES))
    axes = data.draw(st.integers(1, 3))
    leading = data.draw(st.sampled_from([(1,), (2, 1)]))
    shape = (*leading, *(data.draw(st.integers(1, 5)) for _ in range(axes)))
    widths = [data.draw(st.integers(-3, 5)) for _ in range(2 * axes)]
    x = numbered(*shape)
    expected = outcome(lambda: torch.nn.functional.pad(torch.from_numpy(x), widths, mode).numpy())
    found = outcome(lambda: F.pad(x, widths, mode))
    if mode == "circular" and isinstance(found, str) and not isinstance(expected, str):
        # Where a wrap is wider than what a crop left, torch reads memory it has not yet written.
        left = [n + min(a, 0) + min(b, 0) for n, a, b in zip(shape[::-1], widths[::2], widths[1::2], strict=False)]
        assert any(max(a, b) > n for n, a, b in zip(left, widths[::2], widths[1::2], strict=True))
        return
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_counts_how_often_an_element_is_repeated(mode):
    x, widths = numbered(1, 2, 4, 5), (2, -1, 3, 1)
    leaf = torch.from_numpy(x).requires_grad_()
    torch.nn.functional.pad(leaf, widths, mode).square().sum().backward()
    found = jax.grad(lambda x: jnp.sum(F.pad(x, widths, mode) ** 2))(jnp.asarray(x))
    np.testing.assert_array_equal(found, leaf.grad.numpy())


def test_constant_pads_any_axis_of_any_dtype():
    for dtype, value in ((bool, 2.0), (np.int8, -3.9), (np.uint8, 255.0), (np.complex64, 1.5), (np.float16, 7.0)):
        x = numbered(2, 3, dtype=dtype)
        found = F.pad(x, (1, 0, 0, 2), "constant", value)
        expected = torch.nn.functional.pad(torch.from_numpy(x), (1, 0, 0, 2), "constant", value).numpy()
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.uint8, -1.0), (np.int8, 128.0), (np.float16, 1e6), (np.int32, np.nan)]
)
def test_a_fill_that_the_dtype_cannot_hold_is_refused(dtype, value):
    with pytest.raises(F.ArgumentError, match="value="):
        F.pad(numbered(2, 3, dtype=dtype), (1, 1), "constant", value)


def test_empty_batch_is_padded_and_empty_channels_are_refused():
    assert F.pad(np.zeros((0, 2, 5), np.float32), (1, 1), "reflect").shape == (0, 2, 7)
    with pytest.raises(F.ArgumentError, match="at least 1 element"):
        F.pad(np.zeros((2, 0, 5), np.float32), (1, 1), "reflect")


@pytest.mark.parametrize(
    ("error", "arguments", "match"),
    [
        (F.ArgumentError, ((1,),), "two widths"),
        (F.ArgumentError, ((1,) * 6,), "two widths"),
        (F.ArgumentError, ((-2, -2),), "crop more than"),
        (F.ArgumentError, ((3, 0), "reflect"), "below the axis' 3"),
        (F.ArgumentError, ((4, 0), "circular"), "wraps around once"),
        (F.ArgumentError, ((1, 1), "reflect", 1.0), "mode='constant' only"),
        (NotImplementedError, ((1, 1, 1, 1), "reflect"), "1 or 2 more axes"),
        (NotImplementedError, ((1, 1), "mirror"), "got 'mirror'"),
        (TypeError, (1,), "sequence of integers"),
        (TypeError, ((1.0, 1),), "float"),
    ],
)
def test_refusals_name_the_argument(error, arguments, match):
    with pytest.raises(error, match=match):
        F.pad(numbered(2, 3), *arguments)


def test_circular_wraps_what_a_crop_left_and_reflection_sees_what_it_took():
    x = numbered(1, 5)
    np.testing.assert_array_equal(F.pad(x, (-2, 3), "circular"), [[2, 3, 4, 2, 3, 4]])
    np.testing.assert_array_equal(F.pad(x, (-3, 4), "reflect"), [[3, 4, 3, 2, 1, 0]])


@pytest.mark.parametrize("mode", MODES)
def test_a_vmapped_axis_is_not_padded(mode):
    x = numbered(3, 1, 2, 4)
    found = jax.jit(jax.vmap(lambda x: F.pad(x, (1, 2), mode)))(x)
    np.testing.assert_array_equal(found, np.stack([F.pad(row, (1, 2), mode) for row in x]))
