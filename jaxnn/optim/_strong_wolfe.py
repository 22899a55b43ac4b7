"""The line search of L-BFGS: bracket a point of the strong Wolfe conditions, then zoom."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

ARMIJO, CURVATURE = 1e-4, 0.9


class Point(NamedTuple):
    """A step length along the direction, and the function there."""

    step: Float[Array, ""]
    value: Float[Array, ""]
    gradient: Float[Array, " n"]
    slope: Float[Array, ""]


class _Bracketing(NamedTuple):
    calls: Int[Array, ""]
    previous: Point
    current: Point
    found: Bool[Array, ""]
    bracketed: Bool[Array, ""]


class _Zooming(NamedTuple):
    calls: Int[Array, ""]
    low: Point
    high: Point
    stalled: Bool[Array, ""]
    found: Bool[Array, ""]


def strong_wolfe(
    evaluate: Callable[[Array], Point],
    start: Point,
    first: Float[Array, ""],
    longest: Float[Array, ""],
    tolerance_change: float,
    max_evaluations: Int[Array, ""],
) -> tuple[Point, Int[Array, ""]]:
    """A point of sufficient decrease and curvature, or the best of a bracket around one.

    Args:
        evaluate: the function at a step length.
        start: the function at zero.
        first: the step length to try first.
        longest: the greatest entry of the direction, by size.
        tolerance_change: a bracket that moves every parameter by less is not refined.
        max_evaluations: after the first.

    Returns:
        The point, and how often ``evaluate`` was called.

    Source: ``torch.optim.lbfgs``; Nocedal and Wright, Numerical Optimization, algorithms 3.5 and 3.6.
    """

    def too_high(point: Point) -> Array:
        return point.value > start.value + ARMIJO * point.step * start.slope

    def flat_enough(point: Point) -> Array:
        return jnp.abs(point.slope) <= -CURVATURE * start.slope

    def bracket(state: _Bracketing) -> _Bracketing:
        previous, current = state.previous, state.current
        rises = too_high(current) | ((state.calls > 1) & (current.value >= previous.value))
        found = ~rises & flat_enough(current)
        bracketed = rises | (~found & (current.slope >= 0))

        def go_on() -> _Bracketing:
            nearest, farthest = current.step + 0.01 * (current.step - previous.step), current.step * 10
            step = _cubic_minimum(previous, current, nearest, farthest)
            return _Bracketing(state.calls + 1, current, evaluate(step), found, bracketed)

        return lax.cond(found | bracketed, lambda: state._replace(found=found, bracketed=bracketed), go_on)

    def zoom(state: _Zooming) -> _Zooming:
        low, high = state.low, state.high
        left, right = jnp.minimum(low.step, high.step), jnp.maximum(low.step, high.step)
        step, margin = _cubic_minimum(low, high, left, right), 0.1 * (right - left)
        # Close to an end twice running, or at it: step inwards instead.
        near = jnp.minimum(right - step, step - left) < margin
        moved = near & (state.stalled | (step >= right) | (step <= left))
        inward = jnp.where(jnp.abs(step - right) < jnp.abs(step - left), right - margin, left + margin)
        new = evaluate(jnp.where(moved, inward, step))
        worse = too_high(new) | (new.value >= low.value)
        found = ~worse & flat_enough(new)
        turned = ~worse & ~found & (new.slope * (high.step - low.step) >= 0)
        # A worse point becomes the high end, and the lower of the two ends is the low one.
        swap = worse & (low.value > new.value)
        next_low = _choose(worse & ~swap, low, new)
        next_high = _choose(turned | swap, low, _choose(worse, new, high))
        return _Zooming(state.calls + 1, next_low, next_high, near & ~moved, found)

    def refinable(state: _Zooming) -> Array:
        wide = ~(jnp.abs(state.high.step - state.low.step) * longest < tolerance_change)
        return ~state.found & (state.calls < max_evaluations) & wide

    no, none = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    search = lax.while_loop(
        lambda state: ~state.found & ~state.bracketed & (state.calls < max_evaluations),
        bracket,
        _Bracketing(none, start, evaluate(first), no, no),
    )
    near = _choose(search.found, search.current, _choose(search.bracketed, search.previous, start))
    ordered = near.value <= search.current.value
    ends = _choose(ordered, near, search.current), _choose(ordered, search.current, near)
    zoomed = lax.while_loop(refinable, zoom, _Zooming(search.calls, *ends, no, search.found))
    return zoomed.low, zoomed.calls + 1


def _choose(condition: Array, yes: Point, no: Point) -> Point:
    return Point(*(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True)))


def _cubic_minimum(a: Point, b: Point, low: Array, high: Array) -> Array:
    """Where the cubic through two points and slopes is least, within bounds; their middle if it has no minimum."""
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
    square = d1**2 - a.slope * b.slope
    d2 = jnp.sqrt(jnp.where(square >= 0, square, 1))
    forward = b.step - (b.step - a.step) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    backward = a.step - (a.step - b.step) * ((a.slope + d2 - d1) / (a.slope - b.slope + 2 * d2))
    least = jnp.where(a.step <= b.step, forward, backward)
    return jnp.where(square >= 0, jnp.minimum(jnp.maximum(least, low), high), (low + high) / 2)
