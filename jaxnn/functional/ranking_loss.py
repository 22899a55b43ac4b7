"""Losses with a margin, of pairs and triplets."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Num

from jaxnn.functional._argument import ArgumentError, check_reduction, legacy_reduction, promoted, reduced
from jaxnn.functional._elementwise_loss import broadcast_shape
from jaxnn.functional._input import default_float, floating
from jaxnn.functional.distance import pairwise_distance

Input = Inexact[ArrayLike, "..."]
Target = Num[ArrayLike, "..."]
Loss = Inexact[Array, "..."]

COSINE_EPSILON = 1e-12
"""What torch adds to squared norms in ``cosine_embedding_loss``."""


def margin_ranking_loss(
    input1: Target,
    input2: Target,
    target: Target,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""Which of two scores should be the larger, by a margin.

    .. math:: \ell = \max(0, -y(x_1 - x_2) + m)

    Args:
        input1: scores.
        input2: scores, with as many axes; the shapes broadcast.
        target: 1 where ``input1`` should be the larger, -1 where ``input2`` should.
        margin: :math:`m`.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` keeps the shape; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: the three differ in their number of axes, do not broadcast, or ``reduction`` is unknown.

    Source: ``torch.nn.functional.margin_ranking_loss``.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if not jnp.ndim(input1) == jnp.ndim(input2) == jnp.ndim(target):
        raise ArgumentError(
            "margin_ranking_loss: input1, input2 and target must have as many axes, "
            f"got shapes {jnp.shape(input1)}, {jnp.shape(input2)} and {jnp.shape(target)}"
        )
    broadcast_shape("margin_ranking_loss", input1=input1, input2=input2, target=target)
    first, second, y = (default_float(x) for x in promoted(input1, input2, target))
    return reduced(hinge(-y * (first - second) + margin), reduction, "margin_ranking_loss")


def hinge_embedding_loss(
    input: Input,
    target: Target,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""A distance to be small for similar pairs and beyond a margin for dissimilar ones.

    .. math:: \ell = x \text{ if } y = 1, \quad \max(0, m - x) \text{ if } y = -1

    Args:
        input: distances, any shape.
        target: 1 or -1; broadcasts against ``input``.
        margin: :math:`m`.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` keeps the shape; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: the shapes do not broadcast, or ``reduction`` is unknown.
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.hinge_embedding_loss``.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    broadcast_shape("hinge_embedding_loss", input=input, target=target)
    # The target picks and does not promote: in torch its dtype leaves no trace.
    x, y = floating("hinge_embedding_loss", input), jnp.asarray(target)
    loss = jnp.where(y != 1, hinge(margin - x), 0) + jnp.where(y != -1, x, 0)
    return reduced(loss, reduction, "hinge_embedding_loss")


def cosine_embedding_loss(
    input1: Input,
    input2: Input,
    target: Target,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""An angle to be small for similar pairs and beyond a margin for dissimilar ones.

    .. math:: \ell = 1 - \cos(x_1, x_2) \text{ if } y = 1, \quad \max(0, \cos(x_1, x_2) - m) \text{ if } y = -1

    Args:
        input1: ``(N, D)`` or ``(D,)``.
        input2: the same shape.
        target: ``(N,)`` or ``()``, 1 or -1.
        margin: :math:`m`.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` gives the shape of ``target``; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: the shapes do not fit, or ``reduction`` is unknown.

    Source: ``torch.nn.functional.cosine_embedding_loss``.
    """
    name = "cosine_embedding_loss"
    reduction = legacy_reduction(size_average, reduce, reduction)
    y = jnp.asarray(target)
    if y.ndim > 1 or not jnp.ndim(input1) == jnp.ndim(input2) == y.ndim + 1:
        raise ArgumentError(
            f"{name}: input1 and input2 must be (N, D) beside a target of (N,), or (D,) beside (), "
            f"got {jnp.shape(input1)}, {jnp.shape(input2)} and {y.shape}"
        )
    shape = broadcast_shape(name, input1=input1, input2=input2)
    first, second = (default_float(x) for x in promoted(input1, input2))
    product = jnp.sum(first * second, -1)
    norms = [jnp.sum(x * x, -1) + COSINE_EPSILON for x in (first, second)]
    cosine = product / jnp.sqrt(norms[0] * norms[1])
    broadcast_shape(name, rows=jnp.zeros(shape[:-1]), target=y)
    loss = jnp.where(y == 1, 1 - cosine, 0) + jnp.where(y == -1, hinge(cosine - margin), 0)
    return reduced(loss, reduction, name)


