"""Gradients held within bounds, before an optimizer sees them."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, PyTree

from jaxnn.functional._argument import ArgumentError, accumulation_dtype


def clip_grad_norm_(
    grads: PyTree,
    max_norm: float | int | Float[ArrayLike, ""],
    norm_type: float | int = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> tuple[PyTree, Float[Array, ""]]:
    r"""Scale all gradients by one factor, so that their norm together is at most ``max_norm``.

    .. math:: g \leftarrow g \min\Big(1, \frac{c}{\lVert g \rVert + 10^{-6}}\Big)

    In a chain: ``optax.stateless(lambda grads, _: clip_grad_norm_(grads, 1.0)[0])``. Differs from
    ``optax.clip_by_global_norm`` by the :math:`10^{-6}` and the choice of norm.

    Args:
        grads: any pytree of gradients, where torch takes the parameters that hold them.
        max_norm: :math:`c`.
        norm_type: order of the norm; ``math.inf`` for the greatest entry.
        error_if_nonfinite: refuse a norm that is infinite or NaN; while tracing the gradients turn NaN instead.
        foreach: no effect here.

    Returns:
        The scaled gradients and the norm before, where torch writes the former and returns the latter.

    Raises:
        ValueError: the norm is not finite and ``error_if_nonfinite``.

    Source: ``torch.nn.utils.clip_grad_norm_``; Pascanu et al. (2013).
    """
    total = get_total_norm(grads, norm_type, error_if_nonfinite)
    return clip_grads_with_norm_(grads, max_norm, total), total


def get_total_norm(
    tensors: PyTree, norm_type: float | int = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Float[Array, ""]:
    """The norm of all entries of all arrays together; zero of none.

    Args:
        tensors: any pytree of arrays.
        norm_type: order of the norm; ``math.inf`` for the greatest entry.
        error_if_nonfinite: refuse a norm that is infinite or NaN; while tracing it is NaN instead.
        foreach: no effect here.

    Raises:
        ValueError: the norm is not finite and ``error_if_nonfinite``.

    Source: ``torch.nn.utils.get_total_norm``.
    """
    leaves = jax.tree.leaves(tensors)
    dtypes = [jnp.finfo(accumulation_dtype(jnp.result_type(leaf))).dtype for leaf in leaves]
    widest = max(dtypes, key=lambda dtype: dtype.itemsize, default=jnp.dtype(jnp.float32))
    norms = [
        _norm(jnp.abs(jnp.asarray(leaf)).astype(dtype), norm_type).astype(widest)
        for leaf, dtype in zip(leaves, dtypes, strict=True)
    ]
    total = _norm(jnp.stack(norms), norm_type) if norms else jnp.zeros((), widest)
    if not error_if_nonfinite:
        return total
    if not isinstance(total, jax.core.Tracer) and not bool(jnp.isfinite(total)):
        raise ArgumentError(f"the total norm of order {norm_type} is not finite, got {total}")
    return jnp.where(jnp.isfinite(total), total, jnp.nan)


def clip_grads_with_norm_(
    grads: PyTree,
    max_norm: float | int | Float[ArrayLike, ""],
    total_norm: Float[ArrayLike, ""],
    foreach: bool | None = None,
) -> PyTree:
    """:func:`clip_grad_norm_` by a norm that is known, as one taken over several devices or groups.

    Args:
        grads: any pytree of gradients, where torch takes the parameters that hold them.
        max_norm: the greatest norm.
        total_norm: what :func:`get_total_norm` gave.
        foreach: no effect here.

    Returns:
        The scaled gradients, which torch writes in place.

    Source: ``torch.nn.utils.clip_grads_with_norm_``.
    """
    total = jnp.asarray(total_norm)
    scale = jnp.minimum(jnp.asarray(max_norm).astype(total.dtype) / (total + 1e-6), 1)

    def scaled(leaf: ArrayLike) -> Array:
        array = jnp.asarray(leaf)
        wide = array.astype(accumulation_dtype(array.dtype))
        return (wide * scale.astype(jnp.finfo(wide.dtype).dtype).astype(wide.dtype)).astype(array.dtype)

    return jax.tree.map(scaled, grads)


def clip_grad_value_(grads: PyTree, clip_value: float | int, foreach: bool | None = None) -> PyTree:
    """Clamp every entry of every gradient to ``[-clip_value, clip_value]``.

    In a chain: ``optax.clip(clip_value)``, which is the same.

    Args:
        grads: any pytree of gradients.
        clip_value: the bound, not negative.
        foreach: no effect here.

    Returns:
        The clamped gradients, which torch writes in place.

    Raises:
        TypeError: a gradient is complex.

    Source: ``torch.nn.utils.clip_grad_value_``.
    """

    def clamped(leaf: Inexact[ArrayLike, "..."]) -> Array:
        if jnp.iscomplexobj(leaf):
            raise TypeError("clip_grad_value_: gradients must be real, got a complex one")
        return jnp.minimum(jnp.maximum(jnp.asarray(leaf), -clip_value), clip_value)

    return jax.tree.map(clamped, grads)


def _norm(size: Float[Array, "..."], order: float) -> Float[Array, ""]:
    """The norm of all entries, given by their absolute values."""
    if order == math.inf:
        return jnp.max(size, initial=0)
    if order == -math.inf:
        return jnp.min(size, initial=jnp.inf)
    if order == 0:
        return jnp.sum(size != 0).astype(size.dtype)
    if order == 2:
        return jnp.sqrt(jnp.sum(size * size))
    return jnp.sum(size**order) ** (1 / order)
