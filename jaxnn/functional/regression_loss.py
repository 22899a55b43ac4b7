"""Losses of real predictions."""

import math
import warnings
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Inexact, Num

from jaxnn.functional._argument import ArgumentError, check_reduction, concrete, legacy_reduction, promoted, reduced
from jaxnn.functional._elementwise_loss import broadcast_shape, paired, weighted
from jaxnn.functional._input import default_float, floating, magnitude
from jaxnn.functional._tangents import with_tangent

Input = Inexact[ArrayLike, "..."]
Target = Num[ArrayLike, "..."]
Loss = Num[Array, "..."]


def mse_loss(
    input: Target,
    target: Target,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Target | None = None,
) -> Loss:
    r"""Squared error.

    .. math:: \ell = (x - y)^2

    Args:
        input: predictions, any shape.
        target: the same shape; another is broadcast, with a warning.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` keeps the shape; ``"mean"`` and ``"sum"`` give a scalar.
        weight: a factor for each element, of the shape of ``input``; the mean is then over the weights.

    Raises:
        ArgumentError: the shapes do not broadcast, ``weight`` has another, or ``reduction`` is unknown.
        NotImplementedError: neither of the two is floating point, and there is no ``weight``.

    Source: ``torch.nn.functional.mse_loss``.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    x, y = paired("mse_loss", input, target, subtraction=weight is not None)
    return weighted("mse_loss", lax.square(x - y), weight, jnp.shape(input), reduction)


def l1_loss(
    input: Target,
    target: Target,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Target | None = None,
) -> Loss:
    r"""Absolute error.

    .. math:: \ell = |x - y|

    Args:
        input: predictions, any shape; complex ones give a real loss, integers one of integers, without a mean.
        target: the same shape; another is broadcast, with a warning.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` keeps the shape; ``"mean"`` and ``"sum"`` give a scalar.
        weight: a factor for each element, of the shape of ``input``; the mean is then over the weights.

    Raises:
        ArgumentError: the shapes do not broadcast, ``weight`` has another, one of the two is boolean, ``reduction`` is
            unknown, or the mean is asked of integers.

    Source: ``torch.nn.functional.l1_loss``.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    x, y = paired("l1_loss", input, target, subtraction=True)
    return weighted("l1_loss", magnitude(x - y), weight, jnp.shape(input), reduction)


def smooth_l1_loss(
    input: Target,
    target: Target,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Loss:
    r"""Quadratic within ``beta`` of the target, of slope one beyond.

    .. math:: \ell = \frac{e^2}{2\beta} \text{ if } |e| < \beta, \text{ else } |e| - \tfrac12\beta, \quad e = x - y

    Args:
        input: predictions, any shape.
        target: the same shape; another is broadcast, with a warning.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` keeps the shape; ``"mean"`` and ``"sum"`` give a scalar.
        beta: where the loss turns linear, in the units of ``input``; zero makes it :func:`l1_loss`.

    Raises:
        ArgumentError: ``beta`` is negative, the shapes do not broadcast, or ``reduction`` is unknown.

    Source: ``torch.nn.functional.smooth_l1_loss``; Girshick (2015).
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if beta < 0:
        raise ArgumentError(f"smooth_l1_loss: beta cannot be negative, got {beta}")
    x, y = paired("smooth_l1_loss", input, target, subtraction=not beta)
    loss = _huber(x - y, beta) / beta if beta else magnitude(x - y)
    return reduced(loss, reduction, "smooth_l1_loss")


def huber_loss(
    input: Target,
    target: Target,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Input | None = None,
) -> Loss:
    r"""Quadratic within ``delta`` of the target, linear beyond.

    .. math:: \ell = \tfrac12 e^2 \text{ if } |e| \le \delta, \text{ else } \delta(|e| - \tfrac12\delta),
        \quad e = x - y

    Args:
        input: predictions, any shape.
        target: the same shape; another is broadcast, with a warning.
        reduction: ``"none"`` keeps the shape; ``"mean"`` and ``"sum"`` give a scalar.
        delta: where the loss turns linear, in the units of ``input``; positive.
        weight: a factor for each element, of the shape of ``input``; the mean is over the elements all the same.

    Raises:
        ArgumentError: ``delta`` is not positive, the shapes do not broadcast, or ``reduction`` is unknown.
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.huber_loss``; Huber (1964).
    """
    if delta <= 0:
        raise ArgumentError(f"huber_loss: delta must be positive, got {delta}")
    x, y = paired("huber_loss", input, target)
    x = x.astype(floating("huber_loss", input).dtype)
    loss = _huber(x - y.astype(x.dtype), delta)
    return weighted("huber_loss", loss, weight, jnp.shape(input), reduction, mean_of_weights=False)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _huber(error: Inexact[Array, "*shape"], delta: float) -> Inexact[Array, "*shape"]:
    size = lax.abs(error)
    return jnp.where(size < delta, 0.5 * size * size, delta * (size - 0.5 * delta))


