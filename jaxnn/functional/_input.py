"""What operators on one array ask of it: the dtypes they take, the dtype they compute in, the axis they are told."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Inexact, Num, Real, Shaped

from jaxnn.functional._argument import accumulation_dtype


def floating(name: str, input: ArrayLike, *, complex_too: bool = False) -> Inexact[Array, "..."]:
    """``input`` as an array, or torch's refusal where it is not floating point; ``name`` is the function's."""
    array = jnp.asarray(input)
    if not jnp.issubdtype(array.dtype, jnp.inexact if complex_too else jnp.floating):
        kind = "floating point or complex" if complex_too else "floating point"
        raise NotImplementedError(f"{name}: input must be {kind}, got {array.dtype}")
    return array


def default_float(input: Shaped[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """Integers and booleans as float32, torch's default dtype whether or not JAX's is float64; the rest as it is."""
    return input if jnp.issubdtype(input.dtype, jnp.inexact) else input.astype(jnp.float32)


def widened(input: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """``input`` in the dtype torch computes in: float32 for float16 and bfloat16."""
    return input.astype(accumulation_dtype(input.dtype))


def checked_axis(name: str, dim: int, ndim: int) -> int:
    """``dim`` counted from the front, or torch's ``IndexError``; a scalar counts as one axis, as in torch."""
    ndim = max(ndim, 1)
    if not -ndim <= dim < ndim:
        raise IndexError(f"{name}: dim must lie in [{-ndim}, {ndim - 1}], got {dim}")
    return dim % ndim


def magnitude(x: Num[Array, "*shape"]) -> Real[Array, "*shape"]:
    """The absolute value with torch's derivative at zero and of NaN, which is 0; JAX's own is 1 and NaN."""
    return _absolute(x) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.abs(x)


@jax.custom_jvp
def _absolute(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return lax.abs(x)


@_absolute.defjvp
def _absolute_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return _absolute(x), jnp.where(jnp.isnan(x), 0, lax.sign(x)) * dx
