"""Adadelta."""

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
    lerp,
    loss_gradient,
)


class Adadelta(Optimizer):
    r"""Steps as large as past steps were, over the root mean square of the gradient.

    .. math:: v_t = \rho v_{t-1} + (1 - \rho) g_t^2, \quad
        d_t = \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}} g_t, \quad
        u_t = \rho u_{t-1} + (1 - \rho) d_t^2, \quad \theta_t = \theta_{t-1} - \gamma d_t

    Same algorithm as ``optax.adadelta``, with a learning rate of 1 unless given.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        rho: decay rate :math:`\rho`.
        eps: :math:`\epsilon`, inside both roots.
        weight_decay: factor of the L2 penalty.
        foreach: no effect here.
        capturable: no effect here.
        maximize: ascend.
        differentiable: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is negative, or ``rho`` greater than one.

    Source: ``torch.optim.Adadelta``; Zeiler (2012).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1.0,
        rho: Hyperparameter = 0.9,
        eps: Hyperparameter = 1e-6,
        weight_decay: Hyperparameter = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        param_groups: Groups | None = None,
    ) -> "Adadelta":
        """See the class."""
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_range("Adadelta: rho", group["rho"], 0, 1, "[]")
        check_range("Adadelta: eps", group["eps"])

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        return {"square_avg": jnp.zeros_like(param), "acc_delta": jnp.zeros_like(param)}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        rho, eps = group["rho"], group["eps"]

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = loss_gradient(group, grad, param)
            square = lerp(buffers["square_avg"], grad * grad, 1 - rho)
            delta = jnp.sqrt(buffers["acc_delta"] + eps) / jnp.sqrt(square + eps) * grad
            return -group["lr"] * delta, {
                "square_avg": square,
                "acc_delta": lerp(buffers["acc_delta"], delta * delta, 1 - rho),
            }

        return rule
