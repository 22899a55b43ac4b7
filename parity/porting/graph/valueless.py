"""Functions of torch that look at values while they run, as operators that do not: export has no values."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

_LIBRARY = torch.library.Library("parity", "FRAGMENT")
_LIBRARY.define(
    "ctc_loss(Tensor log_probs, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
    "str reduction, bool zero_infinity) -> Tensor"
)


@torch.library.register_fake("parity::ctc_loss")
def _shape(
    log_probs: Tensor, targets: Tensor, inputs: Tensor, lengths: Tensor, blank: int, reduction: str, zero: bool
) -> Tensor:
    whole = reduction != "none" or log_probs.ndim == 2
    return log_probs.new_empty(() if whole else log_probs.shape[1:2])


class Valueless(TorchFunctionMode):
    """Takes the place of such functions wherever they are called.

    Attributes:
        counts: whether ``bincount`` is among them: it gives more entries where the data have larger numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _INSTEAD and not torch.compiler.is_dynamo_compiling():
            self.counts |= _INSTEAD[func] is _bincount
            with self:
                return _INSTEAD[func](*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    inputs, lengths = (x if isinstance(x, Tensor) else torch.tensor(x) for x in (input_lengths, target_lengths))
    loss: Tensor = torch.ops.parity.ctc_loss(log_probs, targets, inputs, lengths, blank, reduction, zero_infinity)
    return loss


class _Solution(NamedTuple):
    """What ``torch.linalg.lstsq`` returns."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


def _lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> _Solution:
    if driver in ("gelss", "gelsd"):
        raise NotImplementedError(f"lstsq by {driver}; by gelsy it can be written")
    vector = B.ndim == 1 or (B.ndim == A.ndim - 1 and B.shape == A.shape[:-1])
    right = B.unsqueeze(-1) if vector else B
    found = torch.linalg.pinv(A, rtol=rcond) @ right
    rows, columns = A.shape[-2:]
    off = (A @ found - right).square().sum(-2) if rows > columns else A.new_empty(0)
    solution = found.squeeze(-1) if vector else found
    return _Solution(solution, off, torch.linalg.matrix_rank(A, rtol=rcond), A.new_empty(0))


def _combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    choose: Callable[..., Any] = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    picked = list(choose(range(input.shape[0]), r))
    return input[torch.tensor(picked, dtype=torch.int64).reshape(len(picked), r)]


def _cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    x = input if input.ndim == 2 else input.reshape(1, -1)
    total: Any = x.shape[1]
    left = total - correction
    fweights = None if fweights is None else fweights.to(x.dtype)
    weights = aweights if fweights is None else fweights if aweights is None else fweights * aweights
    if weights is not None:
        total = left = weights.sum()
        if correction:
            left = left - correction * (1 if aweights is None else (weights * aweights).sum() / total)
        left = left.clamp(min=0)
    elif isinstance(left, int):
        left = max(left, 0)
    centred = x - (x if weights is None else x * weights).sum(1, keepdim=True) / total
    return (centred @ (centred if weights is None else centred * weights).mT.conj() / left).squeeze()


def _corrcoef(input: Tensor) -> Tensor:
    found = _cov(input)
    if not found.ndim:
        return found / found
    deviation = found.diagonal().real.sqrt() if found.is_complex() else found.diagonal().sqrt()
    found = found / deviation[:, None] / deviation
    return torch.complex(found.real.clip(-1, 1), found.imag.clip(-1, 1)) if found.is_complex() else found.clip(-1, 1)


def _bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    if not minlength:
        raise NotImplementedError("bincount without a minlength, of as many entries as the data decide,")
    if weights is None:
        weights = torch.ones_like(input, dtype=torch.int64)
    elif weights.dtype != torch.float32:
        weights = weights.double()
    return weights.new_zeros(minlength).index_add(0, input, weights)


_INSTEAD: dict[Any, Callable[..., Any]] = {
    torch.nn.functional.ctc_loss: _ctc_loss,
    torch.linalg.lstsq: _lstsq,
    torch.combinations: _combinations,
    torch.cov: _cov,
    torch.Tensor.cov: _cov,
    torch.corrcoef: _corrcoef,
    torch.Tensor.corrcoef: _corrcoef,
    torch.bincount: _bincount,
    torch.Tensor.bincount: _bincount,
}


@contextmanager
def averaged() -> Iterator[None]:
    """Lets batch norms that average over all batches run without the number of these; NaN stands for the momentum."""
    forward = _BatchNorm.forward

    def without(self: Any, input: Tensor) -> Tensor:
        if self.momentum is not None or not self.training:
            return forward(self, input)
        with mock.patch.object(self, "momentum", math.nan):
            return forward(self, input)

    with mock.patch.object(_BatchNorm, "forward", without):
        yield
