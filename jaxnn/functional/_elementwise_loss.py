"""What losses of two equal arrays share: pairing, weights, reduction."""

import warnings

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Num

from jaxnn.functional._argument import ArgumentError, promoted, reduced
from jaxnn.functional._input import default_float


def paired(
    name: str, input: Num[ArrayLike, "..."], target: Num[ArrayLike, "..."], *, subtraction: bool = False
) -> tuple[Num[Array, "..."], Num[Array, "..."]]:
    """Both in one dtype and one shape; torch's warning where shapes differed, its refusal where they cannot agree.

    Real floating point alone, or, where the loss begins with a ``subtraction``, whatever that takes: all but booleans.
    """
    first, second = promoted(input, target)
    if subtraction:
        dtypes = jnp.asarray(input).dtype, jnp.asarray(target).dtype
        if bool in dtypes:
            raise ArgumentError(f"{name}: booleans are not subtracted, got input {dtypes[0]} and target {dtypes[1]}")
    elif not jnp.issubdtype(first.dtype, jnp.floating):
        raise NotImplementedError(f"{name}: input and target must be floating point, got {first.dtype}")
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
    loss: Num[Array, "..."],
    weight: Num[ArrayLike, "..."] | None,
    shape: tuple[int, ...],
    reduction: str,
    *,
    mean_of_weights: bool = True,
) -> Num[Array, "..."]:
    """``loss`` times ``weight``, reduced; the mean is over the weights, or over the elements where torch does that."""
    if weight is None:
        return reduced(loss, reduction, name)
    weight = jnp.asarray(weight)
    if weight.shape != shape:
        raise ArgumentError(f"{name}: weight must have the shape of input, {shape}, got {weight.shape}")
    loss, weight = promoted(loss, weight)
    if reduction == "mean" and mean_of_weights:
        total, weights = (default_float(reduced(x, "sum", name)) for x in (loss * weight, weight))
        return total / weights
    return reduced(loss * weight, reduction, name)


def broadcast_shape(name: str, **arrays: ArrayLike) -> tuple[int, ...]:
    """The shape that ``arrays`` broadcast to, or a refusal that gives each one's."""
    try:
        return jnp.broadcast_shapes(*(jnp.shape(array) for array in arrays.values()))
    except ValueError:
        found = ", ".join(f"{key} {jnp.shape(array)}" for key, array in arrays.items())
        raise ArgumentError(f"{name}: arrays must broadcast against each other, got {found}") from None
