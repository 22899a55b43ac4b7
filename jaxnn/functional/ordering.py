"""Values in the middle, most frequent values and values drawn."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, Key, Real

from jaxnn.functional import _random
from jaxnn.functional._argument import ArgumentError, concrete
from jaxnn.functional._input import checked_axis, floating, widened
from jaxnn.functional._tangents import with_tangent


def median(input: Real[ArrayLike, "..."]) -> Real[Array, ""]:
    """The lower of the two values in the middle, NaN if there is one; equal values share the gradient.

    Source: ``torch.median`` over all values.
    """
    x = _some("median", input)
    middle = jnp.sort(x)[(x.size - 1) // 2]
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return middle
    return _shared(jnp.where(jnp.isnan(x).any(), jnp.nan, middle), x)


def nanmedian(input: Real[ArrayLike, "..."]) -> Real[Array, ""]:
    """The lower of the two values in the middle of those that are numbers; equal values share the gradient.

    Source: ``torch.nanmedian`` over all values.
    """
    x = _some("nanmedian", input)
    numbers = x.size - jnp.isnan(x).sum()
    middle = jnp.sort(x)[jnp.maximum(numbers - 1, 0) // 2]
    return _shared(middle, x) if jnp.issubdtype(x.dtype, jnp.floating) else middle


def _some(name: str, input: Real[ArrayLike, "..."]) -> Real[Array, " n"]:
    """The values in a row; the one in the middle of none is NaN, and among integers there is none."""
    x = jnp.ravel(input)
    if x.size:
        return x
    return jnp.full(1, jnp.nan, floating(name, x).dtype)


def _shared(value: Array, x: Array) -> Array:
    """``value``, whose gradient is shared among those of ``x`` that are as it is."""
    same = jnp.where(jnp.isnan(value), jnp.isnan(x), x == value)
    carrier = jnp.where(same, x, 0).sum() / jax.lax.stop_gradient(same.sum().astype(x.dtype))
    return with_tangent(value.astype(x.dtype), carrier)


def mode(
    input: Real[ArrayLike, "..."], dim: int = -1, keepdim: bool = False
) -> tuple[Real[Array, "..."], Integer[Array, "..."]]:
    """Most frequent values along an axis, the least of equally frequent ones, and where they are.

    Args:
        input: any shape.
        dim: the axis.
        keepdim: keep it, of size one.

    Returns:
        Values and indices, of each value the last.

    Raises:
        IndexError: there is no such axis, or it has no entries.

    Source: ``torch.mode``.
    """
    x = jnp.asarray(input)
    dim = checked_axis("mode", dim, x.ndim)
    if not x.ndim:
        return x, jnp.zeros((), int)
    if not x.shape[dim]:
        raise IndexError(f"mode: axis {dim} must have entries, got shape {x.shape}")
    x = jnp.moveaxis(x, dim, -1)
    order = jnp.argsort(x)
    ranked = jnp.take_along_axis(x, order, -1)
    place = jax.lax.broadcasted_iota(int, x.shape, x.ndim - 1)
    begins = jnp.concatenate([jnp.ones_like(ranked[..., :1], bool), ranked[..., 1:] != ranked[..., :-1]], -1)
    length = place - jax.lax.cummax(jnp.where(begins, place, 0), x.ndim - 1)
    found = jnp.take_along_axis(order, length.argmax(-1, keepdims=True), -1)
    values = jnp.take_along_axis(x, found, -1)
    both = (jnp.moveaxis(values, -1, dim), jnp.moveaxis(found, -1, dim))
    return both if keepdim else (both[0].squeeze(dim), both[1].squeeze(dim))


def multinomial(
    input: Float[Array, "*batch n"], num_samples: int, replacement: bool = False, *, key: Key[Array, ""] | None = None
) -> Integer[Array, "*batch num_samples"]:
    """Places drawn in proportion to the weights of a row.

    Args:
        input: weights, not negative; they need not sum to one.
        num_samples: how many of each row.
        replacement: whether a place may be drawn again.
        key: of ``jax.random``.

    Raises:
        ArgumentError: the weights are not one row or several, a row has a negative or infinite weight or none above
            zero (under ``jit`` its places are -1), or no places are to be drawn, or more than there are and none again.

    Source: ``torch.multinomial``.
    """
    weights = widened(floating("multinomial", input))  # in half precision many draws would be equal
    if weights.ndim not in (1, 2):
        raise ArgumentError(f"multinomial: input must have 1 or 2 axes, got shape {weights.shape}")
    if num_samples < 1:
        raise ArgumentError(f"multinomial: num_samples must be positive, got {num_samples}")
    if not replacement and num_samples > weights.shape[-1]:
        raise ArgumentError(f"multinomial: cannot draw {num_samples} of {weights.shape[-1]} places without replacement")
    drawn = _random.multinomial(_random.required(key, "multinomial"), weights, num_samples, replacement)
    valid = ((weights >= 0) & (weights < jnp.inf)).all(-1) & (weights > 0).any(-1)
    if (known := concrete(valid)) is not None and not known.all():
        raise ArgumentError("multinomial: weights must be finite, not negative, and one in each row above zero")
    return jnp.where(valid[..., None], drawn, -1)
