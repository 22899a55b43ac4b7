"""Random zeroing of elements and of whole channels."""

import math
import warnings

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Key, Shaped

from jaxnn.functional import _random
from jaxnn.functional._argument import ArgumentError
from jaxnn.functional._input import widened

SELU_FLOOR = 1.7580993408473766
"""Minus the value SELU tends to below, the product of its scale and its alpha: what alpha dropout drops to."""


def check_probability(name: str, p: int | float) -> None:
    """Refuse a dropout probability outside [0, 1]."""
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"{name}: p is a probability and must lie in [0, 1], got {p}")


def dropout(
    input: Shaped[ArrayLike, "*shape"],
    p: int | float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    key: Key[Array, ""] | None = None,
) -> Shaped[Array, "*shape"]:
    r"""Zero each element with probability ``p`` and scale the rest so that the mean stays.

    .. math:: y_i = \frac{m_i}{1 - p} x_i, \quad m_i \sim \mathrm{Bernoulli}(1 - p)

    Args:
        input: any shape.
        p: probability that an element is zeroed, in [0, 1].
        training: without it ``input`` is returned as it is.
        inplace: accepted for torch's sake; without effect.
        key: a ``jax.random.key``; needed in training unless ``p`` is 0 or 1.

    Raises:
        ArgumentError: ``p`` lies outside [0, 1], a key is needed and missing, or integers are to be scaled.
        NotImplementedError: ``input`` is complex, in training.

    Source: ``torch.nn.functional.dropout``; Hinton et al. (2012).
    """
    check_probability("dropout", p)
    x = jnp.asarray(input)
    return _dropped("dropout", x, x.shape, p, training, key)


def dropout1d(
    input: Shaped[ArrayLike, "*shape"],
    p: int | float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    key: Key[Array, ""] | None = None,
) -> Shaped[Array, "*shape"]:
    """Zero whole channels of ``(N, C, L)`` or ``(C, L)`` with probability ``p``; see :func:`dropout`.

    Raises:
        ArgumentError: ``input`` has neither two nor three axes, and as :func:`dropout`.

    Source: ``torch.nn.functional.dropout1d``; Tompson et al. (2015).
    """
    check_probability("dropout1d", p)
    x = jnp.asarray(input)
    if x.ndim not in (2, 3):
        raise ArgumentError(f"dropout1d: input must be (N, C, L) or (C, L), got shape {x.shape}")
    return _batched("dropout1d", x, 3, p, training, key)


def dropout2d(
    input: Shaped[ArrayLike, "*shape"],
    p: int | float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    key: Key[Array, ""] | None = None,
) -> Shaped[Array, "*shape"]:
    """Zero whole channels of ``(N, C, H, W)`` with probability ``p``; see :func:`dropout`.

    As in torch three axes are taken for ``(N, C, L)``, with a warning, and so is any other number of axes.

    Raises:
        ArgumentError: ``input`` has fewer than two axes, and as :func:`dropout`.

    Source: ``torch.nn.functional.dropout2d``; Tompson et al. (2015).
    """
    check_probability("dropout2d", p)
    x = jnp.asarray(input)
    if x.ndim == 3:
        warnings.warn(
            "dropout2d: three axes are taken for (N, C, L); dropout1d says so without a warning", stacklevel=2
        )
    elif x.ndim != 4:
        warnings.warn(f"dropout2d: input should be (N, C, H, W), got shape {x.shape}; dropout is for any", stacklevel=2)
    return _batched("dropout2d", x, x.ndim, p, training, key)


def dropout3d(
    input: Shaped[ArrayLike, "*shape"],
    p: int | float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    key: Key[Array, ""] | None = None,
) -> Shaped[Array, "*shape"]:
    """Zero whole channels of ``(N, C, D, H, W)`` or ``(C, D, H, W)`` with probability ``p``; see :func:`dropout`.

    Any other number of axes is taken for ``(C, ...)``, with a warning, as in torch.

    Source: ``torch.nn.functional.dropout3d``; Tompson et al. (2015).
    """
    check_probability("dropout3d", p)
    x = jnp.asarray(input)
    if x.ndim not in (4, 5):
        warnings.warn(
            f"dropout3d: input should be (N, C, D, H, W), got shape {x.shape}; dropout is for any", stacklevel=2
        )
    return _batched("dropout3d", x, 5 if x.ndim == 5 else x.ndim + 1, p, training, key)


