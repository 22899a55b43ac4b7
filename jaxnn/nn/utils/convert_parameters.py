"""All parameters as one vector, and back."""

from collections.abc import Iterable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Shaped

from jaxnn.functional import ArgumentError
from jaxnn.functional._argument import promoted


def parameters_to_vector(parameters: Iterable[nnx.Variable]) -> Shaped[Array, " entries"]:
    """The entries of ``parameters``, one after another, in the dtype that they promote to.

    Args:
        parameters: at least one variable, such as those of :func:`jaxnn.nn.named_parameters`.

    Raises:
        ArgumentError: there is no parameter.

    Source: ``torch.nn.utils.parameters_to_vector``.
    """
    arrays = [parameter.get_value() for parameter in parameters]
    if not arrays:
        raise ArgumentError("parameters_to_vector: parameters must hold at least one, got none")
    return jnp.concatenate([array.reshape(-1) for array in promoted(*arrays)])


def vector_to_parameters(vec: Shaped[ArrayLike, " entries"], parameters: Iterable[nnx.Variable]) -> None:
    """Write the entries of ``vec`` into ``parameters``, in their order; they take its dtype, as in torch.

    Args:
        vec: at least as many entries as ``parameters`` have together; what is more is left over.
        parameters: as for :func:`parameters_to_vector`; changed in place, all of them or none.

    Raises:
        ArgumentError: ``vec`` has more than one axis or too few entries.

    Source: ``torch.nn.utils.vector_to_parameters``.
    """
    array, variables = jnp.asarray(vec), list(parameters)
    shapes = [variable.get_value().shape for variable in variables]
    ends = [0]
    for variable in variables:
        ends.append(ends[-1] + variable.get_value().size)
    if array.ndim != 1 or array.size < ends[-1]:
        raise ArgumentError(f"vector_to_parameters: vec must have one axis of {ends[-1]} entries, got {array.shape}")
    for variable, shape, start, end in zip(variables, shapes, ends, ends[1:], strict=False):
        variable.set_value(array[start:end].reshape(shape))
