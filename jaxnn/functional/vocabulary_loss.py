"""Cross entropy of a linear map onto many classes, without ever holding all the logits."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Inexact, Num

from jaxnn.functional._argument import ArgumentError, check_reduction, check_same_dtype
from jaxnn.functional._input import widened
from jaxnn.functional.classification_loss import cross_entropy
from jaxnn.functional.linear_maps import linear

LOGITS_AT_A_TIME = 2**22
"""Logits held at a time: 16 MiB in float32. Fewer rows in a chunk would read the weight more often than they use it."""


@dataclasses.dataclass(frozen=True)
class LinearCrossEntropyOptions:
    """How many rows :func:`linear_cross_entropy` takes at a time.

    Attributes:
        allow_retain_graph: no effect here; gradients can be taken any number of times.
        batch_chunk_size: rows at a time; chosen by the number of classes unless given.
        chunking_method: ``"auto"``; ``"aspect_ratio"`` or ``"aspect_ratio:n"``, whose logits take as much memory as the
            input (an n-th of it); or None.
        acc_policy: no effect here; gradients are accumulated in float32.
        acc_dtype: no effect here.

    Source: ``torch.nn.LinearCrossEntropyOptions``.
    """

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: Literal["accurate", "balanced", "compact", "auto"] = "auto"
    acc_dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuse what torch refuses."""
        if self.acc_policy not in ("accurate", "balanced", "compact", "auto"):
            raise ArgumentError(f"LinearCrossEntropyOptions: acc_policy is unknown, got {self.acc_policy!r}")
        if self.chunking_method not in (None, "auto"):
            name, _, factor = str(self.chunking_method).partition(":")
            if name != "aspect_ratio" or (factor and not (factor.isdigit() and int(factor) > 0)):
                raise ArgumentError(
                    f"LinearCrossEntropyOptions: chunking_method is unknown, got {self.chunking_method!r}"
                )
        if self.batch_chunk_size is not None and self.batch_chunk_size <= 0:
            raise ArgumentError(
                f"LinearCrossEntropyOptions: batch_chunk_size must be positive, got {self.batch_chunk_size}"
            )


