"""The precision of matrix products."""

import jax
from jax import lax


def matmul_precision() -> lax.Precision | None:
    """``HIGHEST`` unless the user has set ``jax.default_matmul_precision``.

    In torch a float32 matrix product is float32. JAX's own default is TensorFloat-32 on a GPU and bfloat16 on a TPU;
    whoever prefers that says so with ``jax.default_matmul_precision``, and is obeyed.
    """
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return lax.Precision.HIGHEST if chosen is None else None
