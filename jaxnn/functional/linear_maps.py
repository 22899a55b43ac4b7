"""Linear maps of the last axis."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Num

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError, check_same_dtype


def linear(
    input: Num[ArrayLike, "*batch in_features"],
    weight: Num[ArrayLike, "*out_features in_features"],
    bias: Num[ArrayLike, "*out_features"] | None = None,
) -> Num[Array, "..."]:
    r"""Affine map of the last axis.

    .. math:: y = x A^T + b

    Args:
        input: ``(*, in_features)``.
        weight: ``(out_features, in_features)``, or ``(in_features,)`` for a single output without an axis of its own.
        bias: ``(out_features,)``, or ``()`` beside a one-axis weight.

    Returns:
        ``(*, out_features)``, in the dtype of ``input``.

    Raises:
        ArgumentError: ``in_features`` of ``input`` and ``weight`` differ, ``weight`` has neither one nor two axes,
            ``bias`` does not fit, or the dtypes differ.

    Source: ``torch.nn.functional.linear``.
    """
    check_same_dtype("linear", input=input, weight=weight, bias=bias)
    input, weight = jnp.asarray(input), jnp.asarray(weight)
    if weight.ndim not in (1, 2):
        raise ArgumentError(f"linear: weight must have 1 or 2 axes, (out_features, in_features), got {weight.shape}")
    if input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        raise ArgumentError(
            f"linear: the last axis of input must be in_features={weight.shape[-1]} of weight {weight.shape}, "
            f"got input of shape {input.shape}"
        )
    contracted = (((input.ndim - 1,), (weight.ndim - 1,)), ((), ()))
    output = lax.dot_general(input, weight, contracted, precision=matmul_precision())
    if bias is None:
        return output
    bias = jnp.asarray(bias)
    if bias.ndim > weight.ndim - 1 or (bias.ndim == 1 and bias.shape[0] not in (1, weight.shape[0])):
        raise ArgumentError(
            f"linear: bias must have shape {weight.shape[:-1]} beside weight {weight.shape}, got {bias.shape}"
        )
    return output + bias
