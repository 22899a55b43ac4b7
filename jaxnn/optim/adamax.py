"""Adamax."""

import jax.numpy as jnp
from jaxtyping import Array

from jaxnn.optim._base import (
    Buffers,
    Group,
    Groups,
    Hyperparameter,
    Optimizer,
    Rule,
    check_betas,
    check_range,
    lerp,
    loss_gradient,
    one_minus_power,
)


class Adamax(Optimizer):
    r"""Adam with the infinity norm in place of the second moment.

    .. math:: u_t = \max(\beta_2 u_{t-1}, |g_t| + \epsilon), \quad
        \theta_t = \theta_{t-1} - \frac{\gamma}{1 - \beta_1^t} \frac{m_t}{u_t}

    Differs from ``optax.adamax``: the L2 penalty exists.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        betas: decay rates :math:`\beta_1, \beta_2`.
        eps: :math:`\epsilon`.
        weight_decay: factor of the L2 penalty.
        foreach: no effect here.
        maximize: ascend.
        differentiable: no effect here.
        capturable: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is out of its range.

    Source: ``torch.optim.Adamax``; Kingma and Ba (2015).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 2e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        param_groups: Groups | None = None,
    ) -> "Adamax":
        """See the class."""
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_betas("Adamax", group["betas"])
        check_range("Adamax: eps", group["eps"])

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        return {"exp_avg": jnp.zeros_like(param), "exp_inf": jnp.zeros_like(param)}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        beta1, beta2 = group["betas"]
        size = group["lr"] / one_minus_power(beta1, step)

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = loss_gradient(group, grad, param)
            mean = lerp(buffers["exp_avg"], grad, 1 - beta1)
            norm = jnp.maximum(beta2 * buffers["exp_inf"], jnp.abs(grad) + group["eps"])
            return -size * mean / norm, {"exp_avg": mean, "exp_inf": norm}

        return rule
