"""Losses as layers."""

from flax import nnx
from jaxtyping import Array, ArrayLike, Inexact, Num, Shaped

from jaxnn import functional
from jaxnn.functional._argument import check_reduction, legacy_reduction
from jaxnn.nn.module import Buffer, Module


class _Loss(Module):
    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        check_reduction(type(self).__name__, self.reduction)


class _WeightedLoss(_Loss):
    def __init__(
        self,
        weight: Num[ArrayLike, "..."] | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.weight = _buffer(weight)


class MSELoss(_Loss):
    """Source: ``torch.nn.MSELoss``; see :func:`jaxnn.functional.mse_loss`."""

    def __call__(self, input: Inexact[ArrayLike, "..."], target: Num[ArrayLike, "..."]) -> Inexact[Array, "..."]:
        return functional.mse_loss(input, target, reduction=self.reduction)


class CrossEntropyLoss(_WeightedLoss):
    """Source: ``torch.nn.CrossEntropyLoss``; see :func:`jaxnn.functional.cross_entropy`."""

    def __init__(
        self,
        weight: Num[ArrayLike, "classes"] | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def __call__(self, input: Inexact[ArrayLike, "..."], target: Shaped[ArrayLike, "..."]) -> Inexact[Array, "..."]:
        return functional.cross_entropy(
            input,
            target,
            weight=_value(self.weight),
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class BCELoss(_WeightedLoss):
    """Source: ``torch.nn.BCELoss``; see :func:`jaxnn.functional.binary_cross_entropy`."""

    def __call__(self, input: Inexact[ArrayLike, "..."], target: Num[ArrayLike, "..."]) -> Inexact[Array, "..."]:
        return functional.binary_cross_entropy(input, target, weight=_value(self.weight), reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """Source: ``torch.nn.BCEWithLogitsLoss``; see :func:`jaxnn.functional.binary_cross_entropy_with_logits`."""

    def __init__(
        self,
        weight: Num[ArrayLike, "..."] | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Num[ArrayLike, "..."] | None = None,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.pos_weight = _buffer(pos_weight)

    def __call__(self, input: Inexact[ArrayLike, "..."], target: Num[ArrayLike, "..."]) -> Inexact[Array, "..."]:
        return functional.binary_cross_entropy_with_logits(
            input, target, weight=_value(self.weight), reduction=self.reduction, pos_weight=_value(self.pos_weight)
        )


def _buffer(array: Num[ArrayLike, "..."] | None) -> Buffer | None:
    return nnx.data(None) if array is None else Buffer(array)


def _value(buffer: Buffer | None) -> Array | None:
    return None if buffer is None else buffer.get_value()
