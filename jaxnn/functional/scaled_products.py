"""Products of float8 matrices that carry their scales beside them."""

import enum
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import ArgumentError
from jaxnn.functional.grouped_products import check_groups, grouped_product

FLOAT8 = (jnp.float8_e4m3fn, jnp.float8_e5m2)


class ScalingType(enum.IntEnum):
    """How many elements share a scale: torch's names and numbers."""

    TensorWise = 0
    RowWise = 1
    BlockWise1x16 = 2
    BlockWise1x32 = 3
    BlockWise1x128 = 4
    BlockWise128x128 = 5


class SwizzleType(enum.IntEnum):
    """How scales are shuffled for the hardware: torch's names and numbers."""

    NO_SWIZZLE = 0
    SWIZZLE_32_4_4 = 1


Scale = Float[ArrayLike, "..."] | list
Recipe = Any  # a ScalingType, torch's own, or a list of one
Swizzle = Any  # a SwizzleType, torch's own, a list of one, or None


def scaled_mm(
    mat_a: Float[ArrayLike, "..."],
    mat_b: Float[ArrayLike, "..."],
    scale_a: Scale,
    scale_recipe_a: Recipe,
    scale_b: Scale,
    scale_recipe_b: Recipe,
    swizzle_a: Swizzle = None,
    swizzle_b: Swizzle = None,
    bias: Float[ArrayLike, "..."] | None = None,
    output_dtype: DTypeLike | None = jnp.bfloat16,
    contraction_dim: Sequence[int] = (),
    use_fast_accum: bool = False,
) -> Float[Array, "M N"]:
    r"""Product of two float8 matrices, each element times its scale.

    .. math:: C_{mn} = s^a_m\, s^b_n \sum_k A_{mk} B_{kn} + b_n

    Args:
        mat_a: ``(M, K)``, float8_e4m3fn or float8_e5m2.
        mat_b: ``(K, N)``, likewise.
        scale_a: float32; one element (``TensorWise``) or ``(M, 1)`` (``RowWise``); may stand in a list of one.
        scale_recipe_a: which of the two; torch's own enumeration will do. Block-wise recipes, which torch computes in
            kernels for some GPUs only, are refused.
        scale_b: one element or ``(1, N)``.
        scale_recipe_b: the same as ``scale_recipe_a``.
        swizzle_a: none; shuffled scales belong to the block-wise recipes.
        swizzle_b: none.
        bias: ``N`` elements, float32, bfloat16 or float16.
        output_dtype: ``None`` for that of ``mat_a``.
        contraction_dim: nothing, or the axes of ``mat_a`` and ``mat_b`` that are K: the last and the last but one.
        use_fast_accum: accepted for torch's sake; without effect.

    Raises:
        ArgumentError: shapes, dtypes or scales that do not fit together, or a recipe that is not computed here.

    Source: ``torch.nn.functional.scaled_mm``.
    """
    name = "scaled_mm"
    a, b = _float8(name, mat_a, mat_b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ArgumentError(f"{name}: mat_a and mat_b must be (M, K) and (K, N), got {a.shape} and {b.shape}")
    recipe = _recipe(name, scale_recipe_a, scale_recipe_b, swizzle_a, swizzle_b, contraction_dim)
    rows, columns = ((), ()) if recipe == ScalingType.TensorWise else ((a.shape[0], 1), (1, b.shape[1]))
    left, right = _scale(name, "scale_a", scale_a, rows), _scale(name, "scale_b", scale_b, columns)
    product = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32), precision=matmul_precision())
    output = product * left * right
    if bias is not None:
        bias = jnp.asarray(bias)
        if bias.size != b.shape[1] or bias.ndim > 2 or bias.shape[-1:] != b.shape[1:] or not _narrow(bias):
            raise ArgumentError(
                f"{name}: bias must have {b.shape[1]} elements of float32, bfloat16 or float16, got {bias.dtype} of "
                f"shape {bias.shape}"
            )
        output = output + bias.astype(jnp.float32)
    return output.astype(a.dtype if output_dtype is None else output_dtype)