def linear_cross_entropy(
    input: Inexact[ArrayLike, "*batch in_features"],
    linear_weight: Inexact[ArrayLike, "classes *out_features in_features"],
    target: Num[ArrayLike, "..."],
    *,
    linear_bias: Inexact[ArrayLike, " classes *out_features"] | None = None,
    weight: Float[ArrayLike, " classes"] | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Inexact[Array, "..."]:
    r""":func:`cross_entropy` of :func:`linear`, some rows at a time, forward and backward.

    .. math:: \ell = \mathrm{cross\_entropy}(x A^T + b, y)

    Where the logits would be large, or ``options`` are given, they are computed chunk by chunk and computed again for
    the gradient, so that memory does not grow with the batch times the classes.

    Args:
        input: ``(N, in_features)`` or ``(in_features,)``.
        linear_weight: ``(C, in_features)``, or ``(C, d1, ..., in_features)`` for a loss at each of several positions.
        target: class indices ``(N, d1, ...)``, or probabilities ``(N, C, d1, ...)``.
        linear_bias: ``(C, d1, ...)``.
        weight: ``(C,)``, a factor for each class.
        reduction: ``"none"`` gives the shape of the class indices; ``"mean"`` and ``"sum"`` give a scalar.
        ignore_index: index targets of this value count nothing; -100 unless given.
        label_smoothing: the share of the uniform distribution, in [0, 1].
        options: :class:`LinearCrossEntropyOptions`.

    Raises:
        ArgumentError: a shape does not fit, or as :func:`cross_entropy`.
        IndexError: a target is no class; under ``jit`` its loss is NaN.

    Source: ``torch.nn.functional.linear_cross_entropy``; Wijmans et al. (2024) for the idea.
    """
    name = "linear_cross_entropy"
    check_reduction(name, reduction)
    x, matrix, y = jnp.asarray(input), jnp.asarray(linear_weight), jnp.asarray(target)
    bias = None if linear_bias is None else jnp.asarray(linear_bias)
    _check_shapes(name, x, matrix, bias)
    check_same_dtype(name, input=x, linear_weight=matrix, linear_bias=bias)
    positions = matrix.shape[1:-1]
    logits_shape = (*x.shape[:-1], matrix.shape[0], *positions)
    if y.shape == logits_shape and ignore_index is not None:
        raise ArgumentError(f"{name}: ignore_index={ignore_index} has no meaning beside probabilities")
    ignored = -100 if ignore_index is None else ignore_index
    flat = matrix.reshape(-1, matrix.shape[-1])
    flat_bias = None if bias is None else bias.reshape(-1)

    def loss(rows: Array, targets: Array, table: Array, offset: Array | None, how: str) -> Array:
        logits = linear(rows, table.astype(rows.dtype), offset).reshape(*rows.shape[:-1], matrix.shape[0], *positions)
        return cross_entropy(
            logits, targets, weight, ignore_index=ignored, reduction=how, label_smoothing=label_smoothing
        )

    chunk = _rows_at_a_time(x, math.prod(logits_shape[1:]), options) if x.ndim == 2 else 0
    if chunk == 0 or x.shape[0] <= chunk:
        return loss(x, y, flat, flat_bias, reduction)
    _check_targets(loss, x, y, flat, flat_bias)
    losses = _chunked(loss, x, y, flat, flat_bias, chunk)
    if reduction == "none":
        return losses
    total = jnp.sum(widened(losses))
    if reduction == "mean":
        total = total / _divisor(y, weight, ignored, matrix.shape[0], y.shape == logits_shape, losses)
    return total.astype(losses.dtype)


def _chunked(loss: Any, x: Array, y: Array, table: Array, offset: Array | None, chunk: int) -> Array:
    """The loss of every row, ``chunk`` rows at a time; nothing of a chunk is kept for the gradient but its rows."""
    # In float32 the gradients of the chunks add up without half precision's rounding.
    table = widened(table)

    @jax.checkpoint
    def of_chunk(rows: Array, targets: Array) -> Array:
        return loss(rows, targets, table, offset, "none")

    whole = x.shape[0] // chunk * chunk
    split = lax.map(
        lambda part: of_chunk(*part),
        (x[:whole].reshape(-1, chunk, *x.shape[1:]), y[:whole].reshape(-1, chunk, *y.shape[1:])),
    )
    losses = split.reshape(whole, *split.shape[2:])
    return losses if whole == x.shape[0] else jnp.concatenate([losses, of_chunk(x[whole:], y[whole:])])


def _rows_at_a_time(x: Array, logits_of_a_row: int, options: Any) -> int:
    """Rows in a chunk; 0 for all of them at once."""
    if options is not None and options.batch_chunk_size is not None:
        return int(options.batch_chunk_size)
    if options is not None and str(options.chunking_method).startswith("aspect_ratio"):
        factor = int(options.chunking_method.partition(":")[2] or 1)
        return max(1, x.size // logits_of_a_row // factor)
    if x.shape[0] * logits_of_a_row <= LOGITS_AT_A_TIME:
        return 0
    return max(1, LOGITS_AT_A_TIME // logits_of_a_row)


def _divisor(y: Array, weight: Any, ignored: int, classes: int, probabilities: bool, losses: Array) -> Array | int:
    if probabilities:
        return losses.size
    counted = y != ignored
    if weight is None:
        return jnp.sum(counted, dtype=widened(losses).dtype)
    return jnp.sum(jnp.where(counted, widened(jnp.asarray(weight))[jnp.clip(y, 0, classes - 1)], 0))


def _check_targets(loss: Any, x: Array, y: Array, table: Array, offset: Array | None) -> None:
    """Let cross_entropy refuse wrong targets before they are traced in a loop; shapes alone are computed."""
    jax.eval_shape(lambda rows: loss(rows, y, table, offset, "none"), x)


def _check_shapes(name: str, x: Array, matrix: Array, bias: Array | None) -> None:
    if x.ndim not in (1, 2):
        raise ArgumentError(f"{name}: input must be (N, in_features) or (in_features,), got shape {x.shape}")
    if matrix.ndim < 2:
        raise ArgumentError(f"{name}: linear_weight must have at least two axes, got shape {matrix.shape}")
    if x.shape[-1] != matrix.shape[-1]:
        raise ArgumentError(
            f"{name}: input must have in_features={matrix.shape[-1]} of linear_weight, got {x.shape[-1]}"
        )
    if bias is not None and bias.shape != matrix.shape[:-1]:
        raise ArgumentError(f"{name}: linear_bias must have shape {matrix.shape[:-1]}, got {bias.shape}")
    if matrix.ndim > 2 and x.ndim == 1:
        raise ArgumentError(f"{name}: linear_weight of shape {matrix.shape} needs an input of two axes, got {x.shape}")
