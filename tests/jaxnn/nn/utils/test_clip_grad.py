import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn import optim

GRADS = {"a": np.array([[3.0, -4.0], [0.5, 0.0]], np.float32), "b": np.array([1.0, 2.0, -2.0], np.float32)}


def in_torch(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    params = [torch.zeros(value.shape, dtype=dtype) for value in GRADS.values()]
    for param, value in zip(params, GRADS.values(), strict=True):
        param.grad = torch.tensor(value).to(dtype)
    return params


@pytest.mark.parametrize("max_norm", [1.0, 100.0])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, 0.0, math.inf, -math.inf])
def test_the_norm_and_the_clipped_gradients_are_torchs(max_norm: float, norm_type: float):
    params = in_torch()
    total = torch.nn.utils.clip_grad_norm_(params, max_norm, norm_type)
    clipped, norm = jax.jit(lambda grads: optim.clip_grad_norm_(grads, max_norm, norm_type))(GRADS)
    np.testing.assert_allclose(norm, total, rtol=1e-6)
    for ours, theirs in zip(clipped.values(), params, strict=True):
        np.testing.assert_allclose(ours, theirs.grad, rtol=1e-6)


def test_complex_and_half_gradients_are_clipped_together():
    grads = {"a": jnp.asarray([3 + 4j], jnp.complex64), "b": jnp.asarray([12.0], jnp.bfloat16)}
    clipped, norm = optim.clip_grad_norm_(grads, 6.5)
    assert float(norm) == 13
    np.testing.assert_allclose(clipped["a"], [1.5 + 2j], rtol=1e-6)
    assert clipped["b"].dtype == jnp.bfloat16
    assert float(clipped["b"][0]) == 6


def test_a_norm_that_is_not_finite_is_refused_or_nan():
    grads = jnp.asarray([jnp.inf, 1.0])
    with pytest.raises(ValueError, match="is not finite"):
        optim.clip_grad_norm_(grads, 1.0, error_if_nonfinite=True)
    traced, _ = jax.jit(lambda g: optim.clip_grad_norm_(g, 1.0, error_if_nonfinite=True))(grads)
    assert np.isnan(traced).all()


def test_no_gradients_have_norm_zero():
    assert float(optim.clip_grad_norm_({}, 1.0)[1]) == 0


def test_values_are_clamped_as_torchs():
    params = in_torch()
    torch.nn.utils.clip_grad_value_(params, 1.5)
    for ours, theirs in zip(optim.clip_grad_value_(GRADS, 1.5).values(), params, strict=True):
        np.testing.assert_array_equal(ours, theirs.grad)
    with pytest.raises(TypeError, match="must be real"):
        optim.clip_grad_value_(jnp.ones(2, jnp.complex64), 1.0)