def alpha_dropout(
    input: Shaped[ArrayLike, "*shape"],
    p: int | float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    key: Key[Array, ""] | None = None,
) -> Shaped[Array, "*shape"]:
    r"""Dropout that keeps mean and variance behind SELU: what is dropped becomes SELU's least value.

    .. math:: y = a\,(m x - (1 - m)\alpha) + a\alpha p, \quad a = ((1 - p)(1 + \alpha^2 p))^{-1/2}

    Args:
        input: any shape.
        p: probability that an element is dropped, in [0, 1].
        training: without it ``input`` is returned as it is.
        inplace: accepted for torch's sake; without effect.
        key: a ``jax.random.key``; needed in training unless ``p`` is 0 or 1.

    Raises:
        ArgumentError: ``p`` lies outside [0, 1], a key is needed and missing, or integers are to be scaled.
        NotImplementedError: ``input`` is complex, in training.

    Source: ``torch.nn.functional.alpha_dropout``; Klambauer et al. (2017).
    """
    check_probability("alpha_dropout", p)
    x = jnp.asarray(input)
    return _dropped("alpha_dropout", x, x.shape, p, training, key, alpha=SELU_FLOOR)


def feature_alpha_dropout(
    input: Shaped[ArrayLike, "*shape"],
    p: int | float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    key: Key[Array, ""] | None = None,
) -> Shaped[Array, "*shape"]:
    """:func:`alpha_dropout` of whole channels of ``(N, C, ...)``.

    Raises:
        ArgumentError: ``input`` has fewer than two axes, and as :func:`alpha_dropout`.

    Source: ``torch.nn.functional.feature_alpha_dropout``.
    """
    check_probability("feature_alpha_dropout", p)
    x = jnp.asarray(input)
    return _batched("feature_alpha_dropout", x, x.ndim, p, training, key, alpha=SELU_FLOOR)


def _batched(
    name: str, x: Array, ndim: int, p: int | float, training: bool, key: Array | None, alpha: float | None = None
) -> Array:
    """Drop channels of ``x``, which lacks its batch axis where it has less than ``ndim`` axes."""
    shape = (1,) * (ndim - x.ndim) + x.shape
    if training and p > 0 and x.size and len(shape) < 2:
        raise ArgumentError(f"{name}: input must have at least two axes, (N, C, ...), got shape {x.shape}")
    noise_shape = shape[:2] + (1,) * (len(shape) - 2)
    return _dropped(name, x.reshape(shape), noise_shape, p, training, key, alpha).reshape(x.shape)


def _dropped(
    name: str,
    x: Array,
    noise_shape: tuple[int, ...],
    p: int | float,
    training: bool,
    key: Array | None,
    alpha: float | None = None,
) -> Array:
    if not training or p == 0 or not x.size:
        return x
    # Products rather than selections: torch multiplies, so that NaN and infinity stay NaN where they are dropped.
    if p == 1:
        return x * jnp.zeros((), x.dtype)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise NotImplementedError(f"{name}: input must be real to be dropped in training, got {x.dtype}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ArgumentError(f"{name}: input must be floating point to be scaled in training, got {x.dtype}")
    wide = widened(x)
    kept = _random.bernoulli(_random.required(key, name), 1.0 - p, noise_shape).astype(wide.dtype)
    if alpha is None:
        return (wide * (kept * (1.0 / (1.0 - p)))).astype(x.dtype)
    a = 1.0 / math.sqrt((alpha * alpha * p + 1) * (1 - p))
    return (wide * (kept * a) + ((kept - 1) * (alpha * a) + alpha * a * p)).astype(x.dtype)
