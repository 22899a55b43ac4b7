"""Biases added, and what half precision asks of that."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Num

from jaxnn._lowering.precision import matmul_precision
from jaxnn.functional._argument import accumulation_dtype
from jaxnn.functional._input import widened


def biased(output: Num[Array, "..."], bias: Num[Array, "..."]) -> Num[Array, "..."]:
    """``output`` with a ``bias`` that broadcasts; the gradient of a half-precision one is summed in float32."""
    return output + bias if accumulation_dtype(output.dtype) == output.dtype else _half_biased(output, bias)


@jax.custom_jvp
def _half_biased(output: Num[Array, "..."], bias: Num[Array, "..."]) -> Num[Array, "..."]:
    return output + bias


@_half_biased.defjvp
def _half_biased_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    output = _half_biased(*primals)
    return output, tangents[0] + _spread(tangents[1], output)


def _spread(bias: Array, output: Array) -> Array:
    """``bias`` in the shape of ``output``. Transposed it is a sum, which XLA on a CPU takes in the dtype it is given:
    in bfloat16 no count goes beyond 256.
    """
    return jnp.broadcast_to(widened(bias), output.shape).astype(output.dtype)


def affine_product(input: Num[Array, "*batch i"], weight: Num[Array, "*o i"], bias: Array | None) -> Num[Array, "..."]:
    """``input @ weight.T + bias``; in half precision rounded once, after the bias, as torch does."""
    if bias is None:
        return _product(input, weight)
    if accumulation_dtype(input.dtype) == input.dtype:
        return _product(input, weight) + bias
    return _half_affine_product(input, weight, bias)


def _product(input: Array, weight: Array, dtype: Any = None) -> Array:
    contracted = (((input.ndim - 1,), (weight.ndim - 1,)), ((), ()))
    return lax.dot_general(input, weight, contracted, precision=matmul_precision(), preferred_element_type=dtype)


@jax.custom_jvp
@jax.jit
def _half_affine_product(input: Array, weight: Array, bias: Array) -> Array:
    def rounded_once(input: Array, weight: Array, bias: Array) -> Array:
        return (_product(input, weight, jnp.float32) + widened(bias)).astype(input.dtype)

    def as_one_kernel(input: Array, weight: Array, bias: Array) -> Array:
        return _product(input, weight) + bias  # an accelerator's library adds the bias before it rounds

    return lax.platform_dependent(input, weight, bias, cpu=rounded_once, default=as_one_kernel)


def _half_affine_product_jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (input, weight, bias), (d_input, d_weight, d_bias) = primals, tangents
    output = _half_affine_product(input, weight, bias)
    changes = [
        None if isinstance(d_input, SymbolicZero) else _product(d_input, weight),
        None if isinstance(d_weight, SymbolicZero) else _product(input, d_weight),
        None if isinstance(d_bias, SymbolicZero) else _spread(d_bias, output),
    ]
    return output, sum((change for change in changes if change is not None), start=jnp.zeros_like(output))


_half_affine_product.defjvp(_half_affine_product_jvp, symbolic_zeros=True)
