"""Losses of several classes with a margin, and of several labels."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Inexact, Int, Num

from jaxnn.functional._argument import (
    ArgumentError,
    check_reduction,
    check_same_dtype,
    concrete,
    legacy_reduction,
    promoted,
    reduced,
)
from jaxnn.functional._elementwise_loss import broadcast_shape
from jaxnn.functional._input import floating
from jaxnn.functional.activation import logsigmoid

Input = Inexact[ArrayLike, "..."]
Target = Num[ArrayLike, "..."]
Loss = Inexact[Array, "..."]


def soft_margin_loss(
    input: Input,
    target: Target,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""Logistic loss of scores with targets of 1 or -1.

    .. math:: \ell = \log(1 + e^{-yx})

    Finite where torch's overflows.

    Args:
        input: scores, any shape.
        target: 1 or -1, the same shape; broadcasts.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` keeps the shape; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: the shapes do not broadcast, or ``reduction`` is unknown.
        NotImplementedError: neither of the two is floating point.

    Source: ``torch.nn.functional.soft_margin_loss``.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    broadcast_shape("soft_margin_loss", input=input, target=target)
    x, y = promoted(input, target)
    x = floating("soft_margin_loss", x)
    return reduced(jnp.logaddexp(-y * x, jnp.zeros((), x.dtype)), reduction, "soft_margin_loss")


def multilabel_soft_margin_loss(
    input: Input,
    target: Target,
    weight: Input | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""Binary cross entropy of each label, averaged over the labels.

    .. math:: \ell = -\frac{1}{C}\sum_c w_c\,(y_c \log\sigma(x_c) + (1 - y_c)\log\sigma(-x_c))

    Args:
        input: logits, ``(..., C)``.
        target: 0 or 1; broadcasts.
        weight: a factor for each label; broadcasts.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` gives the shape without the labels; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: the shapes do not broadcast, or ``reduction`` is unknown.
        IndexError: ``input`` is a scalar.

    Source: ``torch.nn.functional.multilabel_soft_margin_loss``.
    """
    name = "multilabel_soft_margin_loss"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(name, reduction)
    if jnp.ndim(input) == 0:
        raise IndexError(f"{name}: input must have an axis of labels, got a scalar")
    broadcast_shape(name, input=input, target=target)
    x, y = promoted(input, target)
    loss = -(y * logsigmoid(x) + (1 - y) * logsigmoid(-x))
    if weight is not None:
        broadcast_shape(name, input=loss, weight=weight)
        loss, weight = promoted(loss, weight)
        loss = loss * weight
    return reduced(jnp.sum(loss, x.ndim - 1) / x.shape[-1], reduction, name)


def multi_margin_loss(
    input: Input,
    target: Int[ArrayLike, "..."],
    p: int = 1,
    margin: float = 1.0,
    weight: Float[ArrayLike, " classes"] | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""The target's score above every other by a margin.

    .. math:: \ell_n = \frac{w_{y}}{C}\sum_{c \ne y} \max(0, m - x_{y} + x_c)^p

    Args:
        input: scores, ``(N, C)`` or ``(C,)``.
        target: class indices, ``(N,)`` or ``()``.
        p: 1 or 2.
        margin: :math:`m`.
        weight: ``(C,)``, a factor for each class.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` gives the shape of ``target``; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: ``p`` is neither 1 nor 2, a shape does not fit, a target is no class (under ``jit`` its loss is
            NaN), or ``reduction`` is unknown.

    Source: ``torch.nn.functional.multi_margin_loss``.
    """
    name = "multi_margin_loss"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(name, reduction)
    if p not in (1, 2):
        raise ArgumentError(f"{name}: p must be 1 or 2, got {p}")
    x, y = floating(name, input), jnp.asarray(target)
    rows, flat = _rows(name, x), y.reshape(-1)
    classes = rows.shape[-1]
    if y.ndim > 1 or flat.shape[0] != rows.shape[0]:
        raise ArgumentError(f"{name}: target must hold one class for each row of input {x.shape}, got {y.shape}")
    if weight is not None and jnp.shape(weight) != (classes,):
        raise ArgumentError(f"{name}: weight must have shape ({classes},), got {jnp.shape(weight)}")
    check_same_dtype(name, input=x, weight=weight)
    valid = (flat >= 0) & (flat < classes)
    known = concrete(y)
    if known is not None and (wrong := known[(known < 0) | (known >= classes)]).size:
        raise ArgumentError(f"{name}: target {wrong[0]} is not a class: there are {classes}")
    index = jnp.where(valid, flat, 0)[:, None]
    gap = margin - jnp.take_along_axis(rows, index, 1, mode="clip") + rows
    gap = jnp.where((gap > 0) & (jnp.arange(classes) != index), gap, 0)
    if p == 2:
        gap = lax.square(gap)
    if weight is not None:
        gap = gap * jnp.asarray(weight)[index]
    loss = jnp.where(valid, jnp.sum(gap, -1) / classes, jnp.nan)
    return reduced(loss.reshape(x.shape[:-1] if y.ndim else ()), reduction, name)


def multilabel_margin_loss(
    input: Input,
    target: Int[ArrayLike, "..."],
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""The score of every label above that of every other class by one.

    .. math:: \ell_n = \frac{1}{C}\sum_{y \in Y}\sum_{c \notin Y} \max(0, 1 - x_y + x_c)

    Args:
        input: scores, ``(N, C)`` or ``(C,)``.
        target: the same shape: the labels of each row, class indices closed by a -1; what follows it does not count.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` gives ``(N,)`` or ``()``; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: a shape does not fit, a label is no class (under ``jit`` its loss is NaN), or ``reduction`` is
            unknown.

    Source: ``torch.nn.functional.multilabel_margin_loss``.
    """
    name = "multilabel_margin_loss"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(name, reduction)
    x, y = floating(name, input), jnp.asarray(target)
    if x.shape != y.shape and not (x.ndim == 0 and y.size == 1) and not (y.ndim == 0 and x.size == 1):
        raise ArgumentError(f"{name}: target must have the shape of input, {x.shape}, got {y.shape}")
    rows = _rows(name, x)
    labels = y.reshape(rows.shape)
    classes = rows.shape[-1]
    listed = jnp.cumsum(labels == -1, -1) == 0
    valid = ~listed | ((labels >= 0) & (labels < classes))
    known = concrete(y)
    if known is not None:
        known = known.reshape(rows.shape)
        before_end = np.cumsum(known == -1, -1) == 0
        if (wrong := known[before_end & ((known < 0) | (known >= classes))]).size:
            raise ArgumentError(f"{name}: label {wrong[0]} is not a class: there are {classes}")
    index = jnp.where(listed & valid, labels, 0)
    chosen = jnp.any(listed[..., None] & (index[..., None] == jnp.arange(classes)), -2)
    scores = jnp.take_along_axis(rows, index, -1, mode="clip")
    gap = 1 - scores[..., :, None] + rows[..., None, :]
    counted = listed[..., :, None] & ~chosen[..., None, :]
    loss = jnp.sum(jnp.where(counted & (gap > 0), gap, 0), (-2, -1)) / classes
    loss = jnp.where(valid.all(-1), loss, jnp.nan)
    return reduced(loss.reshape(x.shape[:-1]), reduction, name)


def _rows(name: str, x: Array) -> Array:
    """``x`` as rows of classes."""
    if x.ndim > 2 or (x.ndim and x.shape[-1] == 0):
        raise ArgumentError(f"{name}: input must be (N, C) or (C,) with at least one class, got shape {x.shape}")
    return x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
