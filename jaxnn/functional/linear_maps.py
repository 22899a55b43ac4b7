"""Linear and bilinear maps of the last axis."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Num

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError, accumulation_dtype, check_same_dtype
from jaxnn.functional._bias import affine_product


def linear(
    input: Num[ArrayLike, "*batch in_features"],
    weight: Num[ArrayLike, "*out_features in_features"],
    bias: Num[ArrayLike, "..."] | None = None,
) -> Num[Array, "..."]:
    r"""Affine map of the last axis.

    .. math:: y = x A^T + b

    Args:
        input: ``(*, in_features)``.
        weight: ``(out_features, in_features)``, or ``(in_features,)`` for a single output without an axis of its own.
        bias: ``(out_features,)`` or what else broadcasts to the result; ``()`` beside a one-axis weight.

    Returns:
        ``(*, out_features)``, in the dtype of ``input``.

    Raises:
        ArgumentError: ``in_features`` of ``input`` and ``weight`` differ, ``weight`` has neither one nor two axes,
            ``bias`` does not fit, or the dtypes differ.
        NotImplementedError: the arrays are boolean.

    Source: ``torch.nn.functional.linear``.
    """
    check_same_dtype("linear", input=input, weight=weight, bias=bias)
    input, weight = jnp.asarray(input), jnp.asarray(weight)
    if weight.dtype == bool:
        raise NotImplementedError("linear: boolean arrays are not multiplied, got input and weight of dtype bool")
    if weight.ndim not in (1, 2):
        raise ArgumentError(f"linear: weight must have 1 or 2 axes, (out_features, in_features), got {weight.shape}")
    if input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        raise ArgumentError(
            f"linear: the last axis of input must be in_features={weight.shape[-1]} of weight {weight.shape}, "
            f"got input of shape {input.shape}"
        )
    if bias is None:
        return affine_product(input, weight, None)
    bias = jnp.asarray(bias)
    expected = (*input.shape[:-1], weight.shape[0]) if weight.ndim == 2 else ()
    if bias.ndim > len(expected) or any(
        b not in (1, n) for b, n in zip(bias.shape[::-1], expected[::-1], strict=False)
    ):
        raise ArgumentError(f"linear: bias must broadcast to {expected} beside weight {weight.shape}, got {bias.shape}")
    return affine_product(input, weight, bias)


def bilinear(
    input1: Num[ArrayLike, "*batch in1_features"],
    input2: Num[ArrayLike, "*batch in2_features"],
    weight: Num[ArrayLike, "out_features in1_features in2_features"],
    bias: Num[ArrayLike, " out_features"] | None = None,
) -> Num[Array, "*batch out_features"]:
    r"""Map linear in each of two inputs.

    .. math:: y_o = x_1^T A_o\, x_2 + b_o

    Args:
        input1: ``(*, in1_features)``.
        input2: ``(*, in2_features)``, with the same leading axes.
        weight: ``(out_features, in1_features, in2_features)``.
        bias: ``(out_features,)``.

    Returns:
        ``(*, out_features)``, in the dtype of ``input1``.

    Raises:
        ArgumentError: shapes that do not fit together, or dtypes that differ.
        NotImplementedError: the arrays are boolean.

    Source: ``torch.nn.functional.bilinear``.
    """
    check_same_dtype("bilinear", input1=input1, input2=input2, weight=weight, bias=bias)
    input1, input2, weight = jnp.asarray(input1), jnp.asarray(input2), jnp.asarray(weight)
    if weight.dtype == bool:
        raise NotImplementedError("bilinear: boolean arrays are not multiplied, got inputs and weight of dtype bool")
    if input1.ndim == 0 or input2.ndim == 0:
        raise IndexError(
            f"bilinear: input1 and input2 must have an axis of features, got {input1.shape}, {input2.shape}"
        )
    if input1.shape[:-1] != input2.shape[:-1] or weight.shape[1:] != (input1.shape[-1], input2.shape[-1]):
        raise ArgumentError(
            "bilinear: expected input1 (*, in1), input2 (*, in2) and weight (out, in1, in2), "
            f"got {input1.shape}, {input2.shape} and {weight.shape}"
        )
    if bias is not None and jnp.shape(bias) != weight.shape[:1]:
        raise ArgumentError(f"bilinear: bias must have shape {weight.shape[:1]}, got {jnp.shape(bias)}")
    dtype = accumulation_dtype(weight.dtype)
    # The second input first: its axis is the last of weight, which then need not be transposed.
    maps = jnp.einsum("...j,oij->...oi", input2, weight, precision=matmul_precision(), preferred_element_type=dtype)
    output = jnp.sum(maps * input1[..., None, :].astype(dtype), axis=-1, dtype=dtype)
    return (output if bias is None else output + jnp.asarray(bias, dtype)).astype(weight.dtype)
