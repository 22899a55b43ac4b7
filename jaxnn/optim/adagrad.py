"""Adagrad."""

import jax.numpy as jnp
from jaxtyping import Array

from jaxnn.optim._base import (
    Buffers,
    Group,
    Groups,
    Hyperparameter,
    Optimizer,
    Rule,
    check_range,
    loss_gradient,
)


class Adagrad(Optimizer):
    r"""Steps divided by the root of the sum of all squared gradients.

    .. math:: s_t = s_{t-1} + g_t^2, \quad
        \theta_t = \theta_{t-1} - \frac{\gamma}{1 + (t - 1) \eta} \frac{g_t}{\sqrt{s_t} + \epsilon}

    Differs from ``optax.adagrad``: the sum starts at 0, not 0.1, :math:`\epsilon` is 1e-10, outside the root, and the
    L2 penalty and the decay :math:`\eta` of the learning rate exist.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        lr_decay: :math:`\eta`, by which the learning rate falls with the step.
        weight_decay: factor of the L2 penalty.
        initial_accumulator_value: :math:`s_0`.
        eps: :math:`\epsilon`.
        foreach: no effect here.
        maximize: ascend.
        differentiable: no effect here.
        fused: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is negative.

    Source: ``torch.optim.Adagrad``; Duchi et al. (2011).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-2,
        lr_decay: Hyperparameter = 0,
        weight_decay: Hyperparameter = 0,
        initial_accumulator_value: Hyperparameter = 0,
        eps: Hyperparameter = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        param_groups: Groups | None = None,
    ) -> "Adagrad":
        """See the class."""
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        for name in ("lr_decay", "initial_accumulator_value", "eps"):
            check_range(f"Adagrad: {name}", group[name])

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        start = jnp.full_like(param, group["initial_accumulator_value"])
        return {"sum": start * (1 + 1j) if jnp.iscomplexobj(param) else start}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        size = group["lr"] / (1 + (step - 1) * group["lr_decay"])

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = loss_gradient(group, grad, param)
            total = buffers["sum"] + grad * grad
            return -size * grad / (jnp.sqrt(total) + group["eps"]), {"sum": total}

        return rule
