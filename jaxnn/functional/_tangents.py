"""Values that move other than they are computed: where torch writes into an array behind autograd's back."""

import jax
from jaxtyping import Array, Shaped


@jax.custom_jvp
def with_tangent(value: Shaped[Array, "..."], carrier: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """``value``, whose derivatives are those of ``carrier``, an array of its shape and dtype."""
    return value


@with_tangent.defjvp
def _with_tangent_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return with_tangent(*primals), tangents[1]
