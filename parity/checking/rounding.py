"""Arithmetic that rounds otherwise: every inexact result goes up or down by chance.

What rounding makes of a pass shows when it is run so: stochastic rounding, or Monte Carlo arithmetic (Parker, 1997). It
tells more than torch's one pass where terms cancel: torch's may cancel to a zero, as in the gradient of a weight that
is divided by itself, of which any other order of the same operations leaves a few units in the last place.

Terms cancel within an operator, too: batch norm subtracts a mean, the gradient of a softmax a mean weighted by it, and
torch holds these sums in more digits than others do. So what is summed is moved before (Parker's precision bounding):
a sum of n terms by halves is the exact one of terms that are moved by up to log2(n) half units in the last place
(Higham, Accuracy and Stability of Numerical Algorithms, section 4.2).
"""

import math
import re
from typing import Any

import torch
from torch.utils import _pytree as torch_tree
from torch.utils._python_dispatch import TorchDispatchMode


class RoundedByChance(TorchDispatchMode):
    """Within it operators on float32 are computed in float64, and each number that does not fit is rounded up or down.

    What is exact stays so: data that is moved, masks, sums of whole numbers. Chance is a function of the seed and of
    the number, so that what is computed twice comes out equal, as the two sides of a kink. Operators that write, draw
    or have no form in float64 are run as they are.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator call."""
        kwargs = kwargs or {}
        plain = func(*args, **kwargs)
        leaves = torch_tree.tree_leaves((args, kwargs))
        if not any(_is_single(x) for x in leaves) or not _is_pure(func):
            return plain
        wider = self._moved if _SUMS.search(func._schema.name) else _doubled
        try:
            exact = func(*torch_tree.tree_map(wider, args), **torch_tree.tree_map(wider, kwargs))
        except Exception:  # it has no form in float64
            return plain
        return torch_tree.tree_map(self._rounded, plain, exact)

    def _moved(self, x: Any) -> Any:
        if not _is_single(x):
            return _doubled(x)
        unit = torch.nextafter(x.abs(), torch.tensor(torch.inf)).double() - x.abs().double()
        unit *= math.log2(max(x.numel(), 2))
        places = torch.arange(x.numel()).reshape(x.shape)  # equal numbers must not move alike
        share = _chance(x.double(), self.seed, places) - 0.5
        return x.double() + torch.where((x != x.round()) & x.isfinite(), share * unit, 0.0)

    def _rounded(self, plain: Any, exact: Any) -> Any:
        if not (_is_single(plain) and isinstance(exact, torch.Tensor) and exact.dtype == torch.float64):
            return plain
        near = exact.float()
        off = exact - near.double()
        other = torch.nextafter(near, off.sign().float() * torch.inf)
        share = off.abs() / (other.double() - near.double()).abs()
        return torch.where((off != 0) & (_chance(exact, self.seed) < share), other, near)


def _is_pure(func: Any) -> bool:
    """Whether an operator gives new tensors that are a function of its arguments."""
    if not isinstance(func, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in func.tags:
        return False
    schema = func._schema
    return all(x.alias_info is None for x in (*schema.arguments, *schema.returns))


_SUMS = re.compile("norm|softmax|sum|mean|var|std|mm|dot|conv|attention|loss|linear")
"""In the names of operators that add many numbers up to one."""


def _chance(numbers: torch.Tensor, seed: int, places: torch.Tensor | int = 0) -> torch.Tensor:
    """From 0 up to 1, as good as random: the bits of each number and its place, mixed (the finalizer of SplitMix64)."""
    bits = numbers.view(torch.int64) + seed * 0x1E3779B97F4A7C15 % 2**63 + places * 0x3C6EF372FE94F82B
    bits = (bits ^ (bits >> 30)) * -0x40A7B892E31B1A47
    bits = (bits ^ (bits >> 27)) * -0x6B2FB644ECCEEE15
    return ((bits ^ (bits >> 31)) & (2**53 - 1)) / 2.0**53


def _is_single(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype == torch.float32


def _doubled(x: Any) -> Any:
    if x is torch.float32:
        return torch.float64
    return x.double() if _is_single(x) else x
