"""``torch.nn.init`` without the trailing underscores: what fills a tensor there returns an array here.

A random one takes a ``jax.random.key`` and the shape, a constant one the shape alone.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact, Key, Num

from jaxnn.functional import ArgumentError
from jaxnn.functional._argument import accumulation_dtype

Shape = tuple[int, ...]
Mode = Literal["fan_in", "fan_out"]

GAINS = {
    "linear": 1.0,
    **{f"conv{kind}{n}d": 1.0 for kind in ("", "_transpose") for n in (1, 2, 3)},
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
        ArgumentError: ``nonlinearity`` has no gain, or ``param`` is no number.

    Source: ``torch.nn.init.calculate_gain``; He et al. (2015).
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            raise ArgumentError(f"calculate_gain: param must be the slope of leaky_relu, a number, got {param!r}")
        return math.sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity not in GAINS:
        known = ", ".join([*GAINS, "leaky_relu"])
        raise ArgumentError(f"calculate_gain: nonlinearity must be one of {known}, got {nonlinearity!r}")
    return GAINS[nonlinearity]


def fans(shape: Shape) -> tuple[int, int]:
    """How many inputs feed one output of a weight ``(out, in, *kernel)``, and how many outputs one input feeds."""
    if len(shape) < 2:
        raise ArgumentError(f"fans: a weight needs at least two axes, (out, in, ...), got shape {shape}")
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def uniform(
    key: Key[Array, ""], shape: Shape, a: float = 0.0, b: float = 1.0, dtype: DTypeLike = jnp.float32
) -> Inexact[Array, "..."]:
    """Uniform on ``[a, b)``. Source: ``torch.nn.init.uniform_``."""
    if a > b:
        raise ArgumentError(f"uniform: a must not exceed b, got a={a}, b={b}")
    return jax.random.uniform(key, shape, dtype, a, b)


def normal(
    key: Key[Array, ""], shape: Shape, mean: float = 0.0, std: float = 1.0, dtype: DTypeLike = jnp.float32
) -> Inexact[Array, "..."]:
    """Normal with ``mean`` and standard deviation ``std``. Source: ``torch.nn.init.normal_``."""
    if std < 0:
        raise ArgumentError(f"normal: std cannot be negative, got {std}")
    return jax.random.normal(key, shape, dtype) * std + mean


def trunc_normal(
    key: Key[Array, ""],
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    dtype: DTypeLike = jnp.float32,
) -> Inexact[Array, "..."]:
    """Normal with ``mean`` and ``std`` given that it lies in ``[a, b]``.

    Args:
        key: a ``jax.random.key``.
        shape: of the result.
        mean: before truncation.
        std: before truncation; positive.
        a: least value, in the units of the result and not of ``std``.
        b: greatest value.
        dtype: of the result.

    Raises:
        ArgumentError: the interval is so far from the mean that its probability is zero in ``dtype``.

    Source: ``torch.nn.init.trunc_normal_``, which rejects until the draws fit; here the distribution is inverted.
    """
    working = accumulation_dtype(dtype)
    low, high = (a - mean) / std, (b - mean) / std
    # A probability near 1 has no digits left for the tail above it: an interval up there is drawn mirrored.
    mirrored = low + high > 0
    if mirrored:
        low, high = -high, -low
    with jax.ensure_compile_time_eval():
        bottom, top = (float(ndtr(jnp.asarray(bound, working))) for bound in (low, high))
    if not bottom < top:
        raise ArgumentError(f"trunc_normal: [a, b] = [{a}, {b}] has no probability under mean={mean}, std={std}")
    draws = jnp.clip(ndtri(jax.random.uniform(key, shape, working, bottom, top)), low, high)
    return ((-draws if mirrored else draws) * std + mean).astype(dtype)


def constant(shape: Shape, val: float, dtype: DTypeLike = jnp.float32) -> Num[Array, "..."]:
    """``val`` throughout. Source: ``torch.nn.init.constant_``."""
    return jnp.full(shape, val, dtype)


def ones(shape: Shape, dtype: DTypeLike = jnp.float32) -> Num[Array, "..."]:
    """Ones. Source: ``torch.nn.init.ones_``."""
    return jnp.ones(shape, dtype)


def zeros(shape: Shape, dtype: DTypeLike = jnp.float32) -> Num[Array, "..."]:
    """Zeros. Source: ``torch.nn.init.zeros_``."""
    return jnp.zeros(shape, dtype)


def eye(shape: Shape, dtype: DTypeLike = jnp.float32) -> Num[Array, "rows columns"]:
    """The identity: a linear layer that hands on what fits. Source: ``torch.nn.init.eye_``."""
    if len(shape) != 2:
        raise ArgumentError(f"eye: shape must have two axes, got {shape}")
    return jnp.eye(*shape, dtype=dtype)


def dirac(shape: Shape, groups: int = 1, dtype: DTypeLike = jnp.float32) -> Num[Array, "..."]:
    """A one in the middle of each kernel from a channel to itself: a convolution that hands on what fits.

    Args:
        shape: ``(out, in, *kernel)``, with one to three axes of the kernel.
        groups: groups of output channels, each of which repeats the identity; a divisor of ``out``.
        dtype: of the result.

    Raises:
        ArgumentError: ``shape`` has another number of axes, or ``groups`` does not divide its first.

    Source: ``torch.nn.init.dirac_``.
    """
    if len(shape) not in (3, 4, 5):
        raise ArgumentError(f"dirac: shape must have three to five axes, (out, in, *kernel), got {shape}")
    if shape[0] % groups:
        raise ArgumentError(f"dirac: the first of shape must be divisible by groups={groups}, got {shape[0]}")
    identity = jnp.tile(jnp.eye(shape[0] // groups, shape[1], dtype=dtype), (groups, 1))
    middle = tuple(size // 2 for size in shape[2:])
    return jnp.zeros(shape, dtype).at[(..., *middle)].set(identity)


def xavier_uniform(
    key: Key[Array, ""], shape: Shape, gain: float = 1.0, dtype: DTypeLike = jnp.float32
) -> Inexact[Array, "..."]:
    r"""Uniform on :math:`\pm \text{gain}\sqrt{6 / (\text{fan}_\text{in} + \text{fan}_\text{out})}`.

    Source: ``torch.nn.init.xavier_uniform_``; Glorot and Bengio (2010).
    """
    bound = gain * math.sqrt(6.0 / sum(fans(shape)))
    return uniform(key, shape, -bound, bound, dtype)


def xavier_normal(
    key: Key[Array, ""], shape: Shape, gain: float = 1.0, dtype: DTypeLike = jnp.float32
) -> Inexact[Array, "..."]:
    r"""Normal with deviation :math:`\text{gain}\sqrt{2 / (\text{fan}_\text{in} + \text{fan}_\text{out})}`.

    Source: ``torch.nn.init.xavier_normal_``; Glorot and Bengio (2010).
    """
    return normal(key, shape, 0.0, gain * math.sqrt(2.0 / sum(fans(shape))), dtype)


def kaiming_uniform(
    key: Key[Array, ""],
    shape: Shape,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: str = "leaky_relu",
    dtype: DTypeLike = jnp.float32,
) -> Inexact[Array, "..."]:
    r"""Uniform on :math:`\pm \text{gain}\sqrt{3 / \text{fan}}`.

    Args:
        key: a ``jax.random.key``.
        shape: ``(out, in, *kernel)``.
        a: the negative slope of a ``leaky_relu`` behind the layer.
        mode: keep the variance forward (``fan_in``) or backward (``fan_out``).
        nonlinearity: what follows the layer; see :func:`calculate_gain`.
        dtype: of the result.

    Raises:
        ArgumentError: ``shape`` has fewer than two axes, or ``mode`` or ``nonlinearity`` is unknown.

    Source: ``torch.nn.init.kaiming_uniform_``; He et al. (2015).
    """
    bound = math.sqrt(3.0) * _kaiming_deviation("kaiming_uniform", shape, a, mode, nonlinearity)
    return uniform(key, shape, -bound, bound, dtype)


def kaiming_normal(
    key: Key[Array, ""],
    shape: Shape,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: str = "leaky_relu",
    dtype: DTypeLike = jnp.float32,
) -> Inexact[Array, "..."]:
    r"""Normal with deviation :math:`\text{gain} / \sqrt{\text{fan}}`; arguments as of :func:`kaiming_uniform`.

    Source: ``torch.nn.init.kaiming_normal_``; He et al. (2015).
    """
    return normal(key, shape, 0.0, _kaiming_deviation("kaiming_normal", shape, a, mode, nonlinearity), dtype)


def orthogonal(
    key: Key[Array, ""], shape: Shape, gain: float = 1.0, dtype: DTypeLike = jnp.float32
) -> Inexact[Array, "..."]:
    """``gain`` times a matrix with orthonormal rows or, where it has fewer columns than rows, columns; Haar measure.

    Args:
        key: a ``jax.random.key``.
        shape: at least two axes; all but the first are taken for the columns.
        gain: scales the result.
        dtype: of the result.

    Raises:
        ArgumentError: ``shape`` has fewer than two axes.

    Source: ``torch.nn.init.orthogonal_``; Saxe et al. (2014), Mezzadri (2007).
    """
    if len(shape) < 2:
        raise ArgumentError(f"orthogonal: shape must have at least two axes, got {shape}")
    if 0 in shape:
        return jnp.zeros(shape, dtype)
    rows, columns = shape[0], math.prod(shape[1:])
    gaussian = jax.random.normal(key, (max(rows, columns), min(rows, columns)), accumulation_dtype(dtype))
    q, r = jnp.linalg.qr(gaussian)
    # Without the signs the factor would depend on the algorithm of the factorization.
    q = q * jnp.sign(jnp.diagonal(r))
    return (gain * (q.T if rows < columns else q)).reshape(shape).astype(dtype)


def sparse(
    key: Key[Array, ""], shape: Shape, sparsity: float, std: float = 0.01, dtype: DTypeLike = jnp.float32
) -> Inexact[Array, "rows columns"]:
    """Normal with deviation ``std``, but zero in ``ceil(sparsity * rows)`` places of each column.

    Raises:
        ArgumentError: ``shape`` does not have two axes.

    Source: ``torch.nn.init.sparse_``; Martens (2010).
    """
    if len(shape) != 2:
        raise ArgumentError(f"sparse: shape must have two axes, got {shape}")
    value_key, place_key = jax.random.split(key)
    ranks = jnp.broadcast_to(jnp.arange(shape[0])[:, None], shape)
    ranks = jax.random.permutation(place_key, ranks, axis=0, independent=True)
    values = normal(value_key, shape, 0.0, std, dtype)
    return jnp.where(ranks < math.ceil(sparsity * shape[0]), jnp.zeros((), dtype), values)


def _kaiming_deviation(name: str, shape: Shape, a: float, mode: str, nonlinearity: str) -> float:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ArgumentError(f"{name}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(shape)[mode.lower() == "fan_out"]
    # An empty weight has nothing to fill.
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0
