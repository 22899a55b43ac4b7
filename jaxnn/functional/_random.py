"""Every random draw of the functional operators: one place, so that a comparison with torch can replay torch's."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from jaxnn.functional._argument import ArgumentError


def required(key: Key[Array, ""] | None, name: str) -> Key[Array, ""]:
    """``key``, or the error that says how to give one."""
    if key is None:
        raise ArgumentError(f"{name}: a random operator needs a key, got key=None; pass key=jax.random.key(seed)")
    return key


def bernoulli(key: Key[Array, ""], p: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """True with probability ``p``, independently."""
    # Comparing raw bits spares the conversion to floats; 2**-32 is the resolution of p.
    if p >= 1.0:
        return jnp.ones(shape, bool)
    return jax.random.bits(key, shape, jnp.uint32) < jnp.uint32(round(p * 2**32))


def uniform(
    key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike, low: float = 0.0, high: float = 1.0
) -> Float[Array, "..."]:
    """Uniform on ``[low, high)``."""
    return jax.random.uniform(key, shape, dtype, low, high)


def multinomial(key: Key[Array, ""], weights: Float[Array, "*batch n"], count: int, replace: bool) -> Int[Array, "..."]:
    """``count`` places of each row, a place as often as its weight says."""
    logits = jnp.log(weights)
    if replace:
        return jax.random.categorical(key, logits[..., None, :], shape=(*logits.shape[:-1], count))
    return jax.lax.top_k(logits + jax.random.gumbel(key, logits.shape, logits.dtype), count)[1]


def exponential(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """Exponential with rate 1."""
    return jax.random.exponential(key, shape, dtype)
