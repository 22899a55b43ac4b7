"""Adafactor."""

import jax.numpy as jnp
from jaxtyping import Array

from jaxnn.functional._argument import ArgumentError
from jaxnn.optim._base import Buffers, Group, Groups, Hyperparameter, Optimizer, Rule, check_range, is_zero, lerp


class Adafactor(Optimizer):
    r"""Adaptive steps with a second moment kept as one row and one column.

    .. math:: R_t = R_{t-1} + t^\tau \big(\overline{G^2}_{\text{row}} - R_{t-1}\big), \quad
        C_t \text{ alike}, \quad V_t = \frac{R_t C_t}{\max(\overline{R_t}, \epsilon_1)}

    .. math:: U = \frac{G}{\sqrt{\max(V_t, \epsilon_1^2)}}, \quad
        \theta_t = (1 - \gamma \lambda) \theta_{t-1} - \max(\epsilon_2, \operatorname{rms} \theta_{t-1})
        \min(\gamma, t^{-1/2}) \frac{U}{\max(1, \operatorname{rms}(U) / d)}

    Rows and columns are the last two axes; a vector keeps its whole second moment.

    Differs from ``optax.adafactor``: every matrix is factored, however small, over the last two axes rather than the
    largest two; :math:`\epsilon_1` is a floor, where optax adds it to the squared gradient; the rate is bounded by
    :math:`t^{-1/2}`; weight decay is scaled by the rate; there is no momentum.

    Args:
        lr: learning rate :math:`\gamma`, a number or a schedule.
        beta2_decay: :math:`\tau`, not positive.
        eps: :math:`\epsilon_1` (``None`` for the machine epsilon) and :math:`\epsilon_2`.
        d: threshold from which updates are scaled down, at least one.
        weight_decay: decoupled decay :math:`\lambda`.
        foreach: no effect here.
        maximize: ascend.
        param_groups: see :func:`jaxnn.optim.param_groups`.

    Raises:
        ValueError: a number is out of its range, or a parameter is complex.

    Source: ``torch.optim.Adafactor``; Shazeer and Stern (2018).
    """

    def __new__(
        cls,
        lr: Hyperparameter = 1e-2,
        beta2_decay: Hyperparameter = -0.8,
        eps: tuple[Hyperparameter | None, Hyperparameter] = (None, 1e-3),
        d: Hyperparameter = 1.0,
        weight_decay: Hyperparameter = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        param_groups: Groups | None = None,
    ) -> "Adafactor":
        """See the class."""
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        return cls._of(defaults, param_groups)

    @classmethod
    def _check(cls, group: Group) -> None:
        check_range("Adafactor: beta2_decay", group["beta2_decay"], -jnp.inf, 0, "(]")
        if group["eps"][0] is not None:
            check_range("Adafactor: eps[0]", group["eps"][0])
        check_range("Adafactor: eps[1]", group["eps"][1])
        check_range("Adafactor: d", group["d"], 1)

    @classmethod
    def _init(cls, group: Group, param: Array) -> Buffers:
        if jnp.iscomplexobj(param):
            raise ArgumentError(f"Adafactor: parameters must be real, got {param.dtype}")
        if param.ndim < 2:
            return {"variance": jnp.zeros_like(param)}
        return {"row_var": jnp.zeros_like(param[..., :1]), "col_var": jnp.zeros_like(param[..., :1, :])}

    @classmethod
    def _rule(cls, group: Group, step: Array) -> Rule:
        lr = group["lr"]
        floor = jnp.finfo(step.dtype).eps.item() if group["eps"][0] is None else group["eps"][0]
        newest = step ** group["beta2_decay"]
        rate = jnp.minimum(lr, 1 / jnp.sqrt(step))

        def rule(grad: Array, param: Array, buffers: Buffers) -> tuple[Array, Buffers]:
            grad = -grad if group["maximize"] else grad
            square = grad * grad
            after: Buffers
            if "variance" in buffers:
                variance = lerp(buffers["variance"], square, newest)
                after = {"variance": variance}
            else:
                row = lerp(buffers["row_var"], jnp.mean(square, axis=-1, keepdims=True), newest)
                column = lerp(buffers["col_var"], jnp.mean(square, axis=-2, keepdims=True), newest)
                variance = row * column / jnp.maximum(jnp.mean(row, axis=-2, keepdims=True), floor)
                after = {"row_var": row, "col_var": column}
            update = grad / jnp.sqrt(jnp.maximum(variance, floor * floor))
            size = rate * jnp.maximum(_rms(param), group["eps"][1]) / jnp.maximum(_rms(update) / group["d"], 1)
            change = -size * update
            return change if is_zero(group["weight_decay"]) else change - lr * group["weight_decay"] * param, after

        return rule


def _rms(value: Array) -> Array:
    return jnp.sqrt(jnp.mean(value * value))
