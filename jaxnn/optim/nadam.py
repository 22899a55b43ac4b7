"""Adam with Nesterov's momentum."""

import math

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
    decayed,
    lerp,
    loss_gradient,
    one_minus_power,
)


class NAdam(Optimizer):
    r"""Adam that looks ahead along its momentum, which warms up.

    .. math:: \mu_t = \beta_1 \big(1 - \tfrac12\, 0.96^{t \psi}\big), \quad
        \theta_t = \theta_{t-1} - \gamma \frac{\frac{1 - \mu_t}{1 - \prod_{i \le t} \mu_i} g_t
        + \frac{\mu_{t+1}}{1 - \prod_{i \le t + 1} \mu_i} m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Differs from ``optax.nadam``: the momentum follows the schedule :math:`\mu`, where optax's is constant; the L2
    penalty and the decoupled decay exist.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        betas: decay rates :math:`\beta_1, \beta_2`.
        eps: :math:`\epsilon`, added outside the root.
        weight_decay: factor of the L2 penalty, or of the decay.
        momentum_decay: :math:`\psi`, how fast the momentum warms up.
        decoupled_weight_decay: shrink the parameters by ``lr * weight_decay`` in place of the L2 penalty.
        foreach: no effect here.
        maximize: ascend.
        capturable: no effect here.
        differentiable: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is out of its range.

    Source: ``torch.optim.NAdam``; Dozat (2016).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 2e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0,
        momentum_decay: Hyperparameter = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        param_groups: Groups | None = None,
    ) -> "NAdam":
        """See the class."""
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_betas("NAdam", group["betas"])
        check_range("NAdam: eps", group["eps"])
        check_range("NAdam: momentum_decay", group["momentum_decay"])

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        # float32 whatever the parameters are, as torch keeps it.
        product = jnp.ones((), jnp.float32)
        return {"exp_avg": jnp.zeros_like(param), "exp_avg_sq": jnp.zeros_like(param), "mu_product": product}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        (beta1, beta2), lr, decay = group["betas"], group["lr"], group["momentum_decay"]
        correction = one_minus_power(beta2, step)
        now, ahead = (beta1 * (1 - 0.5 * jnp.exp(t * decay * math.log(0.96))) for t in (step, step + 1))

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = loss_gradient(group, grad, param)
            mean = lerp(buffers["exp_avg"], grad, 1 - beta1)
            square = lerp(buffers["exp_avg_sq"], grad * grad, 1 - beta2)
            kept = buffers["mu_product"] * now.astype(buffers["mu_product"].dtype)
            product = kept.astype(grad.dtype)
            of_grad = lr * (1 - now) / (1 - product)
            of_mean = lr * ahead / (1 - product * ahead)
            change = -(of_grad * grad + of_mean * mean) / (jnp.sqrt(square / correction) + group["eps"])
            return decayed(group, change, param), {"exp_avg": mean, "exp_avg_sq": square, "mu_product": kept}

        return rule
