"""What the families share: errors, reductions, n-tuples, dtypes."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Num

Reduction = Literal["none", "mean", "sum"]


class ArgumentError(ValueError, RuntimeError):
    """An argument that cannot be: Python calls this a ``ValueError``, torch a ``RuntimeError``; it is both."""


def check_reduction(name: str, reduction: str) -> None:
    """Refuse a reduction that is none of torch's three; ``name`` is the function's, for the sentence."""
    if reduction not in ("none", "mean", "sum"):
        raise ArgumentError(f"{name}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def reduced(loss: Num[Array, "..."], reduction: str, name: str = "loss") -> Num[Array, "..."]:
    """``loss`` itself, its mean or its sum over all axes; the mean of nothing is NaN, as in torch.

    Integers have no mean, as in torch, and add up in the default integer.
    """
    check_reduction(name, reduction)
    whole = not jnp.issubdtype(loss.dtype, jnp.inexact)
    if reduction == "mean":
        if whole:
            raise ArgumentError(f"{name}: reduction='mean' needs floating point or complex, got {loss.dtype}")
        return jnp.mean(loss)
    return jnp.sum(loss, dtype=int if whole else None) if reduction == "sum" else loss


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that torch's two deprecated flags ask for, or ``reduction`` where neither is given."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is not None and not reduce:
        return "none"
    return "sum" if size_average is not None and not size_average else "mean"


def n_tuple(value: int | Sequence[int], n: int, name: str) -> tuple[int, ...]:
    """``value`` as ``n`` integers: one is repeated, a sequence of one too, a sequence of ``n`` is taken as it is."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) == 1:
        values *= n
    if len(values) != n:
        raise ArgumentError(f"{name} must be an integer or a sequence of {n}, got {value!r}")
    if not all(isinstance(v, int) or hasattr(v, "__index__") for v in values):
        raise TypeError(f"{name} must hold integers, got {value!r}")
    return tuple(int(v) for v in values)


def is_concrete(*arrays: ArrayLike) -> bool:
    """Whether the values are there to be looked at: false while JAX traces any of ``arrays``."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def concrete(array: ArrayLike) -> np.ndarray | None:
    """The values of ``array``, or None while JAX traces it.

    As numpy, for under ``jit`` even the comparison of two known arrays is traced.
    """
    return np.asarray(array) if is_concrete(array) else None


def promoted(*arrays: ArrayLike) -> tuple[Array, ...]:
    """``arrays`` in the dtype torch would promote them to, also where JAX's strict promotion is on."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
    return tuple(jnp.asarray(array, dtype) for array in arrays)


def accumulation_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype sums are taken in: float32 for float16 and bfloat16, as torch does, else ``dtype``."""
    dtype = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if dtype in (jnp.float16, jnp.bfloat16) else dtype


def check_same_dtype(name: str, **arrays: ArrayLike | None) -> None:
    """Refuse arrays of different dtypes, as torch does where it does not promote; ``None`` is passed over."""
    dtypes = {key: jnp.asarray(array).dtype for key, array in arrays.items() if array is not None}
    if len(set(dtypes.values())) > 1:
        found = ", ".join(f"{key} {dtype}" for key, dtype in dtypes.items())
        raise ArgumentError(f"{name}: arrays must have one dtype, got {found}")
