"""Random zeroing of elements and of whole channels."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Key

from jaxnn.functional import _random
from jaxnn.functional._argument import ArgumentError


def check_probability(name: str, p: float) -> None:
    """Refuse a dropout probability outside [0, 1]."""
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"{name}: p is a probability and must lie in [0, 1], got {p}")


def dropout(
    input: Inexact[ArrayLike, "*shape"],
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    key: Key[Array, ""] | None = None,
) -> Inexact[Array, "*shape"]:
    r"""Zero each element with probability ``p`` and scale the rest so that the mean stays.

    .. math:: y_i = \frac{m_i}{1 - p} x_i, \quad m_i \sim \mathrm{Bernoulli}(1 - p)

    Args:
        input: any shape.
        p: probability that an element is zeroed, in [0, 1].
        training: without it ``input`` is returned as it is.
        inplace: accepted for torch's sake; without effect.
        key: a ``jax.random.key``; needed in training unless ``p`` is 0 or 1.

    Raises:
        ArgumentError: ``p`` lies outside [0, 1], or a key is needed and missing.

    Source: ``torch.nn.functional.dropout``; Hinton et al. (2012).
    """
    check_probability("dropout", p)
    input = jnp.asarray(input)
    if not training or p == 0.0:
        return input
    return input * _noise("dropout", key, p, input.shape, input.dtype)


def _noise(
    name: str, key: Key[Array, ""] | None, p: float, shape: tuple[int, ...], dtype: jnp.dtype
) -> Inexact[Array, "..."]:
    # A product rather than a selection: torch multiplies, so that NaN and infinity stay NaN where they are dropped.
    if p == 1.0:
        return jnp.zeros(shape, dtype)
    keep = _random.bernoulli(_random.required(key, name), 1.0 - p, shape)
    return keep.astype(dtype) / jnp.asarray(1.0 - p, dtype)
