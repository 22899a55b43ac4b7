"""Loss of a sequence whose alignment is not known."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jaxnn.functional._argument import ArgumentError, check_reduction, concrete, reduced
from jaxnn.functional._input import floating, widened


def ctc_loss(
    log_probs: Float[ArrayLike, "time *batch classes"],
    targets: Int[ArrayLike, "..."],
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Float[Array, "..."]:
    r"""Connectionist temporal classification: minus the log probability of all alignments of a target.

    .. math:: \ell = -\log \sum_{\pi \in B^{-1}(y)} \prod_t p_t(\pi_t)

    The gradient is torch's: that of the logits ahead of a log_softmax, :math:`p - \text{posterior}`, whatever
    ``log_probs`` came from.

    Args:
        log_probs: ``(T, N, C)`` or ``(T, C)``, log probabilities.
        targets: ``(N, S)``, a row a target; ``(sum of target_lengths,)``, all in a line; or ``(S,)`` beside one
            sequence.
        input_lengths: ``(N,)``, at most T; array or sequence.
        target_lengths: ``(N,)``; array or sequence.
        blank: the class that stands for nothing.
        reduction: ``"none"`` gives ``(N,)``; ``"mean"`` (of each loss by its target's length, at least one) and
            ``"sum"`` give a scalar.
        zero_infinity: a target that no alignment fits counts nothing, where it would be infinite.

    Raises:
        ArgumentError: a shape does not fit, ``blank`` is no class, a length or a target is out of range (under ``jit``
            the loss of its sequence is NaN), or ``reduction`` is unknown.

    Source: ``torch.nn.functional.ctc_loss``; Graves et al. (2006).
    """
    check_reduction("ctc_loss", reduction)
    x = floating("ctc_loss", log_probs)
    if x.ndim not in (2, 3):
        raise ArgumentError(f"ctc_loss: log_probs must be (T, N, C) or (T, C), got shape {x.shape}")
    batched = x.ndim == 3
    rows = widened(x if batched else x[:, None])
    steps, count, classes = rows.shape
    if not 0 <= blank < classes:
        raise ArgumentError(f"ctc_loss: blank must be one of {classes} classes, got {blank}")
    inputs = _lengths("input_lengths", input_lengths, count, steps)
    labels = jnp.asarray(targets)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ArgumentError(f"ctc_loss: targets must hold classes, got {labels.dtype}")
    lengths = _lengths("target_lengths", target_lengths, count, labels.shape[-1] if labels.ndim else 0)
    labels = _padded(labels, lengths, count, batched)
    inside = jnp.arange(labels.shape[1]) < lengths[:, None]
    valid = jnp.all(~inside | ((labels >= 0) & (labels < classes)), 1) & (lengths >= 0) & (lengths <= labels.shape[1])
    valid &= (inputs >= 0) & (inputs <= steps)
    known_labels, known_inside = concrete(labels), concrete(inside)
    if known_labels is not None and known_inside is not None:
        used = known_labels[known_inside]
        if (wrong := used[(used < 0) | (used >= classes)]).size:
            raise ArgumentError(f"ctc_loss: target {wrong[0]} is not one of {classes} classes")
    labels = jnp.where(inside & (labels >= 0) & (labels < classes), labels, blank)
    loss = _negative_log_likelihood(blank, zero_infinity, rows, labels, inputs, lengths)
    loss = jnp.where(valid, loss, jnp.nan).astype(x.dtype)
    if reduction == "mean":
        return jnp.mean(loss / jnp.maximum(lengths, 1).astype(loss.dtype))
    return reduced(loss if batched else loss[0], reduction, "ctc_loss")


def _lengths(name: str, lengths: Any, count: int, most: int) -> Int[Array, " batch"]:
    array = jnp.asarray(lengths)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ArgumentError(f"ctc_loss: {name} must hold integers, got {array.dtype}")
    if array.size != count or array.ndim > 1:
        raise ArgumentError(
            f"ctc_loss: {name} must hold one length for each of {count} sequences, got shape {array.shape}"
        )
    known = concrete(array)
    if known is not None and known.size and not 0 <= known.min() <= known.max() <= most:
        raise ArgumentError(f"ctc_loss: {name} must lie in [0, {most}], got {known}")
    return array.reshape(count)


def _padded(targets: Array, lengths: Array, count: int, batched: bool) -> Int[Array, "batch length"]:
    """The targets as rows."""
    if targets.ndim == 2 and batched:
        if targets.shape[0] != count:
            raise ArgumentError(f"ctc_loss: targets must have a row for each of {count} sequences, got {targets.shape}")
        return targets
    if targets.ndim != 1:
        raise ArgumentError(f"ctc_loss: targets must be (N, S) or (sum of target_lengths,), got shape {targets.shape}")
    if not batched:
        return targets[None]
    known = concrete(lengths)
    if known is not None and int(known.sum()) != targets.shape[0]:
        raise ArgumentError(
            f"ctc_loss: targets in a line must be as many as target_lengths add up to, {known.sum()}, "
            f"got {targets.shape[0]}"
        )
    longest = targets.shape[0] if known is None else int(np.max(known, initial=0))
    if targets.shape[0] == 0 or longest == 0:
        return jnp.zeros((count, 0), targets.dtype)
    starts = jnp.cumsum(lengths) - lengths
    places = starts[:, None] + jnp.arange(longest)
    return targets.at[jnp.minimum(places, targets.shape[0] - 1)].get(mode="promise_in_bounds")


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _negative_log_likelihood(
    blank: int,
    zero_infinity: bool,
    log_probs: Float[Array, "time batch classes"],
    labels: Int[Array, "batch length"],
    inputs: Int[Array, " batch"],
    lengths: Int[Array, " batch"],
) -> Float[Array, " batch"]:
    loss = _forward(log_probs, labels, inputs, lengths, blank)
    return jnp.where(jnp.isposinf(loss), 0, loss) if zero_infinity else loss


@_negative_log_likelihood.defjvp
def _negative_log_likelihood_jvp(
    blank: int, zero_infinity: bool, primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
    log_probs, labels, inputs, lengths = primals
    loss, pullback = jax.vjp(lambda x: _forward(x, labels, inputs, lengths, blank), log_probs)
    (minus_posterior,) = pullback(jnp.ones_like(loss))
    within = jnp.arange(log_probs.shape[0])[:, None, None] < inputs[:, None]
    slope = jnp.where(within, jnp.exp(log_probs) + minus_posterior, 0)
    # A target that nothing fits has no posterior; torch's slope is NaN there, unless infinity counts nothing.
    impossible = jnp.isposinf(loss)
    slope = jnp.where(impossible[:, None] & within, 0 if zero_infinity else jnp.nan, slope)
    loss = jnp.where(impossible, 0, loss) if zero_infinity else loss
    return loss, jnp.sum(slope * tangents[0], (0, 2))


def _forward(log_probs: Array, labels: Array, inputs: Array, lengths: Array, blank: int) -> Float[Array, " batch"]:
    """The forward recursion over time, for all sequences and all places of their targets at once."""
    count, length = labels.shape
    places = 2 * length + 1
    # The target with blanks around each label. A place is reached from itself, from the one before and, unless it is a
    # blank or repeats the label before the blank, from the one before that.
    extended = jnp.full((count, places), blank, labels.dtype).at[:, 1::2].set(labels)
    before = jnp.pad(extended, ((0, 0), (2, 0)), constant_values=blank)[:, :places]
    skips = (extended != blank) & (extended != before)
    emitted = jnp.take_along_axis(log_probs, extended[None], 2, mode="clip")
    start = jnp.where(jnp.arange(places) == 0, 0.0, -jnp.inf).astype(log_probs.dtype)
    start = jnp.broadcast_to(start, (count, places))

    def step(alpha: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        time, emission = now
        one = jnp.pad(alpha, ((0, 0), (1, 0)), constant_values=-jnp.inf)[:, :-1]
        two = jnp.pad(alpha, ((0, 0), (2, 0)), constant_values=-jnp.inf)[:, :-2]
        reached = _log_sum_exp(alpha, jnp.where((time == 0) & (jnp.arange(places) > 1), -jnp.inf, one), skips, two)
        return jnp.where((time < inputs)[:, None], reached + emission, alpha), None

    alpha, _ = lax.scan(step, start, (jnp.arange(log_probs.shape[0]), emitted))
    last = jnp.take_along_axis(alpha, 2 * lengths[:, None], 1, mode="clip")
    label = jnp.take_along_axis(alpha, jnp.maximum(2 * lengths[:, None] - 1, 0), 1, mode="clip")
    return -_log_sum_exp(last, jnp.where(lengths[:, None] > 0, label, -jnp.inf))[:, 0]


def _log_sum_exp(
    first: Array, second: Array, third_counts: Bool[Array, "..."] | None = None, third: Array | None = None
) -> Array:
    """log of a sum of exponentials, of value minus infinity and gradient zero where every term is minus infinity."""
    terms = [first, second]
    if third is not None and third_counts is not None:
        terms.append(jnp.where(third_counts, third, -jnp.inf))
    largest = lax.stop_gradient(jnp.maximum(terms[-1], jnp.maximum(first, second)))
    nothing = largest == -jnp.inf
    shift = jnp.where(nothing, 0, largest)
    total = sum(jnp.exp(term - shift) for term in terms)
    return jnp.where(nothing, -jnp.inf, jnp.log(jnp.where(nothing, 1, total)) + shift)
