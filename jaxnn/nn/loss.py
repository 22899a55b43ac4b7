"""Losses as layers; the formulas stand with their functions in ``jaxnn.functional``."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, ArrayLike, Inexact, Num, Shaped

from jaxnn import functional
from jaxnn.functional._argument import check_reduction, legacy_reduction
from jaxnn.nn.distance import PairwiseDistance
from jaxnn.nn.module import Module, optional_buffer, value

Input = Inexact[ArrayLike, "..."]
Target = Num[ArrayLike, "..."]
Loss = Inexact[Array, "..."]


class _Loss(Module):
    """A loss with a reduction."""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        check_reduction(type(self).__name__, self.reduction)


class _WeightedLoss(_Loss):
    """A loss with a weight for each class or element."""

    def __init__(
        self,
        weight: Target | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.weight = optional_buffer(weight)


class L1Loss(_Loss):
    """Source: ``torch.nn.L1Loss``; see :func:`jaxnn.functional.l1_loss`."""

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.l1_loss(input, target, reduction=self.reduction)


class MSELoss(_Loss):
    """Source: ``torch.nn.MSELoss``; see :func:`jaxnn.functional.mse_loss`."""

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.mse_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Source: ``torch.nn.SmoothL1Loss``; see :func:`jaxnn.functional.smooth_l1_loss`."""

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Source: ``torch.nn.HuberLoss``; see :func:`jaxnn.functional.huber_loss`."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        if not isinstance(delta, (float, int)):
            raise TypeError(f"HuberLoss: delta must be a float or int, got {delta!r}")
        super().__init__(reduction=reduction)
        self.delta = delta

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class SoftMarginLoss(_Loss):
    """Source: ``torch.nn.SoftMarginLoss``; see :func:`jaxnn.functional.soft_margin_loss`."""

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.soft_margin_loss(input, target, reduction=self.reduction)


class MultiLabelMarginLoss(_Loss):
    """Source: ``torch.nn.MultiLabelMarginLoss``; see :func:`jaxnn.functional.multilabel_margin_loss`."""

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.multilabel_margin_loss(input, target, reduction=self.reduction)


class KLDivLoss(_Loss):
    """Source: ``torch.nn.KLDivLoss``; see :func:`jaxnn.functional.kl_div`. ``reduction`` may also be ``batchmean``."""

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, "mean" if reduction == "batchmean" else reduction)
        self.reduction = reduction if reduction == "batchmean" else self.reduction
        self.log_target = log_target

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class PoissonNLLLoss(_Loss):
    """Source: ``torch.nn.PoissonNLLLoss``; see :func:`jaxnn.functional.poisson_nll_loss`."""

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: bool | None = None,
        eps: float = 1e-8,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def __call__(self, log_input: Input, target: Target) -> Loss:
        return functional.poisson_nll_loss(
            log_input, target, log_input=self.log_input, full=self.full, eps=self.eps, reduction=self.reduction
        )


class GaussianNLLLoss(_Loss):
    """Source: ``torch.nn.GaussianNLLLoss``; see :func:`jaxnn.functional.gaussian_nll_loss`."""

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = eps

    def __call__(self, input: Input, target: Target, var: Target) -> Loss:
        return functional.gaussian_nll_loss(input, target, var, full=self.full, eps=self.eps, reduction=self.reduction)


