"""Stochastic gradient descent."""

import jax.numpy as jnp
from jaxtyping import Array

from jaxnn.functional._argument import ArgumentError
from jaxnn.optim._base import (
    Buffers,
    Group,
    Groups,
    Hyperparameter,
    Optimizer,
    Rule,
    check_range,
    is_zero,
    loss_gradient,
)


class SGD(Optimizer):
    r"""Gradient descent, with momentum, Nesterov's or the plain one.

    .. math:: b_1 = g_1, \quad b_t = \mu b_{t-1} + (1 - \tau) g_t, \quad \theta_t = \theta_{t-1} - \gamma b_t,

    with :math:`g_t + \mu b_t` in place of :math:`b_t` in the last formula for Nesterov's; :math:`g` has the penalty.

    Differs from ``optax.sgd``: the L2 penalty exists and enters the momentum, where ``optax.add_decayed_weights`` after
    it would not; so does dampening, which spares the first step.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        momentum: :math:`\mu`; zero keeps no buffer.
        dampening: :math:`\tau`.
        weight_decay: factor of the L2 penalty.
        nesterov: look ahead along the momentum.
        maximize: ascend.
        foreach: no effect here.
        differentiable: no effect here.
        fused: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: ``lr``, ``momentum`` or ``weight_decay`` is negative, or ``nesterov`` without momentum or with
            dampening.

    Source: ``torch.optim.SGD``; Sutskever et al. (2013).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-3,
        momentum: Hyperparameter = 0,
        dampening: Hyperparameter = 0,
        weight_decay: Hyperparameter = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        param_groups: Groups | None = None,
    ) -> "SGD":
        """See the class."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_range("SGD: momentum", group["momentum"])
        if group["nesterov"] and (is_zero(group["momentum"]) or not is_zero(group["dampening"])):
            raise ArgumentError(
                "SGD: nesterov needs a momentum and zero dampening, got "
                f"momentum {group['momentum']}, dampening {group['dampening']}"
            )

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        return {} if is_zero(group["momentum"]) else {"momentum_buffer": jnp.zeros_like(param)}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        lr, momentum, dampening = group["lr"], group["momentum"], group["dampening"]
        # The first gradient enters the momentum whole.
        fresh = 1 if is_zero(dampening) else jnp.where(step == 1, 1, 1 - dampening).astype(step.dtype)

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = loss_gradient(group, grad, param)
            if "momentum_buffer" not in buffers:
                return -lr * grad, {}
            buffer = momentum * buffers["momentum_buffer"] + fresh * grad
            return -lr * (grad + momentum * buffer if group["nesterov"] else buffer), {"momentum_buffer": buffer}

        return rule
