"""Resilient backpropagation."""

import jax.numpy as jnp
from jaxtyping import Array

from jaxnn.optim._base import Buffers, Group, Groups, Hyperparameter, Optimizer, Rule, check_range


class Rprop(Optimizer):
    r"""Steps that grow while the gradient keeps its sign and shrink when it turns; its size is of no account.

    .. math:: s_t = \operatorname{clip}(\eta_\pm s_{t-1}, s_{\min}, s_{\max}), \quad
        \theta_t = \theta_{t-1} - s_t \operatorname{sign}(g_t),

    with :math:`\eta_+` where :math:`g_t g_{t-1} > 0` and :math:`\eta_-` where it is negative; there :math:`g_t` counts
    as zero, in this step and as the next one's past.

    Differs from ``optax.rprop``: each step is taken at once, where optax (0.2.8) returns the one before, and a step
    size is clipped even where the gradient is zero.

    Args:
        lr: the first :math:`s`.
        etas: :math:`(\eta_-, \eta_+)`, factors below and above one.
        step_sizes: :math:`(s_{\min}, s_{\max})`, in the units of the parameters.
        capturable: no effect here.
        foreach: no effect here.
        maximize: ascend.
        differentiable: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: ``lr`` is negative, or ``etas`` are not below and above one.

    Source: ``torch.optim.Rprop``; Riedmiller and Braun (1993).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-2,
        etas: tuple[Hyperparameter, Hyperparameter] = (0.5, 1.2),
        step_sizes: tuple[Hyperparameter, Hyperparameter] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        param_groups: Groups | None = None,
    ) -> "Rprop":
        """See the class."""
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_range("Rprop: etas[0]", group["etas"][0], 0, 1, "()")
        check_range("Rprop: etas[1]", group["etas"][1], 1, ends="()")

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        start = jnp.full_like(param, group["lr"])
        # The imaginary part is a parameter of its own, and a step of zero would never grow.
        return {"prev": jnp.zeros_like(param), "step_size": start * (1 + 1j) if jnp.iscomplexobj(param) else start}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        shrink, grow = group["etas"]
        low, high = group["step_sizes"]

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = -grad if group["maximize"] else grad
            agreement = jnp.sign(grad * buffers["prev"])
            turned = agreement < 0
            factor = jnp.where(agreement > 0, grow, jnp.where(turned, shrink, 1)).astype(grad.dtype)
            size = jnp.clip(buffers["step_size"] * factor, low, high)
            grad = jnp.where(turned, 0, grad)
            return -jnp.sign(grad) * size, {"prev": grad, "step_size": size}

        return rule
