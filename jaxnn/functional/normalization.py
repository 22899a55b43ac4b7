"""Normalization of each example by its own statistics."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact, Real

from jaxnn.functional._argument import ArgumentError, accumulation_dtype, promoted
from jaxnn.functional._input import checked_axis, default_float, floating, widened
from jaxnn.functional._windows import Window
from jaxnn.functional.pooling import axis_sum
from jaxnn.functional.tensors import vector_norm


def layer_norm(
    input: Float[ArrayLike, "*shape"],
    normalized_shape: Sequence[int],
    weight: Float[ArrayLike, "..."] | None = None,
    bias: Float[ArrayLike, "..."] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "*shape"]:
    r"""Zero mean and unit variance over the last axes, then a learnt scale and shift.

    .. math:: y = \frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}}\,\gamma + \beta

    Args:
        input: ``(*, *normalized_shape)``.
        normalized_shape: the sizes of the axes that are normalized together.
        weight: :math:`\gamma`, of shape ``normalized_shape``; float32 is welcome beside a half-precision ``input``.
        bias: :math:`\beta`, as ``weight``.
        eps: added to the (biased) variance, in the squared units of ``input``.

    Raises:
        TypeError: ``normalized_shape`` is not a sequence.
        NotImplementedError: ``input`` is not floating point.
        ArgumentError: ``normalized_shape`` is empty or not the end of the shape of ``input``, or a parameter has
            another shape or dtype.

    Source: ``torch.nn.functional.layer_norm``; Ba et al. (2016).
    """
    input = floating("layer_norm", input)
    axes = _last_axes("layer_norm", input.shape, normalized_shape, weight=weight, bias=bias)
    check_parameter_dtypes("layer_norm", input, weight=weight, bias=bias)
    x = widened(input)
    return affine(standardized(x, jnp.ones((), x.dtype), axes, eps), weight, bias).astype(input.dtype)


def rms_norm(
    input: Inexact[ArrayLike, "*shape"],
    normalized_shape: Sequence[int],
    weight: Inexact[ArrayLike, "..."] | None = None,
    eps: float | None = None,
) -> Inexact[Array, "*shape"]:
    r"""Unit mean square over the last axes, then a learnt scale.

    .. math:: y = \frac{x}{\sqrt{\mathrm{E}[x^2] + \epsilon}}\,\gamma

    Args:
        input: ``(*, *normalized_shape)``; complex too, where :math:`x^2` is the complex square.
        normalized_shape: the sizes of the axes that are normalized together.
        weight: :math:`\gamma`, of shape ``normalized_shape``.
        eps: added to the mean square; by default the machine epsilon of the dtype computed in.

    Raises:
        TypeError: ``normalized_shape`` is not a sequence.
        NotImplementedError: ``input`` is neither floating point nor complex.
        ArgumentError: ``normalized_shape`` is empty or not the end of the shape of ``input``, or ``weight`` has another
            shape.

    Source: ``torch.nn.functional.rms_norm``; Zhang and Sennrich (2019).
    """
    input = floating("rms_norm", input, complex_too=True)
    axes = _last_axes("rms_norm", input.shape, normalized_shape, weight=weight)
    x = widened(input)
    eps = float(jnp.finfo(x.dtype).eps) if eps is None else eps
    output = x * (1 / jnp.sqrt(jnp.mean(x * x, axes, keepdims=True) + eps))
    if weight is not None:
        output, weight = promoted(output, weight)
        output = output * weight
    return output.astype(input.dtype)


def group_norm(
    input: Float[ArrayLike, "*shape"],
    num_groups: int,
    weight: Float[ArrayLike, "..."] | None = None,
    bias: Float[ArrayLike, "..."] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "*shape"]:
    r"""Zero mean and unit variance over each group of channels, then a learnt scale and shift of each channel.

    .. math:: y = \frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}}\,\gamma_c + \beta_c

    Args:
        input: ``(N, C, *)``.
        num_groups: how many groups the channels make; divides C.
        weight: :math:`\gamma`, ``(C,)``; float32 is welcome beside a half-precision ``input``.
        bias: :math:`\beta`, as ``weight``.
        eps: added to the (biased) variance, in the squared units of ``input``.

    Raises:
        NotImplementedError: ``input`` is not floating point.
        ZeroDivisionError: ``num_groups`` is zero.
        ArgumentError: ``input`` has fewer than two axes or a single value to normalize, ``num_groups`` does not divide
            its channels, or a parameter has another shape or dtype.

    Source: ``torch.nn.functional.group_norm``; Wu and He (2018).
    """
    input = floating("group_norm", input)
    if input.ndim < 2:
        raise ArgumentError(f"group_norm: input must have at least two axes, (N, C, *), got shape {input.shape}")
    batch, channels, *spatial = input.shape
    if num_groups < 1 or channels % num_groups:
        error = ArgumentError if num_groups else ZeroDivisionError
        raise error(f"group_norm: num_groups must divide the {channels} channels of input, got {num_groups}")
    if batch * channels // num_groups * math.prod(spatial) == 1:
        raise ArgumentError(f"group_norm: a group must hold more than one value, got input of shape {input.shape}")
    for key, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and np.shape(parameter) != (channels,):
            raise ArgumentError(f"group_norm: {key} must have shape {(channels,)}, got {np.shape(parameter)}")
    check_parameter_dtypes("group_norm", input, weight=weight, bias=bias)
    # Examples and groups as one axis, and the spatial ones as one: XLA shares the first out among threads, also where
    # the batch is one, and vectorizes the last.
    grouped = widened(input).reshape(batch * num_groups, channels // num_groups, math.prod(spatial))

    def of_each_group(parameter: ArrayLike | None) -> Array | None:
        if parameter is None:
            return None
        return jnp.tile(jnp.reshape(parameter, (num_groups, channels // num_groups, 1)), (batch, 1, 1))

    output = standardized(grouped, jnp.ones((), grouped.dtype), (1, 2), eps)
    output = affine(output, of_each_group(weight), of_each_group(bias))
    return output.reshape(input.shape).astype(input.dtype)


def local_response_norm(
    input: Real[ArrayLike, "*shape"], size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Float[Array, "*shape"]:
    r"""Division by the energy of neighbouring channels.

    .. math:: y_c = \frac{x_c}{\left(k + \tfrac{\alpha}{n} \sum_{c'} x_{c'}^2\right)^\beta},
        \quad c - \lfloor n / 2 \rfloor \le c' \le c + \lfloor (n - 1) / 2 \rfloor

    Args:
        input: ``(N, C, *)`` with at least three axes. Of 64-bit integers, whose mean torch rounds down, too.
        size: :math:`n`, the number of neighbouring channels; those beyond the ends count as zero.
        alpha: weight of the neighbours.
        beta: exponent.
        k: what is added to the neighbours.

    Raises:
        ArgumentError: ``input`` has fewer than three axes, or ``size`` is not positive.
        NotImplementedError: ``input`` is neither floating point nor of 64-bit integers.

    Source: ``torch.nn.functional.local_response_norm``; Krizhevsky et al. (2012).
    """
    input = jnp.asarray(input)
    if input.ndim < 3:
        raise ArgumentError(
            f"local_response_norm: input must have at least three axes, (N, C, *), got shape {input.shape}"
        )
    if input.size == 0:
        return input
    integers = input.dtype == jax.dtypes.canonicalize_dtype(np.int64)
    x = input if integers else widened(floating("local_response_norm", input))
    if size < 1:
        raise ArgumentError(f"local_response_norm: size must be positive, got {size}")
    # With the spatial axes as one, XLA's loops are long enough to vectorize.
    x = x.reshape(*x.shape[:2], -1)
    channels = x.shape[1]
    energy = axis_sum(x * x, 1, Window(channels, size, 1, size // 2, 1, channels))
    mean = default_float(energy // size) if integers else energy / size
    output = default_float(x) / _power(mean * alpha + k, beta)
    return (output if integers else output.astype(input.dtype)).reshape(input.shape)


def normalize(
    input: Inexact[ArrayLike, "*shape"],
    p: float = 2.0,
    dim: int | Sequence[int] | None = 1,
    eps: float = 1e-12,
    out: None = None,
) -> Inexact[Array, "*shape"]:
    r"""Unit p-norm along an axis.

    .. math:: y = \frac{x}{\max(\lVert x \rVert_p, \epsilon)}

    Args:
        input: any shape; complex too. At zero the norm's derivative is taken to be zero.
        p: order of the norm; infinite, zero and negative ones too.
        dim: the axis of a vector, or several; all of them if ``None`` or empty.
        eps: the least divisor, in the units of ``input``.
        out: not supported, for JAX's arrays are immutable; ``None``.

    Raises:
        IndexError: ``input`` has no axis ``dim``.
        ArgumentError: ``input`` is neither floating point nor complex, an axis is given twice, vectors are empty and
            ``p`` is negative or infinite, or ``out`` is given.

    Source: ``torch.nn.functional.normalize``.
    """
    if out is not None:
        raise ArgumentError("normalize: out must be None, JAX's arrays are immutable; use the result")
    input = jnp.asarray(input)
    if not jnp.issubdtype(input.dtype, jnp.inexact):
        raise ArgumentError(f"normalize: input must be floating point or complex, got {input.dtype}")
    dims = (dim,) if isinstance(dim, int) else tuple(dim or range(input.ndim))
    axes = tuple(checked_axis("normalize", d, input.ndim) for d in dims)
    if len(set(axes)) < len(axes):
        raise ArgumentError(f"normalize: dim must not name an axis twice, got {dim}")
    x = jnp.atleast_1d(widened(input))
    if (p < 0 or p == math.inf) and any(x.shape[axis] == 0 for axis in axes):
        raise ArgumentError(f"normalize: vectors of input {input.shape} along dim={dim} are empty and have no {p}-norm")
    norm = vector_norm(x, p, axes or (0,), keepdim=True)
    # A selection: the derivative of a maximum would be halved where the two are equal.
    divisor = jnp.where(norm < eps, eps, norm).astype(x.dtype)
    return _quotient(x, divisor).reshape(input.shape).astype(input.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def standardized(
    x: Float[Array, "*shape"], scale: Float[Array, "..."], axes: tuple[int, ...], eps: float
) -> Float[Array, "*shape"]:
    """``x`` at zero mean and unit variance over ``axes``, times ``scale``; ``eps`` is added to the variance.

    ``scale`` broadcasts against ``x`` and must not vary along ``axes``.
    """
    unscaled, _ = _standardized(x, axes, eps)
    return unscaled * scale


def _standardized(
    x: Float[Array, "*shape"], axes: tuple[int, ...], eps: float
) -> tuple[Float[Array, "*shape"], Float[Array, "..."]]:
    # In two passes: the mean of the squares less the square of the mean would cancel.
    centred = x - jnp.mean(x, axes, keepdims=True)
    inverse = 1 / jnp.sqrt(jnp.mean(centred * centred, axes, keepdims=True) + eps)
    return centred * inverse, inverse


@standardized.defjvp
def _standardized_jvp(axes: tuple[int, ...], eps: float, primals: tuple, tangents: tuple) -> tuple:
    # The projection is its own transpose. Scaling before it lets the gradient share its two sums over ``axes`` with the
    # gradients of ``scale`` and of a bias.
    (x, scale), (x_tangent, scale_tangent) = primals, tangents
    unscaled, inverse = _standardized(x, axes, eps)
    moved = x_tangent * (inverse * scale)
    along = jnp.mean(unscaled * moved, axes, keepdims=True)
    projected = moved - jnp.mean(moved, axes, keepdims=True) - unscaled * along
    return unscaled * scale, projected + unscaled * scale_tangent


def affine(
    x: Float[Array, "*shape"], weight: ArrayLike | None, bias: ArrayLike | None, shape: tuple[int, ...] | None = None
) -> Float[Array, "*shape"]:
    """``x * weight + bias`` in the dtype of ``x``, the two brought to ``shape`` first; either may be missing."""
    if weight is not None:
        weight = jnp.asarray(weight, x.dtype)
        x = x * (weight if shape is None else weight.reshape(shape))
    if bias is not None:
        bias = jnp.asarray(bias, x.dtype)
        x = x + (bias if shape is None else bias.reshape(shape))
    return x


def per_channel(ndim: int) -> tuple[int, ...]:
    """The shape in which one number a channel broadcasts along axis 1 of ``ndim``."""
    return (-1, *(1,) * (ndim - 2))


def check_parameter_dtypes(name: str, input: Array, **parameters: ArrayLike | None) -> None:
    """Refuse parameters that are neither all in the dtype of ``input`` nor all in the one it is computed in."""
    dtypes = {key: jnp.asarray(value).dtype for key, value in parameters.items() if value is not None}
    if dtypes and not any(set(dtypes.values()) == {d} for d in (input.dtype, accumulation_dtype(input.dtype))):
        found = ", ".join(f"{key} {dtype}" for key, dtype in dtypes.items())
        raise ArgumentError(f"{name}: parameters must have the dtype of input, {input.dtype}, got {found}")


def _last_axes(
    name: str, shape: tuple[int, ...], normalized_shape: Sequence[int], **parameters: ArrayLike | None
) -> tuple[int, ...]:
    if not isinstance(normalized_shape, Sequence):
        raise TypeError(f"{name}: normalized_shape must be a sequence of integers, got {normalized_shape!r}")
    normalized = tuple(normalized_shape)
    if not normalized:
        raise ArgumentError(f"{name}: normalized_shape must name at least one axis, got {normalized}")
    if shape[-len(normalized) :] != normalized:
        raise ArgumentError(f"{name}: input must end in normalized_shape={normalized}, got shape {shape}")
    for key, parameter in parameters.items():
        if parameter is not None and np.shape(parameter) != normalized:
            raise ArgumentError(f"{name}: {key} must have shape {normalized}, got {np.shape(parameter)}")
    return tuple(range(len(shape) - len(normalized), len(shape)))


@jax.custom_jvp
def _quotient(x: Inexact[Array, "*shape"], divisor: Inexact[Array, "..."]) -> Inexact[Array, "*shape"]:
    return x / divisor


@_quotient.defjvp
def _quotient_jvp(primals: tuple, tangents: tuple) -> tuple:
    # In this order what should cancel does: the direction of a vector of one element has no derivative.
    (x, divisor), (x_tangent, divisor_tangent) = primals, tangents
    output = _quotient(x, divisor)
    return output, (x_tangent - output * divisor_tangent) / divisor


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _power(x: Float[Array, "*shape"], exponent: float) -> Float[Array, "*shape"]:
    return x**exponent


@_power.defjvp
def _power_jvp(exponent: float, primals: tuple, tangents: tuple) -> tuple:
    # From the result, which spares a second power, of the exponent less one.
    (x,), (tangent,) = primals, tangents
    power = _power(x, exponent)
    at_infinity = 0 if exponent < 1 else power
    return power, tangent * (exponent * jnp.where(jnp.isinf(x), at_infinity, power / x))