@_huber.defjvp
def _huber_jvp(delta: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # By hand: of an infinite error the derivative of the branch not taken is not a number.
    (error,), (moved,) = primals, tangents
    slope = jnp.where(lax.abs(error) < delta, error, delta * lax.sign(error))
    return _huber(error, delta), slope * moved


def poisson_nll_loss(
    input: Target,
    target: Target,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""Negative log likelihood of counts under a Poisson distribution, without its constant term.

    .. math:: \ell = e^x - yx, \quad \text{or } x - y\log(x + \epsilon) \text{ where } x \text{ is the rate itself}

    Args:
        input: log rates, or rates without ``log_input``.
        target: counts; broadcasts against ``input``.
        log_input: whether ``input`` is the logarithm of the rate.
        full: add Stirling's approximation of :math:`\log y!` where :math:`y > 1`.
        size_average: deprecated; see ``reduction``.
        eps: keeps the logarithm finite without ``log_input``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` keeps the shape; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: ``reduction`` is unknown.

    Source: ``torch.nn.functional.poisson_nll_loss``.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("poisson_nll_loss", reduction)
    broadcast_shape("poisson_nll_loss", input=input, target=target)
    x, y = (default_float(x) for x in promoted(input, target))
    loss = jnp.exp(x) - y * x if log_input else x - y * jnp.log(x + eps)
    if full:
        many = y > 1
        safe = jnp.where(many, y, 1)
        loss += jnp.where(many, safe * jnp.log(safe) - safe + 0.5 * jnp.log(2 * math.pi * safe), 0)
    return reduced(loss, reduction, "poisson_nll_loss")


def gaussian_nll_loss(
    input: Input,
    target: Target,
    var: Target,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Loss:
    r"""Negative log likelihood under a normal distribution, without its constant term.

    .. math:: \ell = \tfrac12\left(\log v + \frac{(x - y)^2}{v}\right), \quad v = \max(\text{var}, \epsilon)

    The bound on the variance does not stop its gradient.

    Args:
        input: means, any shape.
        target: broadcasts against ``input``.
        var: variances: the shape of ``input``, the same without its last axis or with one axis of size one, or a
            number.
        full: add the constant :math:`\tfrac12\log 2\pi`.
        eps: the least variance.
        reduction: ``"none"`` keeps the shape; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: ``var`` is negative somewhere (under ``jit`` the result is NaN), ``var`` has another shape, or
            ``reduction`` is unknown.

    Source: ``torch.nn.functional.gaussian_nll_loss``; Nix and Weigend (1994).
    """
    check_reduction("gaussian_nll_loss", reduction)
    x, y, v = promoted(input, target, jnp.full_like(jnp.asarray(input), var) if isinstance(var, float) else var)
    known = concrete(v)
    if known is not None and (known < 0).any():
        raise ArgumentError(f"gaussian_nll_loss: var cannot be negative, got {known.min()} in it")
    if v.shape != x.shape:
        if v.shape == x.shape[:-1]:
            v = v[..., None]
        elif v.ndim != x.ndim or not _one_axis_is_one(x.shape, v.shape):
            raise ArgumentError(f"gaussian_nll_loss: var must fit input of shape {x.shape}, got {v.shape}")
    broadcast_shape("gaussian_nll_loss", input=x, target=y, var=v)
    valid = v >= 0
    bounded = with_tangent(jnp.maximum(v, eps), v)
    loss = 0.5 * (jnp.log(bounded) + lax.square(x - y) / bounded)
    if full:
        loss += 0.5 * math.log(2 * math.pi)
    return reduced(jnp.where(valid, loss, jnp.nan), reduction, "gaussian_nll_loss")


def _one_axis_is_one(shape: tuple[int, ...], var_shape: tuple[int, ...]) -> bool:
    differing = [m for n, m in zip(shape, var_shape, strict=True) if n != m]
    return differing == [1]


def kl_div(
    input: Input,
    target: Target,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Loss:
    r"""Kullback-Leibler divergence of a distribution from the one predicted, term by term.

    .. math:: \ell = y(\log y - x), \quad \text{or } e^y(y - x) \text{ where } y \text{ is a log probability}

    Args:
        input: log probabilities, any shape.
        target: probabilities, or log probabilities with ``log_target``; broadcasts against ``input``.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` keeps the shape; ``"mean"`` (over all elements, with torch's warning that this is not the
            divergence), ``"sum"`` and ``"batchmean"`` (the sum by the length of the first axis) give a scalar.
        log_target: whether ``target`` holds logarithms.

    Raises:
        ArgumentError: ``reduction`` is unknown, the shapes do not broadcast, or the two are not floating point.

    Source: ``torch.nn.functional.kl_div``.
    """
    if size_average is None and reduce is None and reduction == "mean":
        warnings.warn(
            "kl_div: reduction='mean' divides by the number of elements; 'batchmean' is the divergence", stacklevel=2
        )
    reduction = legacy_reduction(size_average, reduce, reduction)
    x, y = jnp.asarray(input), jnp.asarray(target)
    if not (jnp.issubdtype(x.dtype, jnp.floating) and jnp.issubdtype(y.dtype, jnp.floating)):
        raise ArgumentError(f"kl_div: input and target must be floating point, got {x.dtype} and {y.dtype}")
    broadcast_shape("kl_div", input=x, target=y)
    x, y = promoted(x, y)
    # 0 log 0 is 0; in the target it has no derivative there, and as in torch the gradient is NaN.
    loss = jnp.exp(y) * (y - x) if log_target else jnp.where(y == 0, 0, y * jnp.log(y)) - y * x
    if reduction == "batchmean":
        return jnp.sum(loss) / (x.shape[0] if x.ndim else 1)
    return reduced(loss, reduction, "kl_div")
