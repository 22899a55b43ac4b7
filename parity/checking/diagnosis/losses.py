"""What people get wrong in losses."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from parity.checking.diagnosis.calls import Call, Mutation
from parity.checking.diagnosis.mutations import other, suspects_of

OF_CLASSES = ("cross_entropy", "nll_loss")
OF_TWO = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
OF_PROBABILITIES = ("binary_cross_entropy", "binary_cross_entropy_with_logits")


@suspects_of(*OF_CLASSES, *OF_TWO, *OF_PROBABILITIES, "kl_div", "poisson_nll_loss", "gaussian_nll_loss")
def _reduction(call: Call) -> Iterator[Mutation]:
    input = call["input"]
    yield from other(call, "reduction", "reduction", "mean", "sum")
    if call.name == "kl_div":
        yield from other(call, "reduction", "reduction", "batchmean")
        yield from other(call, "log_target", "log target", not call["log_target"])
    if isinstance(input, torch.Tensor) and input.ndim > (2 if call.name in OF_CLASSES else 1):
        said = "the loss is summed over the batch's samples, averaged over the batch alone"
        yield "reduction", said, lambda c: c.run(reduction="sum") / c["input"].shape[0]


@suspects_of("ctc_loss")
def _alignments(call: Call) -> Iterator[Mutation]:
    x, along = call["log_probs"], "input_lengths"
    yield from other(call, "reduction", "reduction", "mean", "sum")
    if x.ndim == 3:
        said = "the loss is summed, and averaged over the batch alone; torch divides each by its target's length"
        yield "reduction", said, lambda c: c.run(reduction="sum") / x.shape[1]
    yield from other(call, "blank", "blank label", 0, x.shape[-1] - 1)
    yield from other(call, "zero_infinity", "zero_infinity", not call["zero_infinity"])
    said = "the lengths of the inputs are left out: each is as long as the longest"
    yield "lengths", said, lambda c: c.run(**{along: torch.full((x.shape[1] if x.ndim == 3 else 1,), len(x))})


@suspects_of(*OF_CLASSES)
def _classes(call: Call) -> Iterator[Mutation]:
    target, ignored, averages = call["target"], call["ignore_index"], call["reduction"] == "mean"
    if call.name == "cross_entropy":
        yield from other(call, "label_smoothing", "label smoothing", 0.0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.3)
    if call["weight"] is not None:
        yield "class weights", "the classes are not weighted", lambda c: c.run(weight=None)
    if call["weight"] is not None and averages:
        said = "the weighted mean is taken over the number of targets, torch's over the sum of their weights"
        yield "reduction", said, lambda c: c.run(reduction="none").sum() / c["target"].numel()
        if isinstance(target, torch.Tensor) and not target.is_floating_point() and bool((target == ignored).any()):
            said = "the weighted mean is taken over the number of targets that are not ignored, torch's over the sum of"
            yield (
                "reduction",
                f"{said} their weights",
                lambda c: c.run(reduction="sum") / (c["target"] != c["ignore_index"]).sum(),
            )
    if isinstance(target, torch.Tensor) and not target.is_floating_point():
        yield from other(call, "ignore_index", "ignored index", -100, -1, 0, int(target.max()))
        said = "the mean is taken over all targets, torch's over those that are not ignored"
        if averages and bool((target == ignored).any()):
            yield "reduction", said, lambda c: c.run(reduction="sum") / c["target"].numel()
    if call.name == "cross_entropy":
        said, twin = "the logits are taken for logarithms of probabilities", F.nll_loss
    else:
        said, twin = "the logarithms of probabilities are taken for logits", F.cross_entropy
    yield "softmax", said, lambda c: twin(c["input"], c["target"], c["weight"], reduction=c["reduction"])
    if call.name == "cross_entropy":
        said = "a softmax is taken of the logits before the loss takes its own"
        yield "softmax", said, lambda c: c.run(input=c["input"].softmax(1 if c["input"].ndim > 1 else 0))


@suspects_of(*OF_TWO)
def _two(call: Call) -> Iterator[Mutation]:
    for name in OF_TWO:
        if name != call.name:
            said = f"the loss is {name}, torch's is {call.name}"
            yield "loss", said, lambda c, n=name: getattr(F, n)(c["input"], c["target"], reduction=c["reduction"])
    yield "scale", "the loss is halved", lambda c: 0.5 * c.run()
    for name in ("beta", "delta"):
        yield from other(call, name, "threshold of the loss", *(0.1, 0.5, 1.0, 2.0) if call[name] is not None else ())


@suspects_of(*OF_PROBABILITIES)
def _probabilities(call: Call) -> Iterator[Mutation]:
    if call.name == "binary_cross_entropy_with_logits":
        said = "a sigmoid is taken of the logits before the loss takes its own"
        yield "activation", said, lambda c: c.run(input=c["input"].sigmoid())
        if call["pos_weight"] is not None:
            yield "class weights", "pos_weight is not multiplied by", lambda c: c.run(pos_weight=None)
    if call["weight"] is not None:
        yield "class weights", "weight is not multiplied by", lambda c: c.run(weight=None)
    for smooth in (0.05, 0.1, 0.2):

        def smoothed(c: Call, s: float = smooth) -> Any:
            return c.run(target=c["target"] * (1 - s) + s / 2)

        yield "label smoothing", f"the targets are smoothed by {smooth}", smoothed
