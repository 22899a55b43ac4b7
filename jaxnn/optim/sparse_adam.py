"""Adam for gradients that touch few rows."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.sparse import BCOO, JAXSparse
from jaxtyping import Array, Float, Int, PyTree

from jaxnn.functional._argument import ArgumentError
from jaxnn.optim._base import (
    Buffers,
    Engine,
    Group,
    Groups,
    Hyperparameter,
    Optimizer,
    OptimizerState,
    Rule,
    check_betas,
    check_range,
    one_minus_power,
)


class _DenseEngine(Engine):
    """Refuses sparse parameters before they are taken apart."""

    def init(self, params: PyTree) -> OptimizerState:
        for leaf in jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, JAXSparse)):
            if isinstance(leaf, JAXSparse):
                raise ArgumentError(f"SparseAdam: parameters must be dense, got {type(leaf).__name__}")
        return super().init(params)


class SparseAdam(Optimizer):
    r"""Adam that moves, and remembers, only the rows its gradient names.

    The update of :class:`Adam` for the entries in the gradient; the moments of all others stay as they are, without
    decay. The bias correction counts every step.

    The gradient of a parameter is a ``jax.experimental.sparse.BCOO``, or a pair ``(rows, indices)`` of ``n`` rows
    shaped like the parameter's and their ``n`` places along its first axis. Entries named twice are added; entries out
    of bounds, which is how JAX pads a BCOO, are dropped. Optax has no namesake.

    Args:
        lr: learning rate, a number or a schedule, positive.
        betas: decay rates of the two moments.
        eps: added outside the root, before the bias correction; positive.
        maximize: ascend.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is out of its range, a parameter is sparse or complex, or a gradient is dense.

    Source: ``torch.optim.SparseAdam``.
    """

    _engine = _DenseEngine

    def __new__(
        cls,
        lr: Hyperparameter = 1e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        maximize: bool = False,
        *,
        param_groups: Groups | None = None,
    ) -> "SparseAdam":
        """See the class."""
        return cls._of({"lr": lr, "betas": betas, "eps": eps, "maximize": maximize}, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_range("SparseAdam: lr", group["lr"], ends="()")
        check_range("SparseAdam: eps", group["eps"], ends="()")
        check_betas("SparseAdam", group["betas"])

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        if jnp.iscomplexobj(param):
            raise ArgumentError(f"SparseAdam: parameters must be real, got {param.dtype}")
        return {"exp_avg": jnp.zeros_like(param), "exp_avg_sq": jnp.zeros_like(param)}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        beta1, beta2 = group["betas"]
        size = group["lr"] * jnp.sqrt(one_minus_power(beta2, step)) / one_minus_power(beta1, step)

        def rule(grad: Any, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            values, indices = grad
            values = -values if group["maximize"] else values
            means, squares = buffers["exp_avg"], buffers["exp_avg_sq"]
            old_mean, old_square = (b.at[indices].get(mode="fill", fill_value=0) for b in (means, squares))
            to_mean, to_square = (1 - beta1) * (values - old_mean), (1 - beta2) * (values * values - old_square)
            change = -size * (old_mean + to_mean) / (jnp.sqrt(old_square + to_square) + group["eps"])
            return jnp.zeros_like(param).at[indices].add(change, mode="drop"), {
                "exp_avg": means.at[indices].add(to_mean, mode="drop"),
                "exp_avg_sq": squares.at[indices].add(to_square, mode="drop"),
            }

        return rule

    @classmethod
    def _apply(cls, rule: Rule, grad: Any, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
        axes, values, indices = _entries(grad, param)
        length = math.prod(param.shape[:axes])

        def flat(array: Array) -> Array:
            return array.reshape(length, *param.shape[axes:])

        coalesced: Any = _coalesced(values.astype(param.dtype), indices, length)
        change, after = rule(coalesced, flat(param), jax.tree.map(flat, buffers))
        return jax.tree.map(lambda array: array.reshape(param.shape), (change, after))


def _entries(grad: Any, param: Array) -> tuple[int, Float[Array, "n ..."], Int[Array, " n"]]:
    """How many leading axes are sparse, the values, and where in those axes, flattened, they stand."""
    if isinstance(grad, BCOO):
        if grad.n_batch or grad.shape != param.shape:
            raise ArgumentError(
                f"must be a BCOO of the parameter's shape {param.shape} without batch axes, got shape {grad.shape}, "
                f"{grad.n_batch} batch axes"
            )
        sizes = jnp.asarray(param.shape[: grad.n_sparse], grad.indices.dtype)
        strides = jnp.asarray(
            [math.prod(param.shape[i + 1 : grad.n_sparse]) for i in range(grad.n_sparse)], sizes.dtype
        )
        inside = jnp.all((grad.indices >= 0) & (grad.indices < sizes), axis=-1)
        places = jnp.sum(grad.indices * strides, axis=-1)
        return grad.n_sparse, grad.data, jnp.where(inside, places, math.prod(param.shape[: grad.n_sparse]))
    if not isinstance(grad, tuple | list) or len(grad) != 2:
        raise ArgumentError("must be a BCOO or a pair (rows, indices), got a dense array; Adam takes those")
    rows, indices = map(jnp.asarray, grad)
    if param.ndim < 1 or indices.ndim != 1 or rows.shape != (*indices.shape, *param.shape[1:]):
        raise ArgumentError(
            f"must have rows of shape (n, *{param.shape[1:]}) and n indices, got {rows.shape} and {indices.shape}"
        )
    return 1, rows, jnp.where((indices >= 0) & (indices < len(param)), indices, len(param))


def _coalesced(
    values: Float[Array, "n ..."], indices: Int[Array, " n"], length: int
) -> tuple[Float[Array, "n ..."], Int[Array, " n"]]:
    """The same sum with every index once; ``length``, out of bounds, fills what is left over."""
    unique, inverse = jnp.unique(indices, return_inverse=True, size=len(indices), fill_value=length)
    return jax.ops.segment_sum(values, inverse, num_segments=len(indices)), unique
