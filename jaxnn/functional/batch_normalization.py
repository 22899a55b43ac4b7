"""Normalization of each channel over a batch, and of each channel of each example, with running statistics."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jaxnn.functional._argument import ArgumentError
from jaxnn.functional._input import floating, widened
from jaxnn.functional.normalization import affine, check_parameter_dtypes, per_channel, standardized

Statistics = Float[ArrayLike, " channels"]
Parameter = Float[ArrayLike, "..."]
Momentum = float | Float[ArrayLike, ""]
Normalized = tuple[Float[Array, "*shape"], Float[Array, " channels"] | None, Float[Array, " channels"] | None]


def batch_norm(
    input: Float[ArrayLike, "*shape"],
    running_mean: Statistics | None,
    running_var: Statistics | None,
    weight: Parameter | None = None,
    bias: Parameter | None = None,
    training: bool = False,
    momentum: Momentum = 0.1,
    eps: float = 1e-5,
) -> Float[Array, "*shape"]:
    r"""Zero mean and unit variance of each channel over the batch, then a learnt scale and shift.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}}\,\gamma_c + \beta_c

    Args:
        input: ``(N, C, *)``.
        running_mean: :math:`\mu` outside training, ``(C,)``; float32 is welcome beside a half-precision ``input``, as
            for the three below.
        running_var: :math:`\sigma^2` outside training, ``(C,)``.
        weight: :math:`\gamma`, ``(C,)``.
        bias: :math:`\beta`, ``(C,)``.
        training: take mean and (biased) variance of ``input`` over all axes but the channels'.
        momentum: the weight of ``input`` in the new running statistics, which
            :func:`batch_norm_with_stats` returns.
        eps: added to the variance, in the squared units of ``input``; positive in training.

    Raises:
        NotImplementedError: ``input`` is not floating point.
        ArgumentError: ``input`` has fewer than two axes or, in training, one value a channel; ``eps`` is negative, or
            zero in training; one running statistic is missing, or both outside training; a statistic or parameter has
            another number of elements or another dtype.

    Source: ``torch.nn.functional.batch_norm``; Ioffe and Szegedy (2015).
    """
    return batch_norm_with_stats(input, running_mean, running_var, weight, bias, training, momentum, eps)[0]


def batch_norm_with_stats(
    input: Float[ArrayLike, "*shape"],
    running_mean: Statistics | None,
    running_var: Statistics | None,
    weight: Parameter | None = None,
    bias: Parameter | None = None,
    training: bool = False,
    momentum: Momentum = 0.1,
    eps: float = 1e-5,
) -> Normalized:
    r""":func:`batch_norm`, and the running statistics as torch would have left them.

    .. math:: \mu' = (1 - m)\,\mu + m\,\mathrm{E}[x], \quad
        \sigma'^2 = (1 - m)\,\sigma^2 + m\,\tfrac{n}{n - 1} \mathrm{Var}[x]

    Args:
        input: ``(N, C, *)``.
        running_mean: :math:`\mu`, ``(C,)``.
        running_var: :math:`\sigma^2`, ``(C,)``.
        weight: as for :func:`batch_norm`.
        bias: as for :func:`batch_norm`.
        training: without it the statistics stay as they are.
        momentum: :math:`m`, the weight of ``input``; a number, or an array of none but one.
        eps: as for :func:`batch_norm`.

    Returns:
        The output, the new running mean and the new running variance, both ``None`` where they were not given. No
        gradient flows through them.

    Raises:
        NotImplementedError: as :func:`batch_norm`.
        ArgumentError: as :func:`batch_norm`.

    Source: ``torch.nn.functional.batch_norm``; Ioffe and Szegedy (2015).
    """
    input = floating("batch_norm", input)
    # Torch takes a single axis where it is empty.
    if input.ndim < 2 and (input.ndim == 0 or input.size):
        raise ArgumentError(f"batch_norm: input must have at least two axes, (N, C, *), got shape {input.shape}")
    if training and input.shape[0] * math.prod(input.shape[2:]) == 1:
        raise ArgumentError(f"batch_norm: training needs more than one value a channel, got shape {input.shape}")
    if eps < 0 or (training and eps == 0):
        raise ArgumentError(f"batch_norm: eps must be {'positive' if training else 'non-negative'}, got {eps}")
    axes = (0, *range(2, input.ndim)) if training else None
    return _normalized("batch_norm", input, running_mean, running_var, weight, bias, axes, momentum, eps)


def instance_norm(
    input: Float[ArrayLike, "*shape"],
    running_mean: Statistics | None = None,
    running_var: Statistics | None = None,
    weight: Parameter | None = None,
    bias: Parameter | None = None,
    use_input_stats: bool = True,
    momentum: Momentum = 0.1,
    eps: float = 1e-5,
) -> Float[Array, "*shape"]:
    r"""Zero mean and unit variance of each channel of each example, then a learnt scale and shift.

    .. math:: y = \frac{x - \mu_{nc}}{\sqrt{\sigma_{nc}^2 + \epsilon}}\,\gamma_c + \beta_c

    Args:
        input: ``(N, C, *)``.
        running_mean: :math:`\mu` without ``use_input_stats``, ``(C,)``; float32 is welcome beside a half-precision
            ``input``, as for the three below.
        running_var: :math:`\sigma^2` without ``use_input_stats``, ``(C,)``.
        weight: :math:`\gamma`, ``(C,)``.
        bias: :math:`\beta`, ``(C,)``.
        use_input_stats: take mean and (biased) variance of each example over its spatial axes.
        momentum: the weight of ``input`` in the new running statistics, which :func:`instance_norm_with_stats` returns.
        eps: added to the variance, in the squared units of ``input``.

    Raises:
        NotImplementedError: ``input`` is not floating point.
        ArgumentError: ``input`` has fewer than two axes or, with ``use_input_stats``, a single spatial element; one
            running statistic is missing, or both without ``use_input_stats``; a statistic or parameter has another
            number of elements or another dtype.

    Source: ``torch.nn.functional.instance_norm``; Ulyanov et al. (2016).
    """
    return instance_norm_with_stats(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)[0]


def instance_norm_with_stats(
    input: Float[ArrayLike, "*shape"],
    running_mean: Statistics | None = None,
    running_var: Statistics | None = None,
    weight: Parameter | None = None,
    bias: Parameter | None = None,
    use_input_stats: bool = True,
    momentum: Momentum = 0.1,
    eps: float = 1e-5,
) -> Normalized:
    r""":func:`instance_norm`, and the running statistics as torch would have left them.

    .. math:: \mu' = (1 - m)\,\mu + \tfrac{m}{N} \sum_n \mathrm{E}[x_n], \quad
        \sigma'^2 = (1 - m)\,\sigma^2 + \tfrac{m}{N} \sum_n \tfrac{L}{L - 1} \mathrm{Var}[x_n]

    Args:
        input: ``(N, C, *)``, with L spatial elements.
        running_mean: :math:`\mu`, ``(C,)``.
        running_var: :math:`\sigma^2`, ``(C,)``.
        weight: as for :func:`instance_norm`.
        bias: as for :func:`instance_norm`.
        use_input_stats: without it the statistics stay as they are.
        momentum: :math:`m`, the weight of ``input``; a number, or an array of none but one.
        eps: as for :func:`instance_norm`.

    Returns:
        The output, the new running mean and the new running variance, both ``None`` where they were not given. No
        gradient flows through them.

    Raises:
        NotImplementedError: as :func:`instance_norm`.
        ArgumentError: as :func:`instance_norm`.

    Source: ``torch.nn.functional.instance_norm``; Ulyanov et al. (2016).
    """
    input = floating("instance_norm", input)
    if use_input_stats and math.prod(input.shape[2:]) == 1:
        raise ArgumentError(f"instance_norm: an example needs more than one spatial element, got shape {input.shape}")
    if input.ndim < 2:
        raise ArgumentError(f"instance_norm: input must have at least two axes, (N, C, *), got shape {input.shape}")
    axes = tuple(range(2, input.ndim)) if use_input_stats else None
    return _normalized("instance_norm", input, running_mean, running_var, weight, bias, axes, momentum, eps)


def _normalized(
    name: str,
    input: Float[Array, "*shape"],
    running_mean: Statistics | None,
    running_var: Statistics | None,
    weight: Parameter | None,
    bias: Parameter | None,
    axes: tuple[int, ...] | None,
    momentum: Momentum,
    eps: float,
) -> Normalized:
    """Over ``axes`` by the statistics of ``input``, or, where they are ``None``, by the running ones."""
    if momentum is None:
        raise TypeError(f"{name}: momentum must be a number, got None; only a layer counts the batches for a mean")
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    channels = input.shape[1] if input.ndim > 1 else 0
    for key, array in given.items():
        if array is not None and np.size(array) != channels:
            raise ArgumentError(f"{name}: {key} must hold {channels} elements, got shape {np.shape(array)}")
    check_parameter_dtypes(name, input, **given)
    x, shape = widened(input), per_channel(input.ndim)
    if axes is None:
        if running_mean is None or running_var is None:
            raise ArgumentError(f"{name}: running_mean and running_var must be given where input's own are not used")
        mean, variance = jnp.asarray(running_mean), jnp.asarray(running_var)
        scale = affine(1 / jnp.sqrt(variance.astype(x.dtype) + eps), weight, None).reshape(shape)
        output = affine((x - mean.astype(x.dtype).reshape(shape)) * scale, None, bias, shape)
        return output.astype(input.dtype), mean, variance
    if (running_mean is None) != (running_var is None):
        raise ArgumentError(f"{name}: running_mean and running_var must both be given or neither")
    scale = jnp.ones((), x.dtype) if weight is None else jnp.asarray(weight, x.dtype).reshape(shape)
    output = affine(standardized(x, scale, axes, eps), None, bias, shape).astype(input.dtype)
    if running_mean is None or running_var is None:
        return output, None, None
    return output, *_updated(x, jnp.asarray(running_mean), jnp.asarray(running_var), axes, momentum)


def _updated(
    x: Float[Array, "*shape"],
    running_mean: Float[Array, " channels"],
    running_var: Float[Array, " channels"],
    axes: tuple[int, ...],
    momentum: Momentum,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """The running statistics moved by ``momentum`` towards the mean and the unbiased variance over ``axes``."""
    if x.size == 0:
        return running_mean, running_var
    values = math.prod(x.shape[axis] for axis in axes)
    x = lax.stop_gradient(x)
    mean = jnp.mean(x, axes, keepdims=True)
    centred = x - mean
    variance = jnp.mean(centred * centred, axes, keepdims=True) * (values / (values - 1))
    weight = jnp.asarray(momentum, x.dtype)

    def moved(running: Float[Array, " channels"], found: Float[Array, "..."]) -> Float[Array, " channels"]:
        mean_over_batch = jnp.mean(found.reshape(-1, found.shape[1]), 0)
        return ((1 - weight) * running.astype(x.dtype) + weight * mean_over_batch).astype(running.dtype)

    return moved(running_mean, mean), moved(running_var, variance)
