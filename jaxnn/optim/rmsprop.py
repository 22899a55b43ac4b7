"""RMSprop."""

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
    is_zero,
    lerp,
    loss_gradient,
)


class RMSprop(Optimizer):
    r"""Steps divided by the root mean square of recent gradients.

    .. math:: v_t = \alpha v_{t-1} + (1 - \alpha) g_t^2, \quad
        b_t = \mu b_{t-1} + \frac{g_t}{\sqrt{v_t} + \epsilon}, \quad \theta_t = \theta_{t-1} - \gamma b_t

    With ``centered`` the variance :math:`v - \bar g^2` stands for :math:`v`.

    Differs from ``optax.rmsprop``: :math:`\epsilon` is outside the root, the decay is 0.99, not 0.9, the learning rate
    is outside the momentum and the L2 penalty exists.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        alpha: decay rate :math:`\alpha` of the means.
        eps: :math:`\epsilon`.
        weight_decay: factor of the L2 penalty.
        momentum: :math:`\mu`; zero keeps no buffer.
        centered: divide by the deviation from the mean gradient.
        capturable: no effect here.
        foreach: no effect here.
        maximize: ascend.
        differentiable: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is negative.

    Source: ``torch.optim.RMSprop``; Tieleman and Hinton (2012), Graves (2013).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-2,
        alpha: Hyperparameter = 0.99,
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0,
        momentum: Hyperparameter = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        param_groups: Groups | None = None,
    ) -> "RMSprop":
        """See the class."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        for name in ("momentum", "alpha", "eps"):
            check_range(f"RMSprop: {name}", group[name])

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        kept = {"square_avg": True, "momentum_buffer": not is_zero(group["momentum"]), "grad_avg": group["centered"]}
        return {name: jnp.zeros_like(param) for name, used in kept.items() if used}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        lr, alpha, eps = group["lr"], group["alpha"], group["eps"]

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = loss_gradient(group, grad, param)
            square = lerp(buffers["square_avg"], grad * grad, 1 - alpha)
            after, variance = {"square_avg": square}, square
            if group["centered"]:
                mean = after["grad_avg"] = lerp(buffers["grad_avg"], grad, 1 - alpha)
                # Rounding may leave a variance of nothing just below zero.
                variance = jnp.maximum(square - mean * mean, 0)
            change = grad / (jnp.sqrt(variance) + eps)
            if "momentum_buffer" in buffers:
                change = after["momentum_buffer"] = group["momentum"] * buffers["momentum_buffer"] + change
            return -lr * change, after

        return rule
