"""The loss of a linear map onto many classes, as a layer."""

import math

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Inexact, Num

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.functional._argument import check_reduction
from jaxnn.functional.vocabulary_loss import LinearCrossEntropyOptions as LinearCrossEntropyOptions
from jaxnn.nn.linear import Linear
from jaxnn.nn.module import Module, optional_buffer, value


class LinearCrossEntropyLoss(Module):
    """A linear map onto classes and the cross entropy of what comes out, without holding all the logits.

    Attributes:
        linear: its weight is ``(num_classes * prod(out_features), in_features)``.
        weight: ``(num_classes,)``, a factor for each class, or None.

    Source: ``torch.nn.LinearCrossEntropyLoss``; see :func:`jaxnn.functional.linear_cross_entropy`.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        reduction: str = "mean",
        weight: Float[ArrayLike, " classes"] | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: LinearCrossEntropyOptions | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_reduction("LinearCrossEntropyLoss", reduction)
        self.weight = optional_buffer(weight)
        if self.weight is not None and self.weight.shape != (num_classes,):
            raise ArgumentError(
                f"LinearCrossEntropyLoss: weight must have shape {(num_classes,)}, got {self.weight.shape}"
            )
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError(
                f"LinearCrossEntropyLoss: label_smoothing must lie between 0 and 1, got {label_smoothing}"
            )
        self.num_classes = num_classes
        self.out_features = tuple(out_features)
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.options = options
        rows = math.prod(self.out_features, start=num_classes)
        self.linear = Linear(in_features, rows, bias, device, dtype, rngs=rngs)

    def __call__(
        self, input: Inexact[ArrayLike, "*batch in_features"], target: Num[ArrayLike, "..."]
    ) -> Inexact[Array, "..."]:
        shape = (self.num_classes, *self.out_features)
        bias = value(self.linear.bias)
        return functional.linear_cross_entropy(
            input,
            self.linear.weight[...].reshape(*shape, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=value(self.weight),
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )

    def extra_repr(self) -> str:
        return (
            f"in_features={self.linear.in_features}, num_classes={self.num_classes}, "
            f"out_features={self.out_features}, bias={self.linear.bias is not None}, reduction={self.reduction}, "
            f"ignore_index={self.ignore_index}, label_smoothing={self.label_smoothing}, options={self.options}"
        )