def triplet_margin_loss(
    anchor: Input,
    positive: Input,
    negative: Input,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Loss:
    r"""The anchor nearer to the positive than to the negative, by a margin.

    .. math:: \ell = \max(0, d(a, p) - d(a, n) + m)

    Args:
        anchor: ``(N, D)`` or ``(D,)``.
        positive: as many axes.
        negative: as many axes.
        margin: :math:`m`, positive.
        p: the norm of the distance; see :func:`pairwise_distance`.
        eps: of the distance.
        swap: let the positive stand for the anchor where it is nearer to the negative.
        size_average: deprecated; see ``reduction``.
        reduce: deprecated; see ``reduction``.
        reduction: ``"none"`` gives ``(N,)`` or ``()``; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: ``margin`` is not positive, the shapes do not fit, or ``reduction`` is unknown.

    Source: ``torch.nn.functional.triplet_margin_loss``; Balntas et al. (2016).
    """
    reduction = legacy_reduction(size_average, reduce, reduction)

    def distance(first: Input, second: Input) -> Array:
        return pairwise_distance(first, second, p, eps)

    return _triplet("triplet_margin_loss", (anchor, positive, negative), distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Input,
    positive: Input,
    negative: Input,
    *,
    distance_function: Callable[[Array, Array], Array] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Loss:
    r"""As :func:`triplet_margin_loss`, with any distance.

    Args:
        anchor: ``(N, ...)``.
        positive: as many axes.
        negative: as many axes.
        distance_function: of two arrays; :func:`pairwise_distance` unless given.
        margin: :math:`m`, positive.
        swap: let the positive stand for the anchor where it is nearer to the negative.
        reduction: ``"none"`` gives what the distance gives; ``"mean"`` and ``"sum"`` give a scalar.

    Raises:
        ArgumentError: ``margin`` is not positive, the shapes do not fit, or ``reduction`` is unknown.

    Source: ``torch.nn.functional.triplet_margin_with_distance_loss``.
    """
    distance = distance_function or pairwise_distance
    return _triplet(
        "triplet_margin_with_distance_loss", (anchor, positive, negative), distance, margin, swap, reduction
    )


def _triplet(
    name: str,
    triplet: tuple[Input, Input, Input],
    distance: Callable[..., Array],
    margin: float,
    swap: bool,
    reduction: str,
) -> Loss:
    check_reduction(name, reduction)
    if margin <= 0:
        raise ArgumentError(f"{name}: margin must be positive, got {margin}")
    shapes = [jnp.shape(x) for x in triplet]
    if len({len(shape) for shape in shapes}) > 1:
        raise ArgumentError(f"{name}: anchor, positive and negative must have as many axes, got shapes {shapes}")
    broadcast_shape(name, anchor=triplet[0], positive=triplet[1], negative=triplet[2])
    anchor, positive, negative = promoted(*triplet)
    to_negative = distance(anchor, negative)
    if swap:
        to_negative = jnp.minimum(to_negative, distance(positive, negative))
    return reduced(hinge(margin + distance(anchor, positive) - to_negative), reduction, name)


def hinge(x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """What is positive of ``x``; its gradient at zero is one, of NaN zero: that of torch's ``clamp_min``."""
    return jnp.where(x >= 0, x, jnp.where(jnp.isnan(x), jnp.nan, 0))
