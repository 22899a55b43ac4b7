"""The tutorial's hand-written layers."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError
from jaxnn.functional._bias import biased


def custom_layer(
    x: Inexact[ArrayLike, "features columns"],
    weight: Inexact[ArrayLike, "out_features features"],
    bias: Inexact[ArrayLike, "..."],
) -> Inexact[Array, "out_features _"]:
    r"""Affine map of the columns of ``x``, the bias broadcast along them as torch broadcasts.

    .. math:: y = A x + b

    Args:
        x: ``(features, columns)``.
        weight: ``(out_features, features)``.
        bias: anything that broadcasts against ``(out_features, columns)``; one of ``(n,)`` runs along the columns, so
            that a single column grows to ``n``.

    Raises:
        ArgumentError: ``weight`` and ``x`` cannot be multiplied, or ``bias`` does not broadcast.
    """
    x, weight, bias = jnp.asarray(x), jnp.asarray(weight), jnp.asarray(bias)
    _check_product("custom_layer", weight, "weight", x, "x")
    return _shifted("custom_layer", jnp.matmul(weight, x, precision=matmul_precision()), bias)


def custom_sine_layer(
    x: Inexact[ArrayLike, "batch features"],
    weight: Inexact[ArrayLike, "out_features features"],
    bias: Inexact[ArrayLike, "..."],
) -> Inexact[Array, "batch _"]:
    r"""Sine of a linear map of the rows of ``x``, then the bias.

    .. math:: y = \sin(x A^T) + b

    Args:
        x: ``(batch, features)``.
        weight: ``(out_features, features)``.
        bias: anything that broadcasts against ``(batch, out_features)``.

    Raises:
        ArgumentError: ``x`` and ``weight`` cannot be multiplied, or ``bias`` does not broadcast.
    """
    x, weight, bias = jnp.asarray(x), jnp.asarray(weight), jnp.asarray(bias)
    _check_product("custom_sine_layer", x, "x", weight.T, "weight.T")
    return _shifted("custom_sine_layer", jnp.sin(jnp.matmul(x, weight.T, precision=matmul_precision())), bias)


def _check_product(name: str, left: Array, left_name: str, right: Array, right_name: str) -> None:
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ArgumentError(
            f"{name}: the columns of {left_name} must be as many as the rows of {right_name}, "
            f"got shapes {left.shape} and {right.shape}"
        )


def _shifted(name: str, product: Array, bias: Array) -> Array:
    try:
        jnp.broadcast_shapes(product.shape, bias.shape)
    except ValueError:
        raise ArgumentError(f"{name}: bias must broadcast against {product.shape}, got {bias.shape}") from None
    return biased(product, bias)
