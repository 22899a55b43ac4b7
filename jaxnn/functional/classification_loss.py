"""Losses of one class among several."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, Num

from jaxnn.functional._argument import (
    ArgumentError,
    check_reduction,
    check_same_dtype,
    concrete,
    legacy_reduction,
    reduced,
)
from jaxnn.functional._input import floating, widened
from jaxnn.functional.softmaxes import log_softmax

Input = Inexact[ArrayLike, "..."]
Target = Num[ArrayLike, "..."]
Loss = Inexact[Array, "..."]


def nll_loss(
    input: Input,
    target: Target,
    weight: Float[ArrayLike, " classes"] | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""Negative log likelihood of the target class.

    .. math:: \ell_n = -w_{y_n} x_{n, y_n}, \quad \text{the mean being } \sum_n \ell_n / \sum_n w_{y_n}

    Args:
        input: log probabilities, ``(N, C, ...)`` or ``(C,)``.
        target: class indices, ``(N, ...)`` or ``()``.
        weight: ``(C,)``, a factor for each class.
        size_average: deprecated; see ``reduction``.
        ignore_index: targets of this value count nothing.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` gives the shape of ``target``; ``"mean"`` (over the weights of the targets) and ``"sum"``
            give a scalar.

    Raises:
        ArgumentError: the shapes do not fit, ``target`` holds no integers, or ``reduction`` is unknown.
        IndexError: a target is no class; under ``jit`` its loss is NaN.

    Source: ``torch.nn.functional.nll_loss``.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    x = floating("nll_loss", input)
    y = _class_indices("nll_loss", x, target)
    check_same_dtype("nll_loss", input=x, weight=weight)
    return _of_indices("nll_loss", x, y, _class_weights("nll_loss", x, weight), ignore_index, reduction)


def cross_entropy(
    input: Input,
    target: Target,
    weight: Float[ArrayLike, " classes"] | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Loss:
    r"""Cross entropy of logits with a class, or with a distribution over classes.

    .. math:: \ell_n = -\sum_c w_c\, y_{n, c} \log \mathrm{softmax}(x_n)_c

    A class index stands for a distribution that is one there; ``label_smoothing`` mixes in the uniform one.

    Args:
        input: logits, ``(N, C, ...)`` or ``(C,)``.
        target: class indices, ``(N, ...)`` or ``()``; or probabilities of the shape and dtype of ``input``.
        weight: ``(C,)``, a factor for each class.
        size_average: deprecated; see ``reduction``.
        ignore_index: index targets of this value count nothing.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` gives the shape of the class indices; ``"mean"`` and ``"sum"`` give a scalar. The mean is
            over the weights of the targets for indices, over the samples for probabilities.
        label_smoothing: the share of the uniform distribution, in [0, 1].

    Raises:
        ArgumentError: the shapes do not fit, ``label_smoothing`` lies outside [0, 1], ``ignore_index`` is given beside
            probabilities, or ``reduction`` is unknown.
        IndexError: a target is no class; under ``jit`` its loss is NaN.

    Source: ``torch.nn.functional.cross_entropy``; Szegedy et al. (2016) for label smoothing.
    """
    name = "cross_entropy"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(name, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"{name}: label_smoothing must lie in [0, 1], got {label_smoothing}")
    x, y = floating(name, input), jnp.asarray(target)
    if x.ndim == 0:
        raise ArgumentError(f"{name}: input must have an axis of classes, got a scalar")
    weights = _class_weights(name, x, weight)
    check_same_dtype(name, input=x, weight=weight)
    axis = 0 if x.ndim == 1 else 1
    if y.shape == x.shape:
        if not jnp.issubdtype(y.dtype, jnp.floating):
            raise ArgumentError(f"{name}: target of the shape of input must hold probabilities, got {y.dtype}")
        if ignore_index >= 0:
            raise ArgumentError(f"{name}: ignore_index={ignore_index} has no meaning beside probabilities")
        return _of_probabilities(log_softmax(x, axis), y, weights, label_smoothing, reduction, axis)
    y = _class_indices(name, x, target)
    log_probabilities = log_softmax(x, axis)
    plain = _of_indices(name, log_probabilities, y, weights, ignore_index, reduction)
    if label_smoothing == 0:
        return plain
    smooth = _of_uniform(log_probabilities, y, weights, ignore_index, reduction, axis)
    share = label_smoothing / x.shape[axis]
    return (1 - label_smoothing) * plain + share * smooth


def _class_indices(name: str, x: Array, target: Target) -> Array:
    y = jnp.asarray(target)
    if x.ndim == 0:
        raise ArgumentError(f"{name}: input must have an axis of classes, got a scalar")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise ArgumentError(f"{name}: target must hold class indices, got {y.dtype} of shape {y.shape}")
    expected = () if x.ndim == 1 else (x.shape[0], *x.shape[2:])
    if y.shape != expected:
        raise ArgumentError(
            f"{name}: target must have shape {expected} beside input of shape {x.shape} (N, C, ...), got {y.shape}"
        )
    return y


def _class_weights(name: str, x: Array, weight: Float[ArrayLike, " classes"] | None) -> Array | None:
    if weight is None:
        return None
    classes = x.shape[0 if x.ndim == 1 else 1]
    if jnp.shape(weight) != (classes,):
        raise ArgumentError(f"{name}: weight must have shape ({classes},), one for each class, got {jnp.shape(weight)}")
    return jnp.asarray(weight)


def _of_indices(
    name: str, log_probabilities: Array, y: Array, weight: Array | None, ignore_index: int, reduction: str
) -> Array:
    check_reduction(name, reduction)
    axis = 0 if log_probabilities.ndim == 1 else 1
    classes = log_probabilities.shape[axis]
    counted = y != ignore_index
    valid = (y >= 0) & (y < classes)
    known = concrete(y)
    if known is not None and (wrong := known[((known < 0) | (known >= classes)) & (known != ignore_index)]).size:
        raise IndexError(
            f"{name}: target {wrong[0]} is not a class: there are {classes}, and ignore_index={ignore_index}"
        )
    index = jnp.where(valid, y, 0)
    picked = jnp.take_along_axis(log_probabilities, jnp.expand_dims(index, axis), axis, mode="clip").squeeze(axis)
    factor = counted.astype(picked.dtype) if weight is None else jnp.where(counted, weight[index], 0)
    loss = jnp.where(counted, jnp.where(valid, -picked * factor, jnp.nan), 0)
    if reduction != "mean":
        return reduced(loss, reduction, name)
    return (jnp.sum(widened(loss)) / jnp.sum(widened(factor))).astype(loss.dtype)


def _of_uniform(
    log_probabilities: Array, y: Array, weight: Array | None, ignore_index: int, reduction: str, axis: int
) -> Array:
    """The loss with a target that has weight one at every class, on the scale of the loss of indices."""
    shape = [1] * log_probabilities.ndim
    shape[axis] = -1
    terms = log_probabilities if weight is None else log_probabilities * weight.reshape(shape)
    counted = y != ignore_index
    loss = jnp.where(counted, -jnp.sum(terms, axis), 0)
    if reduction != "mean":
        return reduced(loss, reduction)
    index = jnp.clip(y, 0, log_probabilities.shape[axis] - 1)
    factor = counted.astype(loss.dtype) if weight is None else jnp.where(counted, weight[index], 0)
    return (jnp.sum(widened(loss)) / jnp.sum(widened(factor))).astype(loss.dtype)


def _of_probabilities(
    log_probabilities: Array, y: Array, weight: Array | None, label_smoothing: float, reduction: str, axis: int
) -> Array:
    check_same_dtype("cross_entropy", input=log_probabilities, target=y)
    classes = log_probabilities.shape[axis]
    if label_smoothing > 0:
        y = y * (1 - label_smoothing) + label_smoothing / classes
    shape = [1] * log_probabilities.ndim
    shape[axis] = -1
    terms = log_probabilities * y if weight is None else log_probabilities * y * weight.reshape(shape)
    loss = -jnp.sum(terms, axis)
    return reduced(loss, reduction)
