"""Padding and cropping of trailing axes."""

import math
import operator
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Shaped

from jaxnn.functional._argument import ArgumentError

Widths = tuple[int, int]
"""Elements added before and after an axis; negative widths crop."""


def pad(
    input: Shaped[ArrayLike, "*shape"],
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Shaped[Array, "..."]:
    r"""Widen or crop the trailing axes.

    .. math::
        y_i = x_{i - l} \text{ for } 0 \le i - l < n, \text{ else }
        \text{value},\; x_{\mathrm{reflect}(i - l)},\; x_{\mathrm{clamp}(i - l)},\; x_{(i - l) \bmod n}

    for modes ``"constant"``, ``"reflect"`` (about the edge element, which is not repeated), ``"replicate"`` and
    ``"circular"``. Where one end of an axis is cropped, circular padding wraps what is left; the others still see all.

    Args:
        input: any shape; for the modes other than constant one or two leading axes (batch and) channels and as many
            trailing axes as are padded, three at most.
        pad: widths before and after each axis in elements, the last axis first; negative widths crop.
        mode: ``"constant"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        value: fills in mode constant; 0 unless given.

    Returns:
        ``input`` with each padded axis longer by the sum of its two widths.

    Raises:
        ArgumentError: ``pad`` has an odd length or names more axes than there are, a crop leaves less than nothing (for
            reflect and replicate, leaves nothing at all), a reflection is as wide as its axis, a wrap is wider than its
            axis, ``value`` is given beside another mode than constant or does not fit the dtype.
        NotImplementedError: the mode is unknown, or not to be had for that many axes or that dtype.

    Source: ``torch.nn.functional.pad``.
    """
    input = jnp.asarray(input)
    widths = _axis_widths(input, pad)
    if mode == "constant":
        return _constant(input, widths, 0.0 if value is None else value)
    if mode not in _MODES:
        raise NotImplementedError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    if value is not None and value != 0:
        raise ArgumentError(f"pad: value goes with mode='constant' only, got value={value} beside mode={mode!r}")
    if len(widths) not in (1, 2, 3) or input.ndim - len(widths) not in (1, 2):
        raise NotImplementedError(
            f"pad: mode={mode!r} pads the last 1, 2 or 3 axes of an array with 1 or 2 more axes, "
            f"got widths for {len(widths)} axes and input of shape {input.shape}"
        )
    if mode != "circular":
        _check_edges(input, widths, mode)
    # Any order gives the same; with the last axis last the gradient of small images takes a fifth less on a CPU.
    for axis, pair in enumerate(widths, input.ndim - len(widths)):
        input = _MODES[mode](input, axis, pair)
    return input


def _axis_widths(input: Array, pad: Sequence[int]) -> list[Widths]:
    """The widths in the order of the axes, for as many trailing axes as ``pad`` names."""
    if not isinstance(pad, Sequence):
        raise TypeError(f"pad: pad must be a sequence of integers, got {type(pad).__name__}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ArgumentError(
            f"pad: pad must hold two widths for each padded axis, and input has {input.ndim} axes, "
            f"got {len(pad)} widths and input of shape {input.shape}"
        )
    flat = [operator.index(width) for width in pad]
    return [(flat[i], flat[i + 1]) for i in reversed(range(0, len(flat), 2))]


def _check_edges(input: Array, widths: list[Widths], mode: str) -> None:
    """Refuse what leaves reflect or replicate without an element to repeat or to keep."""
    # In torch the batch may be empty and no other axis; the result may be empty along some padded axes, not along all.
    results = [size + low + high for size, (low, high) in zip(input.shape[-len(widths) :], widths, strict=True)]
    if min(results) < 0 or max(results) == 0:
        raise ArgumentError(f"pad: widths {widths} leave nothing of input of shape {input.shape}")
    if 0 in input.shape[input.ndim - len(widths) - 1 :]:
        raise ArgumentError(f"pad: mode={mode!r} needs axes of at least 1 element, got input of shape {input.shape}")
    if input.dtype == jnp.bool_:
        raise NotImplementedError(f"pad: mode={mode!r} is not for booleans, got input of dtype bool")


def _constant(input: Array, widths: list[Widths], value: float) -> Array:
    leading, trailing = input.shape[: input.ndim - len(widths)], input.shape[input.ndim - len(widths) :]
    for size, (low, high) in zip(trailing, widths, strict=True):
        if size + min(low, 0) + min(high, 0) < 0:
            raise ArgumentError(f"pad: widths {(low, high)} crop more than an axis of {size} elements has")
    # The fewer axes, the less XLA's loop has to count: batch and channels as one halve its time.
    rows = input.reshape(math.prod(leading), *trailing)
    padded = lax.pad(rows, _fill(float(value), input.dtype), [(0, 0, 0), *((low, high, 0) for low, high in widths)])
    return padded.reshape(*leading, *padded.shape[1:])


def _fill(value: float, dtype: jnp.dtype) -> Array:
    """``value`` in ``dtype``: integers drop the fraction, and what is out of range is refused."""
    if dtype == jnp.bool_:
        return jnp.asarray(value != 0)
    if jnp.issubdtype(dtype, jnp.integer):
        if not jnp.iinfo(dtype).min <= value <= jnp.iinfo(dtype).max:
            raise ArgumentError(f"pad: value={value} cannot be held by input's dtype {dtype}")
        return jnp.asarray(int(value), dtype)
    if abs(value) > float(jnp.finfo(dtype).max) and abs(value) != float("inf"):
        raise ArgumentError(f"pad: value={value} cannot be held by input's dtype {dtype}")
    return jnp.asarray(value, dtype)


def _reflected(input: Array, axis: int, widths: Widths) -> Array:
    low, high = widths
    size = input.shape[axis]
    if max(low, high) >= size:
        raise ArgumentError(f"pad: mode='reflect' needs widths below the axis' {size} elements, got {widths}")
    before = lax.rev(lax.slice_in_dim(input, 1, 1 + max(low, 0), axis=axis), (axis,))
    after = lax.rev(lax.slice_in_dim(input, size - 1 - max(high, 0), size - 1, axis=axis), (axis,))
    return _between(before, input, after, axis, widths)


def _replicated(input: Array, axis: int, widths: Widths) -> Array:
    def repeated(edge: Array, width: int) -> Array:
        shape = list(edge.shape)
        shape[axis] = max(width, 0)
        return jnp.broadcast_to(edge, shape)

    before = repeated(lax.slice_in_dim(input, 0, 1, axis=axis), widths[0])
    after = repeated(lax.slice_in_dim(input, -1, None, axis=axis), widths[1])
    return _between(before, input, after, axis, widths)


def _between(before: Array, input: Array, after: Array, axis: int, widths: Widths) -> Array:
    """The three in a row, negative widths cut off the whole of it."""
    whole = jnp.concatenate([before, input, after], axis)
    start, stop = max(-widths[0], 0), whole.shape[axis] + min(widths[1], 0)
    return lax.slice_in_dim(whole, start, stop, axis=axis)


def _wrapped(input: Array, axis: int, widths: Widths) -> Array:
    size = input.shape[axis]
    start, stop = max(-widths[0], 0), size + min(widths[1], 0)
    low, high = max(widths[0], 0), max(widths[1], 0)
    if max(low, high) > stop - start:
        raise ArgumentError(
            f"pad: mode='circular' wraps around once, got widths {widths} for an axis of {size} elements"
        )
    before = lax.slice_in_dim(input, stop - low, stop, axis=axis)
    after = lax.slice_in_dim(input, start, start + high, axis=axis)
    return jnp.concatenate([before, lax.slice_in_dim(input, start, stop, axis=axis), after], axis)


_MODES: dict[str, Callable[[Array, int, Widths], Array]] = {
    "reflect": _reflected,
    "replicate": _replicated,
    "circular": _wrapped,
}
