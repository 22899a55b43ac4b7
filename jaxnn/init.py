"""``torch.nn.init``, as functions of a key and a shape."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxnn.functional import ArgumentError

GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4.0,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights ahead of ``nonlinearity`` are widened to keep the variance of activations.

    Args:
        nonlinearity: ``linear``, a ``conv`` name, ``sigmoid``, ``tanh``, ``relu``, ``leaky_relu`` or ``selu``.
        param: the negative slope of ``leaky_relu``, 0.01 unless given.

    Raises:
        ArgumentError: ``nonlinearity`` has no gain.

    Source: ``torch.nn.init.calculate_gain``; He et al. (2015).
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + (0.01 if param is None else param) ** 2))
    if nonlinearity.startswith("conv"):
        return 1.0
    if nonlinearity not in GAINS:
        known = ", ".join([*GAINS, "leaky_relu", "conv1d..conv_transpose3d"])
        raise ArgumentError(f"calculate_gain: nonlinearity must be one of {known}, got {nonlinearity!r}")
    return GAINS[nonlinearity]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many inputs feed one output of a weight ``(out, in, *kernel)``, and how many outputs one input feeds."""
    if len(shape) < 2:
        raise ArgumentError(f"fans: a weight needs at least two axes, (out, in, ...), got shape {shape}")
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def uniform(
    key: Key[Array, ""], shape: tuple[int, ...], a: float = 0.0, b: float = 1.0, dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
    """Uniform on ``[a, b)``. Source: ``torch.nn.init.uniform_``."""
    return jax.random.uniform(key, shape, dtype, a, b)


def kaiming_uniform(
    key: Key[Array, ""],
    shape: tuple[int, ...],
    a: float = 0.0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: str = "leaky_relu",
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "..."]:
    r"""Uniform on :math:`\pm \text{gain}\sqrt{3 / \text{fan}}`.

    Args:
        key: a ``jax.random.key``.
        shape: ``(out, in, *kernel)``.
        a: the negative slope of a ``leaky_relu`` behind the layer.
        mode: keep the variance forward (``fan_in``) or backward (``fan_out``).
        nonlinearity: what follows the layer; see :func:`calculate_gain`.
        dtype: of the result.

    Source: ``torch.nn.init.kaiming_uniform_``; He et al. (2015).
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / fans(shape)[mode == "fan_out"])
    return uniform(key, shape, -bound, bound, dtype)
