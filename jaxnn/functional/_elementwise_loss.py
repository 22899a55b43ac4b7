"""What losses of two equal arrays share: pairing, weights, reduction."""

import warnings

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Num

from jaxnn.functional._argument import ArgumentError, promoted, reduced


def paired(
    name: str, input: Num[ArrayLike, "..."], target: Num[ArrayLike, "..."], *, complex_too: bool = False
) -> tuple[Inexact[Array, "..."], Inexact[Array, "..."]]:
    """Both in one dtype and one shape; torch's warning where shapes differed, its refusal where they cannot agree."""
    first, second = promoted(input, target)
    if not jnp.issubdtype(first.dtype, jnp.inexact if complex_too else jnp.floating):
        kind = "floating point or complex" if complex_too else "floating point"
        raise NotImplementedError(f"{name}: input and target must be {kind}, got {first.dtype}")
    if first.shape != second.shape:
        shape = broadcast_shape(name, input=first, target=second)
        warnings.warn(
            f"{name}: target has shape {second.shape}, input {first.shape}; they are broadcast to {shape}, "
            "which is seldom meant",
            stacklevel=3,
        )
        first, second = jnp.broadcast_to(first, shape), jnp.broadcast_to(second, shape)
    return first, second


def weighted(
    name: str,
    loss: Inexact[Array, "..."],
    weight: Inexact[ArrayLike, "..."] | None,
    shape: tuple[int, ...],
    reduction: str,
    *,
    mean_of_weights: bool = True,
) -> Inexact[Array, "..."]:
    """``loss`` times ``weight``, reduced; the mean is over the weights, or over the elements where torch does that."""
    if weight is None:
        return reduced(loss, reduction, name)
    weight = jnp.asarray(weight)
    if weight.shape != shape:
        raise ArgumentError(f"{name}: weight must have the shape of input, {shape}, got {weight.shape}")
    loss, weight = promoted(loss, weight)
    if reduction == "mean" and mean_of_weights:
        return jnp.sum(loss * weight) / jnp.sum(weight)
    return reduced(loss * weight, reduction, name)


def broadcast_shape(name: str, **arrays: ArrayLike) -> tuple[int, ...]:
    """The shape that ``arrays`` broadcast to, or a refusal that gives each one's."""
    try:
        return jnp.broadcast_shapes(*(jnp.shape(array) for array in arrays.values()))
    except ValueError:
        found = ", ".join(f"{key} {jnp.shape(array)}" for key, array in arrays.items())
        raise ArgumentError(f"{name}: arrays must broadcast against each other, got {found}") from None
