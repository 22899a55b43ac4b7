"""Rectified Adam."""

from typing import Any

import jax.numpy as jnp
import numpy as np
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
    is_array,
    lerp,
    log_decay,
    loss_gradient,
    one_minus_power,
)


class RAdam(Optimizer):
    r"""Adam that trusts the second moment only once it has been seen often enough.

    .. math:: \rho_\infty = \frac{2}{1 - \beta_2} - 1, \quad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \quad
        r_t = \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}}

    .. math:: \theta_t = \theta_{t-1} - \gamma \frac{m_t}{1 - \beta_1^t}
        \begin{cases} r_t \sqrt{1 - \beta_2^t} / (\sqrt{v_t} + \epsilon) & \rho_t > 5 \\ 1 & \text{else} \end{cases}

    Differs from ``optax.radam``: :math:`\epsilon` is added before the bias correction of :math:`v`, not after, and the
    L2 penalty and the decoupled decay exist.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        betas: decay rates :math:`\beta_1, \beta_2`.
        eps: :math:`\epsilon`.
        weight_decay: factor of the L2 penalty, or of the decay.
        decoupled_weight_decay: shrink the parameters by ``lr * weight_decay`` in place of the L2 penalty.
        foreach: no effect here.
        maximize: ascend.
        capturable: no effect here.
        differentiable: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is out of its range.

    Source: ``torch.optim.RAdam``; Liu et al. (2020).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        param_groups: Groups | None = None,
    ) -> "RAdam":
        """See the class."""
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_betas("RAdam", group["betas"])
        check_range("RAdam: eps", group["eps"])

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        return {"exp_avg": jnp.zeros_like(param), "exp_avg_sq": jnp.zeros_like(param)}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        (beta1, beta2), lr = group["betas"], group["lr"]
        size = lr / one_minus_power(beta1, step)
        longest, length = 2 / (1 - beta2) - 1, _memory(beta2, step)
        trusted = length > 5
        safe = jnp.where(trusted, length, 5)
        rectified = jnp.sqrt((safe - 4) * (safe - 2) * longest / ((longest - 4) * (longest - 2) * safe))
        adaptive = rectified * jnp.sqrt(one_minus_power(beta2, step))

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = loss_gradient(group, grad, param)
            mean = lerp(buffers["exp_avg"], grad, 1 - beta1)
            square = lerp(buffers["exp_avg_sq"], grad * grad, 1 - beta2)
            change = -size * mean * jnp.where(trusted, adaptive / (jnp.sqrt(square) + group["eps"]), 1)
            return decayed(group, change, param), {"exp_avg": mean, "exp_avg_sq": square}

        return rule


def _memory(beta: Any, step: Array) -> Array:
    r"""How many gradients the second moment remembers, :math:`\rho_t`, without its difference of large numbers.

    With :math:`\beta = e^{-x}` and :math:`L(y) = \coth y - 1 / y` it is :math:`L(x/2) + t (1 - L(tx/2))`.
    """
    rate = -log_decay(beta)
    first = _one_minus_langevin(rate / 2) if is_array(beta) else float(_one_minus_langevin(np.float64(rate / 2), np))
    return 1 - first + step * _one_minus_langevin(step * (rate / 2))


def _one_minus_langevin(y: Any, xp: Any = jnp) -> Any:
    small = xp.where(y < 0.5, y, 0)
    power = small * small
    # Bernoulli's series of coth y - 1 / y; the term left out is below 1e-9 here.
    terms = [1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555, -1382 / 638512875, 4 / 18243225]
    series = 0 * power
    for term in reversed(terms):
        series = series * power + term
    large = xp.where(y < 0.5, 1, y)
    return xp.where(y < 0.5, 1 - small * series, 1 / large - 2 / xp.expm1(xp.minimum(2 * large, 80.0)))
