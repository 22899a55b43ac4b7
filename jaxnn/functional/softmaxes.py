"""Softmax and its kin."""

import warnings
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Key, Shaped

from jaxnn.functional import _random
from jaxnn.functional._argument import ArgumentError
from jaxnn.functional._input import checked_axis, floating, widened


def softmax(
    input: Shaped[ArrayLike, "*shape"], dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None
) -> Float[Array, "*shape"]:
    r"""Exponentials, scaled to sum to one along an axis.

    .. math:: y_i = \frac{e^{x_i}}{\sum_j e^{x_j}}

    Args:
        input: any shape. A slice that is all minus infinity, or holds infinity, gives NaN.
        dim: the axis that sums to one. Leaving it out is deprecated, as in torch: axis 0 of a scalar and of one or
            three axes, else axis 1, with a warning.
        _stacklevel: to which caller that warning is attributed.
        dtype: cast ``input`` to it first; the result has it. Needed where ``input`` is not floating point.

    Raises:
        IndexError: ``input`` has no axis ``dim``.
        NotImplementedError: ``input``, or ``dtype`` where it is given, is not floating point.

    Source: ``torch.nn.functional.softmax``.
    """
    return _along("softmax", _softmax, jnp.asarray(input), dim, _stacklevel, dtype)


def softmin(
    input: Shaped[ArrayLike, "*shape"], dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None
) -> Float[Array, "*shape"]:
    r""":func:`softmax` of the negated input.

    .. math:: y_i = \frac{e^{-x_i}}{\sum_j e^{-x_j}}

    Args:
        input: any shape; unsigned integers wrap round when negated, as in torch.
        dim: the axis that sums to one; see :func:`softmax`.
        _stacklevel: to which caller the warning about a missing ``dim`` is attributed.
        dtype: cast the negated input to it first; the result has it.

    Raises:
        ArgumentError: ``input`` is boolean.
        IndexError: ``input`` has no axis ``dim``.
        NotImplementedError: ``input``, or ``dtype`` where it is given, is not floating point.

    Source: ``torch.nn.functional.softmin``.
    """
    input = jnp.asarray(input)
    if input.dtype == jnp.bool_:
        raise ArgumentError(f"softmin: input must have a negative, got {input.dtype}")
    return _along("softmin", _softmax, -input, dim, _stacklevel, dtype)


def log_softmax(
    input: Shaped[ArrayLike, "*shape"], dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None
) -> Float[Array, "*shape"]:
    r"""Logarithm of :func:`softmax`, without its underflow.

    .. math:: y_i = x_i - \log \sum_j e^{x_j}

    Args:
        input: any shape. A slice that is all minus infinity, or holds infinity, gives NaN.
        dim: the axis whose exponentials sum to one; see :func:`softmax`.
        _stacklevel: to which caller the warning about a missing ``dim`` is attributed.
        dtype: cast ``input`` to it first; the result has it. Needed where ``input`` is not floating point.

    Raises:
        IndexError: ``input`` has no axis ``dim``.
        NotImplementedError: ``input``, or ``dtype`` where it is given, is not floating point.

    Source: ``torch.nn.functional.log_softmax``.
    """
    return _along("log_softmax", _log_softmax, jnp.asarray(input), dim, _stacklevel, dtype)


def gumbel_softmax(
    logits: Float[ArrayLike, "*shape"],
    tau: float = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "*shape"]:
    r"""Differentiable sample from a categorical distribution.

    .. math:: y = \mathrm{softmax}\left(\frac{x + g}{\tau}\right), \quad g_i = -\log e_i, \quad e_i \sim \mathrm{Exp}(1)

    Args:
        logits: any shape; unnormalized log-probabilities along ``dim``.
        tau: temperature; towards 0 the sample approaches one-hot.
        hard: return the one-hot vector of the largest element, with the gradient of the soft sample.
        eps: without effect, in torch too.
        dim: the axis of the categories.
        key: a ``jax.random.key``.

    Raises:
        IndexError: ``logits`` has no axis ``dim``, or with ``hard`` that axis is empty.
        NotImplementedError: ``logits`` is not floating point.
        ArgumentError: the key is missing.

    Source: ``torch.nn.functional.gumbel_softmax``; Jang et al. (2017), Maddison et al. (2017).
    """
    if eps != 1e-10:
        warnings.warn("gumbel_softmax: eps is deprecated and has no effect", stacklevel=2)
    logits = floating("gumbel_softmax", logits)
    axis = checked_axis("gumbel_softmax", dim, logits.ndim)
    x = jnp.atleast_1d(widened(logits))
    # A draw of zero, which has a probability in floating point, would be an infinite logit.
    draws = _random.exponential(_random.required(key, "gumbel_softmax"), logits.shape, x.dtype)
    gumbels = -jnp.log(jnp.maximum(draws, jnp.finfo(x.dtype).tiny)).reshape(x.shape)
    soft = _softmax((x + gumbels) / tau, axis)
    if hard:
        if x.shape[axis] == 0:
            raise IndexError(f"gumbel_softmax: axis {dim} of logits must not be empty, got shape {logits.shape}")
        largest = jnp.argmax(soft, axis, keepdims=True) == lax.broadcasted_iota(jnp.int32, x.shape, axis)
        soft = largest.astype(x.dtype) + (soft - lax.stop_gradient(soft))
    return soft.reshape(logits.shape).astype(logits.dtype)


def softmax_tangent(weights: Float[Array, "..."], tangent: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """How ``weights``, a softmax, change with what they are made of."""
    # What a slice has in common cancels here exactly; in the derivative of a quotient it would leave rounding behind.
    return weights * (tangent - jnp.sum(weights * tangent, axis, keepdims=True))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _softmax(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    return jax.nn.softmax(x, axis)


@_softmax.defjvp
def _softmax_jvp(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    weights = _softmax(*primals, axis)
    return weights, softmax_tangent(weights, *tangents, axis)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_softmax(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    return jax.nn.log_softmax(x, axis)


@_log_softmax.defjvp
def _log_softmax_jvp(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # From the result alone, as torch does: one array is kept for the way back.
    (tangent,), output = tangents, _log_softmax(*primals, axis)
    return output, tangent - jnp.sum(jnp.exp(output) * tangent, axis, keepdims=True)


def _along(
    name: str,
    function: Callable[[Float[Array, "..."], int], Float[Array, "..."]],
    input: Shaped[Array, "*shape"],
    dim: int | None,
    stacklevel: int,
    dtype: DTypeLike | None,
) -> Float[Array, "*shape"]:
    if dim is None:
        warnings.warn(f"{name}: choosing dim by the number of axes is deprecated; pass dim", stacklevel=stacklevel)
        dim = 0 if input.ndim in (0, 1, 3) else 1
    axis = checked_axis(name, dim, input.ndim)
    if dtype is not None:
        complex_to_real = jnp.iscomplexobj(input) and not jnp.issubdtype(dtype, jnp.complexfloating)
        input = (input.real if complex_to_real else input).astype(dtype)
    if not input.size:
        return input  # torch does not look at the dtype of nothing
    input = floating(name, input)
    return function(jnp.atleast_1d(widened(input)), axis).reshape(input.shape).astype(input.dtype)
