"""Adam, with the L2 penalty or decoupled weight decay."""

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
    check_betas,
    check_range,
    decayed,
    is_array,
    lerp,
    loss_gradient,
    one_minus_power,
)


class Adam(Optimizer):
    r"""Adaptive moments.

    .. math:: \theta_t = \theta_{t-1} - \frac{\gamma}{1 - \beta_1^t} \frac{m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    :math:`m` and :math:`v` are decaying means of the gradient, L2 penalty included, and of its square. With ``amsgrad``
    the greatest :math:`v` so far stands for :math:`v`.

    Differs from ``optax.adam``: the L2 penalty exists. From ``optax.amsgrad``: the maximum is taken before the bias
    correction, not after.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        betas: decay rates :math:`\beta_1, \beta_2`.
        eps: :math:`\epsilon`, added outside the root.
        weight_decay: factor of the L2 penalty, or of the decay.
        amsgrad: keep the greatest second moment.
        foreach: no effect here.
        maximize: ascend.
        capturable: no effect here.
        differentiable: no effect here.
        fused: no effect here.
        decoupled_weight_decay: shrink the parameters by ``lr * weight_decay`` in place of the L2 penalty.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is out of its range; ``betas`` mixes floats and arrays; ``lr`` or ``betas`` are arrays with
            ``foreach`` and without ``capturable``.

    Source: ``torch.optim.Adam``; Kingma and Ba (2015), Reddi et al. (2018).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        param_groups: Groups | None = None,
    ) -> "Adam":
        """See the class."""
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_betas(cls.__name__, group["betas"])
        check_range(f"{cls.__name__}: eps", group["eps"])
        numbers = [beta for beta in group["betas"] if not callable(beta)]
        if not (all(isinstance(beta, float) for beta in numbers) or all(map(is_array, numbers))):
            raise ArgumentError(f"{cls.__name__}: betas must be both floats or both arrays, got {group['betas']}")
        for name, value in (("lr", group["lr"]), *(("betas", beta) for beta in group["betas"])):
            if is_array(value) and group["foreach"] and not group["capturable"]:
                raise ArgumentError(f"{cls.__name__}: {name} as an array with foreach needs capturable, got {value!r}")

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        return {name: jnp.zeros_like(param) for name in names}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        (beta1, beta2), eps = group["betas"], group["eps"]
        size = group["lr"] / one_minus_power(beta1, step)
        root = jnp.sqrt(one_minus_power(beta2, step))

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = loss_gradient(group, grad, param)
            mean = lerp(buffers["exp_avg"], grad, 1 - beta1)
            square = lerp(buffers["exp_avg_sq"], grad * grad, 1 - beta2)
            after = {"exp_avg": mean, "exp_avg_sq": square}
            if group["amsgrad"]:
                square = after["max_exp_avg_sq"] = jnp.maximum(buffers["max_exp_avg_sq"], square)
            return decayed(group, -size * mean / (jnp.sqrt(square) / root + eps), param), after

        return rule


class AdamW(Adam):
    r"""Adam with decoupled weight decay: each step first shrinks the parameters by :math:`\gamma \lambda`.

    Differs from ``optax.adamw``: the default ``weight_decay`` is 1e-2, not 1e-4, and ``amsgrad`` exists.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        betas: decay rates of the two moments.
        eps: added outside the root.
        weight_decay: :math:`\lambda`.
        amsgrad: keep the greatest second moment.
        maximize: ascend.
        foreach: no effect here.
        capturable: no effect here.
        differentiable: no effect here.
        fused: no effect here.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: as :class:`Adam`.

    Source: ``torch.optim.AdamW``; Loshchilov and Hutter (2019).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-3,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        weight_decay: Hyperparameter = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        param_groups: Groups | None = None,
    ) -> "AdamW":
        """See the class."""
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": True,
        }
        return cls._of(defaults, param_groups)
