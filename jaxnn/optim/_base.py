"""What the optimizers share: an optax transformation around a rule for one parameter, with torch's groups."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Inexact, PyTree

from jaxnn.functional._argument import ArgumentError, accumulation_dtype
from jaxnn.optim._groups import Group, assign, dotted_names, param_groups
from jaxnn.optim._pace import Pace

Hyperparameter = ArrayLike | optax.Schedule | optax.schedules.StatefulSchedule
Groups = Iterable[Mapping[str, Any]]
Buffers = dict[str, Array]
Rule = Callable[[Array, Array, Buffers], tuple[Array, Buffers]]


class OptimizerState(NamedTuple):
    """What an optimizer remembers, in torch's words.

    Attributes:
        step: updates made, an integer scalar.
        buffers: torch's per-parameter state by torch's name, each shaped like the parameters; ``None`` where a
            parameter's group has no use for it.
        schedules: the states of schedules that have one (:class:`~jaxnn.optim.lr_scheduler.ReduceLROnPlateau`).
    """

    step: Array
    buffers: dict[str, PyTree]
    schedules: tuple[PyTree, ...] = ()


class Optimizer(optax.GradientTransformationExtraArgs):
    """Base of the optimizers: an ``optax.GradientTransformation`` with torch's hyperparameters.

    ``update`` needs the parameters and returns what is to be added to them, in their dtype. State and arithmetic are
    float32 where parameters are float16 or bfloat16 (torch keeps state in the parameters' dtype). Gradients of complex
    parameters are torch's, the conjugate of what ``jax.grad`` returns. Any number may be an optax schedule, read at the
    count of updates made so far.

    Attributes:
        defaults: the hyperparameters of groups that do not set their own.
        groups: the parameter groups, hyperparameters filled in.
    """

    defaults: dict[str, Any]
    groups: tuple[Group, ...]
    _engine: ClassVar[type["Engine"]]

    def __init_subclass__(cls) -> None:
        # As a NamedTuple it would be taken apart by jax.tree.map and rebuilt from its functions, without its groups.
        jax.tree_util.register_static(cls)

    @classmethod
    def _of(cls, defaults: dict[str, Any], groups: Groups | None) -> Any:
        """The optimizer with these hyperparameters; ``groups`` override them for some parameters."""
        given = param_groups(groups) if groups is not None else ({},)
        merged = []
        for group in ({**defaults, **group} for group in given):
            if unknown := sorted(group.keys() - defaults.keys() - {"params"}):
                raise ArgumentError(f"{cls.__name__}: a parameter group sets {unknown}, known are {sorted(defaults)}")
            lr = group["lr"]
            if isinstance(lr, str | list | tuple | dict):
                raise TypeError(f"{cls.__name__}: lr must be a number or a schedule, got {type(lr).__name__}")
            check_range(f"{cls.__name__}: lr", lr)
            if "weight_decay" in group:
                check_range(f"{cls.__name__}: weight_decay", group["weight_decay"])
            if group.get("fused") and (group.get("foreach") or group.get("differentiable")):
                raise ArgumentError(f"{cls.__name__}: fused goes with neither foreach nor differentiable")
            cls._check(group)
            merged.append(group)
        engine = cls._engine(cls, tuple(merged))
        self = super().__new__(cls, engine.init, engine.update)
        self.defaults, self.groups = defaults, tuple(merged)
        self._given = None if groups is None else given
        return self

    @classmethod
    def _check(cls, group: Group) -> None:
        """Refuse the hyperparameters that torch refuses, ``lr`` and ``weight_decay`` apart."""
        raise NotImplementedError

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        """The buffers of one parameter before the first step; ``param`` is in the dtype of the arithmetic."""
        raise NotImplementedError

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        """The update of one parameter at ``step`` (from 1, in the dtype of the arithmetic), schedules filled in."""
        raise NotImplementedError

    @classmethod
    def _cast(cls, group: Group, dtype: Any) -> Group:
        """Arrays among the hyperparameters as scalars of ``dtype``; Python's numbers keep all their digits."""
        # optax.inject_hyperparams makes complex numbers of the hyperparameters of complex parameters.
        return jax.tree.map(lambda v: jnp.real(v).reshape(()).astype(dtype) if is_array(v) else v, group)

    @classmethod
    def _apply(cls, rule: Rule, grad: Any, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
        """A rule's update of one parameter; as torch does, a complex number is treated as two real ones."""
        if jnp.shape(grad) != param.shape:
            raise ArgumentError(f"must have the parameter's shape {param.shape}, got {jnp.shape(grad)}")
        inputs = jnp.asarray(grad).astype(param.dtype), param, buffers
        change, after = rule(*jax.tree.map(_as_pairs, inputs))
        return jax.tree.map(_as_complex, (change, after), (param, buffers))

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        accepted = inspect.signature(type(self)).parameters
        given = {key: value for key, value in self.defaults.items() if key in accepted}
        return (), {**given, "param_groups": self._given}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.groups):
            lines += [*([""] if i else []), f"Parameter Group {i}"]
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


class Engine:
    """Applies a rule to every parameter of a pytree, each with the hyperparameters of its group."""

    def __init__(self, optimizer: type[Optimizer], groups: tuple[Group, ...]):
        self.optimizer, self.groups = optimizer, groups
        values = [value for group in groups for value in jax.tree.leaves(group, is_leaf=_is_stateful)]
        self.stateful = list({id(value): value for value in values if _is_stateful(value)}.values())

    def group_of(self, params: PyTree) -> list[int]:
        if len(self.groups) == 1 and self.groups[0].get("params") is None:
            return [0] * len(jax.tree.leaves(params))
        return assign(self.groups, dotted_names(params))

    def init(self, params: PyTree) -> OptimizerState:
        leaves, tree = jax.tree.flatten(params)
        bare = OptimizerState(jnp.zeros((), jnp.int32), {}, tuple(schedule.init() for schedule in self.stateful))
        groups = self.scheduled(bare)
        buffers = [
            self.optimizer._init(groups[i], jnp.asarray(leaf, accumulation_dtype(jnp.result_type(leaf))))
            for i, leaf in zip(self.group_of(params), leaves, strict=True)
        ]
        return bare._replace(buffers=_by_name(tree, buffers))

    def update(
        self, updates: PyTree, state: OptimizerState, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, OptimizerState]:
        name = self.optimizer.__name__
        if params is None:
            raise ArgumentError(f"{name}: update needs the parameters, update(gradients, state, params); got None")
        leaves = jax.tree.leaves(params)
        tree: Any = jax.tree.structure(params)
        grads = tree.flatten_up_to(updates)
        columns = {key: tree.flatten_up_to(values) for key, values in state.buffers.items()}
        scheduled = self.scheduled(state)
        step = optax.safe_increment(state.step)
        rules: dict[tuple[int, Any], Rule] = {}
        changes, after = [], []
        pace = Pace(step)
        for k, (i, param, grad) in enumerate(zip(self.group_of(params), leaves, grads, strict=True)):
            dtype = accumulation_dtype(jnp.result_type(param))
            real = jnp.finfo(dtype).dtype
            if (i, real) not in rules:
                rules[i, real] = self.optimizer._rule(self.optimizer._cast(scheduled[i], real), step.astype(real))
            own = {key: column[k] for key, column in columns.items() if column[k] is not None}
            try:
                change, new = self.optimizer._apply(
                    rules[i, real], pace.held(grad), jnp.asarray(param).astype(dtype), own
                )
            except ArgumentError as problem:
                raise ArgumentError(f"{name}: gradient of {dotted_names(params)[k]!r} {problem}") from None
            changes.append(change.astype(jnp.result_type(param)))
            after.append(new)
            pace.passed([change, *new.values()][-1])
        schedules = tuple(s.update(v, **extra_args) for s, v in zip(self.stateful, state.schedules, strict=True))
        return tree.unflatten(changes), OptimizerState(step, _by_name(tree, after), schedules)

    def scheduled(self, state: Any) -> list[Group]:
        """The groups with every schedule replaced by its value at ``state``."""
        own = {id(schedule): value for schedule, value in zip(self.stateful, state.schedules, strict=True)}

        def value(entry: Any) -> Any:
            if _is_stateful(entry):
                return jnp.asarray(entry(own[id(entry)]))
            return jnp.asarray(entry(state.step)) if callable(entry) else entry

        without = [{key: entry for key, entry in group.items() if key != "params"} for group in self.groups]
        # Schedules, optax's too, multiply floats with an integer count.
        with jax.numpy_dtype_promotion("standard"):
            return jax.tree.map(value, without, is_leaf=_is_stateful)


Optimizer._engine = Engine


def _is_stateful(value: Any) -> bool:
    return isinstance(value, optax.schedules.StatefulSchedule) and not isinstance(value, type)


def _by_name(tree: Any, buffers: list[Buffers]) -> dict[str, PyTree]:
    names = sorted({name for own in buffers for name in own})
    return {name: tree.unflatten([own.get(name) for own in buffers]) for name in names}


def _as_pairs(value: Array) -> Array:
    return jnp.stack([value.real, value.imag], axis=-1) if jnp.iscomplexobj(value) else value


def _as_complex(value: Array, like: Array) -> Array:
    return jax.lax.complex(value[..., 0], value[..., 1]) if jnp.iscomplexobj(like) else value


def is_array(value: Any) -> bool:
    """Whether a hyperparameter is an array, whose value may be unknown while tracing."""
    return isinstance(value, jax.Array | np.ndarray | np.generic) and not isinstance(value, float)


def is_zero(value: Any) -> bool:
    """Whether a hyperparameter is the number zero; an array or a schedule never is, for it may change."""
    return not is_array(value) and not callable(value) and value == 0


def check_range(name: str, value: Any, low: float | int = 0, high: float | int = math.inf, ends: str = "[)") -> None:
    """Refuse a known ``value`` outside an interval, its ``ends`` in or out; a schedule or a traced array passes."""
    if callable(value) or isinstance(value, jax.core.Tracer):
        return
    if is_array(value) and np.size(value) != 1:
        raise ArgumentError(f"{name} as an array must hold 1 element, got shape {np.shape(value)}")
    number = float(np.real(value).reshape(())) if is_array(value) else value
    above = low <= number if ends[0] == "[" else low < number
    below = number <= high if ends[1] == "]" else number < high
    if not (above and below):
        raise ArgumentError(f"{name} must be in {ends[0]}{low}, {high}{ends[1]}, got {number}")


def check_betas(optimizer: str, betas: Any) -> None:
    """Refuse decay rates that are not two numbers in [0, 1)."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ArgumentError(f"{optimizer}: betas must be two numbers, got {betas!r}")
    for i, beta in enumerate(betas):
        check_range(f"{optimizer}: betas[{i}]", beta, 0, 1)


def loss_gradient(group: Group, grad: Array, param: Array) -> Array:
    """The gradient to descend: negated where ``maximize``, with the L2 penalty ``weight_decay``."""
    descent = -grad if group["maximize"] else grad
    if is_zero(group["weight_decay"]) or group.get("decoupled_weight_decay"):
        return descent
    return descent + group["weight_decay"] * param


def decayed(group: Group, change: Array, param: Array) -> Array:
    """``change`` and the decoupled weight decay, where the group has it: ``-lr * weight_decay * param``."""
    if is_zero(group["weight_decay"]) or not group["decoupled_weight_decay"]:
        return change
    return change - group["lr"] * group["weight_decay"] * param


def lerp(start: Array, end: Array, weight: ArrayLike) -> Array:
    """``start`` moved towards ``end``."""
    return start + weight * (end - start)


def log_decay(base: Any) -> Any:
    """``log(base)``, of a Python number to all its digits: ``1 - base`` is what counts, and float32 loses it."""
    if is_array(base):
        return jnp.log(base)
    return math.log(base) if base > 0 else -math.inf


def one_minus_power(base: Any, step: Inexact[Array, ""]) -> Inexact[Array, ""]:
    """``1 - base**step`` to the last digits also for a base near one, where the plain formula cancels."""
    return -jnp.expm1(step * log_decay(base))
