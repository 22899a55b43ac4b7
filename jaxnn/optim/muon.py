"""Muon: momentum, orthogonalised."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, BFloat16, Float

from jaxnn.functional._argument import ArgumentError
from jaxnn.optim._base import Buffers, Group, Groups, Hyperparameter, Optimizer, Rule, check_range, lerp


class Muon(Optimizer):
    r"""Momentum with its singular values brought near one, for the matrices of hidden layers.

    .. math:: B_t = \mu B_{t-1} + (1 - \mu) g_t, \quad \tilde B_t = (1 - \mu) g_t + \mu B_t, \quad
        \theta_t = (1 - \gamma \lambda) \theta_{t-1} - \gamma a\, \operatorname{NS}(\tilde B_t)

    NS is the Newton-Schulz iteration :math:`X \leftarrow c_0 X + (c_1 X X^\top + c_2 (X X^\top)^2) X`, in bfloat16 from
    :math:`X = \tilde B / \lVert \tilde B \rVert`; :math:`a` depends on the shape. Other parameters belong to another
    optimizer: ``optax.partition`` gives each its own.

    Differs from ``optax.contrib.muon``: the iteration runs in bfloat16, the momentum has no bias correction, weight
    decay is 0.1 unless given, and parameters that are not matrices are refused, not handed to Adam.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        weight_decay: decoupled decay :math:`\lambda`.
        momentum: :math:`\mu`.
        nesterov: orthogonalise :math:`\tilde B`, not :math:`B`.
        ns_coefficients: :math:`(c_0, c_1, c_2)`.
        eps: least norm to divide by.
        ns_steps: iterations, fewer than 100.
        adjust_lr_fn: :math:`a` of a matrix of :math:`m` rows and :math:`n` columns: ``None`` or ``"original"`` for
            :math:`\sqrt{\max(1, m / n)}`, ``"match_rms_adamw"`` for :math:`0.2 \sqrt{\max(m, n)}`.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is out of its range, ``adjust_lr_fn`` is unknown, or a parameter is complex or no matrix.

    Source: ``torch.optim.Muon``; Jordan (2024), Liu et al. (2025).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-3,
        weight_decay: Hyperparameter = 0.1,
        momentum: Hyperparameter = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        param_groups: Groups | None = None,
    ) -> "Muon":
        """See the class."""
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_range("Muon: momentum", group["momentum"])
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise ArgumentError(
                f"Muon: adjust_lr_fn must be None, 'original' or 'match_rms_adamw', got {group['adjust_lr_fn']!r}"
            )
        if group["ns_steps"] >= 100:
            raise ArgumentError(f"Muon: ns_steps must be less than 100, got {group['ns_steps']}")
        if len(group["ns_coefficients"]) != 3:
            raise ArgumentError(f"Muon: ns_coefficients must be 3 numbers, got {group['ns_coefficients']}")

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        if param.ndim != 2:
            raise ArgumentError(f"Muon: parameters must have 2 axes, got shape {param.shape}")
        if jnp.iscomplexobj(param):
            raise ArgumentError(f"Muon: parameters must be real, got {param.dtype}")
        return {"momentum_buffer": jnp.zeros_like(param)}

    @classmethod
    def _cast(cls, group: Group, dtype: Any) -> Group:
        # The factor is rounded to the dtype of lr where that is an array, as torch rounds it.
        return super()._cast({**group, "keep": 1 - group["lr"] * group["weight_decay"]}, dtype)

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        lr, momentum, keep = group["lr"], group["momentum"], group["keep"]

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            buffer = lerp(buffers["momentum_buffer"], grad, 1 - momentum)
            direction = lerp(grad, buffer, momentum) if group["nesterov"] else buffer
            update = orthogonalized(direction, group["ns_coefficients"], group["ns_steps"], group["eps"])
            size = lr * _adjustment(group["adjust_lr_fn"], *param.shape)
            change = -size * update.astype(grad.dtype) - (1 - keep) * param
            return change, {"momentum_buffer": buffer}

        return rule


def _adjustment(name: str | None, rows: int, columns: int) -> float:
    if name == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def orthogonalized(
    matrix: Float[Array, "rows columns"], coefficients: tuple[float, float, float], steps: int, eps: float
) -> BFloat16[Array, "rows columns"]:
    """``matrix`` with singular values near one, by Newton and Schulz in bfloat16, each sum rounded once as in torch."""
    low, wide = jnp.bfloat16, matrix.dtype
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).astype(low)
    norm = jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)))).astype(low), jnp.asarray(eps, low))
    x = (x.astype(jnp.float32) / norm.astype(jnp.float32)).astype(low)
    a, b, c = (float(np.float32(coefficient)) for coefficient in coefficients)

    def product(left: Array, right: Array) -> Array:
        return lax.dot(left, right, preferred_element_type=jnp.float32).astype(wide)

    for _ in range(steps):
        gram = product(x, x.T).astype(low)
        # Through float32 to bfloat16, for torch's fused multiply-add rounds to float32 first.
        update = (b * gram.astype(wide) + c * product(gram, gram)).astype(jnp.float32).astype(low)
        x = (a * x.astype(wide) + product(update, x)).astype(jnp.float32).astype(low)
    return x.T if tall else x
