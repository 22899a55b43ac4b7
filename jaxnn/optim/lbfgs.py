"""Limited-memory BFGS."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from jaxnn.functional._argument import ArgumentError, accumulation_dtype
from jaxnn.optim._base import Engine, Group, Groups, Hyperparameter, Optimizer
from jaxnn.optim._strong_wolfe import Point, strong_wolfe


class LBFGSState(NamedTuple):
    """What L-BFGS remembers, by torch's names; vectors run over all parameters, flattened in JAX's order.

    Attributes:
        step: updates made.
        n_iter: iterations made.
        func_evals: evaluations torch would have made.
        d: last direction.
        t: last step length.
        old_dirs: differences of gradients, newest last.
        old_stps: differences of parameters, newest last.
        ro: reciprocal products of the two, zero where the history is not yet filled.
        H_diag: scale of the first guess at the inverse Hessian.
        prev_flat_grad: gradient the last direction was made from.
        prev_loss: value there.
        schedules: the states of schedules that have one.
    """

    step: Int[Array, ""]
    n_iter: Int[Array, ""]
    func_evals: Int[Array, ""]
    d: Float[Array, " n"]
    t: Float[Array, ""]
    old_dirs: Float[Array, "history n"]
    old_stps: Float[Array, "history n"]
    ro: Float[Array, " history"]
    H_diag: Float[Array, ""]
    prev_flat_grad: Float[Array, " n"]
    prev_loss: Float[Array, ""]
    schedules: tuple[PyTree, ...] = ()


class _Iteration(NamedTuple):
    position: Float[Array, " n"]
    loss: Float[Array, ""]
    gradient: Float[Array, " n"]
    state: LBFGSState
    iteration: Int[Array, ""]
    evaluations: Int[Array, ""]
    finished: Bool[Array, ""]


class _Flat:
    """Parameters as one real vector, and back."""

    def __init__(self, params: PyTree):
        leaves = jax.tree.leaves(params)
        self.tree: Any = jax.tree.structure(params)
        self.shapes = [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
        reals = [jnp.finfo(accumulation_dtype(dtype)).dtype for _, dtype in self.shapes]
        self.dtype = max(reals, key=lambda dtype: dtype.itemsize, default=jnp.dtype(jnp.float32))

    def vector(self, tree: PyTree) -> Float[Array, " n"]:
        parts = []
        for leaf, (shape, dtype) in zip(self.tree.flatten_up_to(tree), self.shapes, strict=True):
            if jnp.shape(leaf) != shape:
                raise ArgumentError(f"LBFGS: a gradient must have its parameter's shape {shape}, got {jnp.shape(leaf)}")
            pair = jnp.issubdtype(dtype, jnp.complexfloating)
            array = jnp.asarray(leaf)
            array = jnp.stack([array.real, array.imag], axis=-1) if pair else array
            parts.append(array.astype(self.dtype).reshape(-1))
        return jnp.concatenate(parts) if parts else jnp.zeros(0, self.dtype)

    def arrays(self, vector: Float[Array, " n"]) -> PyTree:
        leaves, start = [], 0
        for shape, dtype in self.shapes:
            pair = jnp.issubdtype(dtype, jnp.complexfloating)
            size = jax.ShapeDtypeStruct(shape, dtype).size * (2 if pair else 1)
            part = vector[start : start + size]
            array = lax.complex(part[::2], part[1::2]) if pair else part
            leaves.append(array.reshape(shape).astype(dtype))
            start += size
        return self.tree.unflatten(leaves)


class _LBFGSEngine(Engine):
    def init(self, params: PyTree) -> Any:
        flat = _Flat(params)
        vector = jnp.zeros_like(flat.vector(params))
        zero, none = jnp.zeros((), flat.dtype), jnp.zeros((), jnp.int32)
        history = self.groups[0]["history_size"]
        pairs, ro = jnp.zeros((history, vector.size), flat.dtype), jnp.zeros(history, flat.dtype)
        schedules = tuple(schedule.init() for schedule in self.stateful)
        return LBFGSState(
            none, none, none, vector, zero, pairs, pairs, ro, jnp.ones((), flat.dtype), vector, zero, schedules
        )

    def update(
        self,
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        value: ArrayLike | None = None,
        value_fn: Callable[[PyTree], Array] | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ArgumentError("LBFGS: update needs the parameters, update(gradients, state, params); got None")
        group, flat = self.scheduled(state)[0], _Flat(params)
        if value_fn is None and (group["max_iter"] > 1 or group["line_search_fn"] is not None):
            raise ArgumentError("LBFGS: update needs value_fn, the loss of the parameters, but for one plain iteration")
        start = flat.vector(params)

        def evaluate(position: Array) -> tuple[Array, Array]:
            # Never reached without a value_fn.
            function = value_fn or (lambda _: jnp.zeros((), flat.dtype))
            loss, grad = jax.value_and_grad(lambda x: function(flat.arrays(x)).astype(flat.dtype))(position)
            return loss, grad

        if value is None:
            value = value_fn(params) if value_fn is not None else 0.0
        first = _Iteration(
            position=start,
            loss=jnp.asarray(value).astype(flat.dtype),
            gradient=flat.vector(updates),
            state=state,
            iteration=jnp.zeros((), jnp.int32),
            evaluations=jnp.ones((), jnp.int32),
            finished=jnp.zeros((), bool),
        )
        first = first._replace(finished=_optimal(first.gradient, group))
        last = lax.while_loop(
            lambda run: ~run.finished & (run.iteration < group["max_iter"]),
            lambda run: _iterate(run, group, evaluate),
            first,
        )
        after = last.state._replace(
            step=state.step + 1,
            func_evals=state.func_evals + last.evaluations,
            schedules=tuple(s.update(v, **extra_args) for s, v in zip(self.stateful, state.schedules, strict=True)),
        )
        return flat.arrays(last.position - start), after


def _optimal(gradient: Array, group: Group) -> Array:
    return jnp.max(jnp.abs(gradient), initial=0) <= group["tolerance_grad"]


def _iterate(run: _Iteration, group: Group, evaluate: Callable[[Array], tuple[Array, Array]]) -> _Iteration:
    dtype = run.gradient.dtype
    lr = jnp.asarray(group["lr"]).reshape(()).astype(dtype)
    state = _remember(run.state, run.gradient)
    direction = _direction(state, run.gradient)
    opening = jnp.minimum(1, 1 / jnp.sum(jnp.abs(run.gradient))) * lr
    length = jnp.where(state.n_iter == 1, opening, lr)
    slope = jnp.vdot(run.gradient, direction)
    state = state._replace(d=direction, t=length, prev_flat_grad=run.gradient, prev_loss=run.loss)
    run = run._replace(state=state, iteration=run.iteration + 1)

    def move() -> _Iteration:
        if group["line_search_fn"] is None:
            place = run.position + length * direction
            again = run.iteration != group["max_iter"]
            loss, gradient = lax.cond(again, evaluate, lambda _: (run.loss, run.gradient), place)
            moved = run._replace(loss=loss, gradient=gradient, evaluations=run.evaluations + again.astype(jnp.int32))
        else:

            def along(step: Array) -> Point:
                loss, gradient = evaluate(run.position + step * direction)
                return Point(step, loss, gradient, jnp.vdot(gradient, direction))

            origin = Point(jnp.zeros((), dtype), run.loss, run.gradient, slope)
            longest, allowed = jnp.max(jnp.abs(direction)), group["max_eval"] - run.evaluations
            point, calls = strong_wolfe(along, origin, length, longest, group["tolerance_change"], allowed)
            place = run.position + point.step * direction
            moved = run._replace(
                loss=point.value,
                gradient=point.gradient,
                evaluations=run.evaluations + calls,
                state=state._replace(t=point.step),
            )
        stuck = jnp.max(jnp.abs(direction * moved.state.t)) <= group["tolerance_change"]
        level = jnp.abs(moved.loss - run.loss) < group["tolerance_change"]
        spent = moved.evaluations >= group["max_eval"]
        return moved._replace(position=place, finished=spent | _optimal(moved.gradient, group) | stuck | level)

    return lax.cond(slope > -group["tolerance_change"], lambda: run._replace(finished=jnp.ones((), bool)), move)


def _remember(state: LBFGSState, gradient: Array) -> LBFGSState:
    """The history with the last move in it, if its curvature is positive."""
    y, s = gradient - state.prev_flat_grad, state.d * state.t
    curvature = jnp.vdot(y, s)

    def push() -> LBFGSState:
        return state._replace(
            old_dirs=jnp.concatenate([state.old_dirs[1:], y[None]]),
            old_stps=jnp.concatenate([state.old_stps[1:], s[None]]),
            ro=jnp.append(state.ro[1:], 1 / curvature),
            H_diag=curvature / jnp.vdot(y, y),
        )

    kept = lax.cond((state.n_iter > 0) & (curvature > 1e-10), push, lambda: state)
    return kept._replace(n_iter=state.n_iter + 1)


def _direction(state: LBFGSState, gradient: Array) -> Array:
    """Minus the inverse Hessian times the gradient, in two loops; places not yet filled have ``ro`` zero."""
    history = state.old_dirs, state.old_stps, state.ro

    def down(q: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        y, s, ro = pair
        alpha = jnp.vdot(s, q) * ro
        return q - alpha * y, alpha

    def up(r: Array, pair: tuple[tuple[Array, Array, Array], Array]) -> tuple[Array, None]:
        (y, s, ro), alpha = pair
        return r + (alpha - jnp.vdot(y, r) * ro) * s, None

    q, alphas = lax.scan(down, -gradient, history, reverse=True)
    return lax.scan(up, q * state.H_diag, (history, alphas))[0]


class LBFGS(Optimizer):
    r"""Quasi-Newton steps from the last moves and the changes of gradient they made.

    One ``update`` is one ``step`` of torch: up to ``max_iter`` iterations, the function evaluated on the way. Give it
    the loss: ``update(grads, state, params, value=loss, value_fn=loss_of)``, with ``loss_of(params)`` a scalar.
    ``grads`` and ``value`` are gradient and loss at ``params`` and spare an evaluation; ``value`` may be left out.

    Differs from ``optax.lbfgs``: many iterations an update, each with its own stopping rules, and a line search of
    torch's constants, or none.

    Args:
        lr: step length without a line search, first guess with one; a number or a schedule.
        max_iter: iterations an update.
        max_eval: evaluations an update, ``max_iter * 5 // 4`` unless given.
        tolerance_grad: the greatest entry of the gradient, by size, at which to stop.
        tolerance_change: change of the loss or of every parameter at which to stop.
        history_size: moves remembered.
        line_search_fn: ``None`` or ``"strong_wolfe"``.
        param_groups: one group at most.

    Raises:
        ValueError: ``lr`` is negative, ``line_search_fn`` is unknown, there are several groups, or ``update`` lacks
            ``value_fn``.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from jaxnn import optim
        >>> loss = lambda x: jnp.sum((x - 3) ** 2)
        >>> optimizer, x = optim.LBFGS(line_search_fn="strong_wolfe"), jnp.zeros(2)
        >>> updates, state = optimizer.update(jax.grad(loss)(x), optimizer.init(x), x, value_fn=loss)
        >>> optax.apply_updates(x, updates)
        Array([3., 3.], dtype=float32)

    Source: ``torch.optim.LBFGS``; Liu and Nocedal (1989).
    """

    _engine = _LBFGSEngine

    def __new__(
        cls,
        lr: Hyperparameter = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
        *,
        param_groups: Groups | None = None,
    ) -> "LBFGS":
        """See the class."""
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        optimizer = cls._of(defaults, param_groups)
        if len(optimizer.groups) > 1:
            raise ArgumentError(f"LBFGS: param_groups must hold one group, got {len(optimizer.groups)}")
        return optimizer

    @classmethod
    def _check(cls, group: Group) -> None:
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ArgumentError(
                f"LBFGS: line_search_fn must be None or 'strong_wolfe', got {group['line_search_fn']!r}"
            )
