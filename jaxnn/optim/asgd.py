"""Averaged stochastic gradient descent."""

import jax.numpy as jnp
from jaxtyping import Array

from jaxnn.optim._base import Buffers, Group, Groups, Hyperparameter, Optimizer, Rule, lerp, loss_gradient


class ASGD(Optimizer):
    r"""Gradient descent with a falling rate, and the mean of the parameters beside it.

    .. math:: \theta_t = (1 - \lambda \eta_{t-1}) \theta_{t-1} - \eta_{t-1} g_t, \quad
        \eta_t = \frac{\gamma}{(1 + \lambda \gamma t)^\alpha}, \quad
        a_t = a_{t-1} + \frac{\theta_t - a_{t-1}}{\max(1, t - 1 - t_0)}

    The mean :math:`a` is in the state, ``state.buffers["ax"]``. A schedule acts one step late, for :math:`\eta` is
    computed a step ahead. Optax has no namesake.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        lambd: decay :math:`\lambda`.
        alpha: power :math:`\alpha` of the falling rate.
        t0: the step at which averaging begins.
        weight_decay: factor of the L2 penalty.
        foreach: no effect here.
        maximize: ascend.
        differentiable: no effect here.
        capturable: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: ``lr`` or ``weight_decay`` is negative.

    Source: ``torch.optim.ASGD``; Polyak and Juditsky (1992).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-2,
        lambd: Hyperparameter = 1e-4,
        alpha: Hyperparameter = 0.75,
        t0: Hyperparameter = 1e6,
        weight_decay: Hyperparameter = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        *,
        param_groups: Groups | None = None,
    ) -> "ASGD":
        """See the class."""
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        """Torch refuses nothing more."""

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        # float32 whatever the parameters are, as torch keeps it.
        rate = jnp.asarray(group["lr"]).reshape(()).astype(jnp.float32)
        return {"ax": jnp.zeros_like(param), "eta": rate, "mu": jnp.ones((), jnp.float32)}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        lr, lambd = group["lr"], group["lambd"]
        next_eta = lr / (1 + lambd * lr * step) ** group["alpha"]
        next_mu = 1 / jnp.maximum(1, step - group["t0"])

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            eta, mu = (buffers[name].astype(grad.dtype) for name in ("eta", "mu"))
            change = -eta * loss_gradient(group, grad, param) - lambd * eta * param
            moved = param + change
            # At a weight of one rounding must not keep anything of the old mean.
            mean = jnp.where(mu == 1, moved, lerp(buffers["ax"], moved, mu))
            return change, {
                "ax": mean,
                "eta": next_eta.astype(buffers["eta"].dtype),
                "mu": next_mu.astype(buffers["mu"].dtype),
            }

        return rule