class BCELoss(_WeightedLoss):
    """Source: ``torch.nn.BCELoss``; see :func:`jaxnn.functional.binary_cross_entropy`."""

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.binary_cross_entropy(input, target, weight=value(self.weight), reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """Source: ``torch.nn.BCEWithLogitsLoss``; see :func:`jaxnn.functional.binary_cross_entropy_with_logits`."""

    def __init__(
        self,
        weight: Target | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Target | None = None,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.pos_weight = optional_buffer(pos_weight)

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.binary_cross_entropy_with_logits(
            input, target, weight=value(self.weight), reduction=self.reduction, pos_weight=value(self.pos_weight)
        )


class NLLLoss(_WeightedLoss):
    """Source: ``torch.nn.NLLLoss``; see :func:`jaxnn.functional.nll_loss`."""

    def __init__(
        self,
        weight: Target | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.nll_loss(
            input, target, weight=value(self.weight), ignore_index=self.ignore_index, reduction=self.reduction
        )


class CrossEntropyLoss(_WeightedLoss):
    """Source: ``torch.nn.CrossEntropyLoss``; see :func:`jaxnn.functional.cross_entropy`."""

    def __init__(
        self,
        weight: Target | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.cross_entropy(
            input,
            target,
            weight=value(self.weight),
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """Source: ``torch.nn.MultiLabelSoftMarginLoss``; see :func:`jaxnn.functional.multilabel_soft_margin_loss`."""

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.multilabel_soft_margin_loss(
            input, target, weight=value(self.weight), reduction=self.reduction
        )


class MultiMarginLoss(_WeightedLoss):
    """Source: ``torch.nn.MultiMarginLoss``; see :func:`jaxnn.functional.multi_margin_loss`."""

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Target | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        if p not in (1, 2):
            raise functional.ArgumentError(f"MultiMarginLoss: p must be 1 or 2, got {p}")
        self.p = p
        self.margin = margin

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.multi_margin_loss(
            input, target, p=self.p, margin=self.margin, weight=value(self.weight), reduction=self.reduction
        )


class _MarginLoss(_Loss):
    """A loss with a margin."""

    default_margin = 0.0

    def __init__(
        self,
        margin: float | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = self.default_margin if margin is None else margin


class MarginRankingLoss(_MarginLoss):
    """Source: ``torch.nn.MarginRankingLoss``; see :func:`jaxnn.functional.margin_ranking_loss`."""

    def __call__(self, input1: Input, input2: Input, target: Target) -> Loss:
        return functional.margin_ranking_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class CosineEmbeddingLoss(_MarginLoss):
    """Source: ``torch.nn.CosineEmbeddingLoss``; see :func:`jaxnn.functional.cosine_embedding_loss`."""

    def __call__(self, input1: Input, input2: Input, target: Target) -> Loss:
        return functional.cosine_embedding_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class HingeEmbeddingLoss(_MarginLoss):
    """Source: ``torch.nn.HingeEmbeddingLoss``; see :func:`jaxnn.functional.hinge_embedding_loss`."""

    default_margin = 1.0

    def __call__(self, input: Input, target: Target) -> Loss:
        return functional.hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


class TripletMarginLoss(_Loss):
    """Source: ``torch.nn.TripletMarginLoss``; see :func:`jaxnn.functional.triplet_margin_loss`."""

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        if margin <= 0:
            raise functional.ArgumentError(f"TripletMarginLoss: margin must be positive, got {margin}")
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap

    def __call__(self, anchor: Input, positive: Input, negative: Input) -> Loss:
        return functional.triplet_margin_loss(
            anchor,
            positive,
            negative,
            margin=self.margin,
            p=self.p,
            eps=self.eps,
            swap=self.swap,
            reduction=self.reduction,
        )


class TripletMarginWithDistanceLoss(_Loss):
    """Source: ``torch.nn.TripletMarginWithDistanceLoss``.

    See :func:`jaxnn.functional.triplet_margin_with_distance_loss`.
    """

    def __init__(
        self,
        *,
        distance_function: Callable[..., Any] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if margin <= 0:
            raise functional.ArgumentError(f"TripletMarginWithDistanceLoss: margin must be positive, got {margin}")
        self.distance_function = distance_function or PairwiseDistance()
        self.margin = margin
        self.swap = swap

    def __call__(self, anchor: Input, positive: Input, negative: Input) -> Loss:
        return functional.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )


class CTCLoss(_Loss):
    """Source: ``torch.nn.CTCLoss``; see :func:`jaxnn.functional.ctc_loss`."""

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def __call__(
        self,
        log_probs: Input,
        targets: Shaped[ArrayLike, "..."],
        input_lengths: Any,
        target_lengths: Any,
    ) -> Loss:
        return functional.ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity
        )