def scaled_grouped_mm(
    mat_a: Float[ArrayLike, "..."],
    mat_b: Float[ArrayLike, "..."],
    scale_a: Scale,
    scale_recipe_a: Recipe,
    scale_b: Scale,
    scale_recipe_b: Recipe,
    swizzle_a: Swizzle = None,
    swizzle_b: Swizzle = None,
    bias: Float[ArrayLike, "..."] | None = None,
    offs: Int[ArrayLike, " groups"] | None = None,
    output_dtype: DTypeLike | None = jnp.bfloat16,
    contraction_dim: Sequence[int] = (),
    use_fast_accum: bool = False,
) -> Float[Array, "..."]:
    """:func:`jaxnn.functional.grouped_mm` of float8 matrices with a scale for each row of A and each column of B.

    Args:
        mat_a: ``(M, K)`` or ``(G, M, K)``, float8.
        mat_b: ``(K, N)`` or ``(G, K, N)``, float8.
        scale_a: float32, one for each row of ``mat_a``: its shape without K; ``(G M,)`` where K is cut into groups.
        scale_recipe_a: ``RowWise``.
        scale_b: float32, one for each column of ``mat_b``: its shape without K; ``(G N,)`` where K is cut into groups.
        scale_recipe_b: ``RowWise``.
        swizzle_a: none.
        swizzle_b: none.
        bias: ``None``; torch has no implementation of another.
        offs: ``(G,)``, int32: where each group ends on the axis that is cut.
        output_dtype: bfloat16, the only one torch has.
        contraction_dim: nothing, or the axes of ``mat_a`` and ``mat_b`` that are K: the last and the last but one.
        use_fast_accum: accepted for torch's sake; without effect.

    Raises:
        ArgumentError: shapes, dtypes or scales that do not fit together, or a recipe that is not computed here.

    Source: ``torch.nn.functional.scaled_grouped_mm``, which runs on some GPUs only.
    """
    name = "scaled_grouped_mm"
    a, b = _float8(name, mat_a, mat_b)
    ends = check_groups(name, a, b, offs)
    recipe = _recipe(name, scale_recipe_a, scale_recipe_b, swizzle_a, swizzle_b, contraction_dim)
    if recipe != ScalingType.RowWise or bias is not None or output_dtype not in (None, jnp.bfloat16):
        raise ArgumentError(
            f"{name}: expected RowWise recipes, no bias and an output_dtype of bfloat16, got {recipe.name}, "
            f"{'no' if bias is None else 'a'} bias and {output_dtype}"
        )
    a32, b32 = a.astype(jnp.float32), b.astype(jnp.float32)
    if a.ndim == b.ndim == 2 and ends is not None:
        groups = ends.shape[0]
        left = _scale(name, "scale_a", scale_a, (groups * a.shape[0],)).reshape(groups, -1, 1)
        right = _scale(name, "scale_b", scale_b, (groups * b.shape[1],)).reshape(groups, 1, -1)
        return (grouped_product(a32, b32, ends) * left * right).astype(jnp.bfloat16)
    left = _scale(name, "scale_a", scale_a, a.shape[:-1])[..., None]
    right = _scale(name, "scale_b", scale_b, (*b.shape[:-2], b.shape[-1]))[..., None, :]
    return grouped_product(a32 * left, b32 * right, ends).astype(jnp.bfloat16)


def _float8(name: str, mat_a: ArrayLike, mat_b: ArrayLike) -> tuple[Array, Array]:
    a, b = jnp.asarray(mat_a), jnp.asarray(mat_b)
    if a.dtype not in FLOAT8 or b.dtype not in FLOAT8:
        raise ArgumentError(
            f"{name}: mat_a and mat_b must be float8_e4m3fn or float8_e5m2, got {a.dtype} and {b.dtype}"
        )
    return a, b


def _narrow(x: Array) -> bool:
    return x.dtype in (jnp.float32, jnp.bfloat16, jnp.float16)


def _single(name: str, what: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise ArgumentError(f"{name}: {what} must be one, or a list of one, got {len(value)}")
    return value[0]


def _number(member: Any) -> int:
    return int(getattr(member, "value", member))


def _recipe(
    name: str, recipe_a: Any, recipe_b: Any, swizzle_a: Any, swizzle_b: Any, contraction: Sequence[int]
) -> ScalingType:
    """The recipe of both operands; torch's enumerations are read by their numbers."""
    first, second = (_single(name, "scale_recipe", r) for r in (recipe_a, recipe_b))
    recipes = [ScalingType(_number(r)) for r in (first, second)]
    if recipes[0] != recipes[1] or recipes[0] > ScalingType.RowWise:
        raise ArgumentError(
            f"{name}: scale_recipe_a and scale_recipe_b must both be TensorWise or both RowWise, got "
            f"{recipes[0].name} and {recipes[1].name}"
        )
    for what, swizzle in (("swizzle_a", swizzle_a), ("swizzle_b", swizzle_b)):
        kind = None if swizzle in (None, []) else _single(name, what, swizzle)
        if kind is not None and _number(kind) != SwizzleType.NO_SWIZZLE:
            raise ArgumentError(f"{name}: {what} must be NO_SWIZZLE with {recipes[0].name} scales, got {kind}")
    if len(contraction) not in (0, 2) or (len(contraction) == 2 and (contraction[0] % 2, contraction[1] % 2) != (1, 0)):
        raise ArgumentError(f"{name}: contraction_dim must be empty or (1, 0), got {tuple(contraction)}")
    return recipes[0]


def _scale(name: str, what: str, value: Any, shape: tuple[int, ...]) -> Array:
    """The scale as a float32 array of ``shape``; one element of any shape will do where that is ``()``."""
    scale = jnp.asarray(_single(name, what, value))
    fits = scale.size == 1 if shape == () else scale.shape == shape
    if scale.dtype != jnp.float32 or not fits:
        expected = "of one element" if shape == () else f"of shape {shape}"
        raise ArgumentError(f"{name}: {what} must be float32 {expected}, got {scale.dtype} of shape {scale.shape}")
    return scale.reshape(shape)
