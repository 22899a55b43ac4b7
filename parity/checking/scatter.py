"""How far rounding scatters a result of few numbers: the same pass again, on inputs and weights near by.

The error of one number is one draw, torch's as well as the port's: one that is small by luck says nothing about the
other. Nor need both scatter alike. Torch adds in blocks, with an error that hardly grows with the number of terms; XLA
may add a few thousand one after another, with the error of a random walk: each of n additions rounds a partial sum by
up to half a unit in its last place, all of them together by some ``sqrt(n)`` such halves (Higham and Mary, A new
approach to probabilistic rounding error analysis, 2019), a quarter of that where no term occurs twice. What tells
rounding from a mistake is that it scatters: with other numbers it is another error, of any sign, while a mistake stays.

So the port's standard deviation about its own mean over :data:`DRAWS` draws is explained, and torch's error over them;
the port's up to those ``sqrt(n)``, lest low precision, which scatters too, excuse itself.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch.utils import _pytree as torch_tree
from torch.utils._python_dispatch import TorchDispatchMode

from parity.checking.evaluation import Call, Evaluation, TorchSide, named_inputs
from parity.checking.pairing import Pair, standing_for, under_torchs
from parity.checking.perturbation import copied, is_smooth, shrunk
from parity.comparison import largest

FEW = 64
"""Results of more numbers have a root mean square that no luck makes small."""

DRAWS = 16
"""Four standard deviations, told from so many draws, are exceeded once in a thousand times (Student's t)."""


GLANCE, GROSS = 3, 100.0
"""What is so many times larger than this many draws explain is not worth the others."""


class Scatter:
    """Errors of both sides over draws of a pass.

    Args:
        side: torch's.
        again: the port's pass, on other inputs.
        twins: the port's arrays that stand for torch's.
    """

    def __init__(self, side: TorchSide, again: Callable[[Call], Evaluation], twins: dict[str, Pair]) -> None:
        self.side = side
        self.again = again
        self.twins = twins
        self._terms = 0
        self._drawn = 0
        self._errors: dict[tuple[str, str], tuple[list[np.ndarray], list[np.ndarray]]] = {}

    def additions(self) -> float:
        """How many times torch's rounding error, a machine epsilon at least, adding one after another explains."""
        if not self._terms:
            subject = self.side.subject
            with _Largest() as largest:
                self.side.again(copied(subject) if isinstance(subject, torch.nn.Module) else subject)
            self._terms = max(largest.size, 1)
        return max(math.sqrt(self._terms) / 2, 1.0)

    def of(self, part: str, name: str, off: np.ndarray) -> np.ndarray | None:
        """The error that is explained in each number of a result; None where nothing is known.

        Args:
            part: of an evaluation.
            name: of the result in it.
            off: the port's error.
        """
        single = getattr(self.side.single, part)[name]
        if not 0 < single.size <= FEW or single.dtype.kind == "c":
            return None
        least = float(ml_dtypes.finfo(single.dtype).eps) * np.abs(single.astype(np.float64))
        for draws in (GLANCE, DRAWS):
            self._draw(draws)
            if (part, name) not in self._errors:
                return None
            theirs, ours = map(np.array, self._errors[part, name])
            torchs = np.sqrt(np.mean(theirs**2, axis=0))
            most = self.additions() * np.maximum(torchs, least)
            if largest(off) > GROSS * largest(most):
                return None
        return np.maximum(torchs, np.minimum(np.std(ours, axis=0, ddof=1), most))

    def _draw(self, draws: int) -> None:
        """Note torch's and the port's errors against the truth, by part and name, in so many draws."""
        inputs = self.side.varied_inputs()
        varied = {id(x) for name, x in named_inputs(self.side.call).items() if name in inputs}
        seeds, self._drawn = range(self._drawn, draws), max(self._drawn, draws)
        for seed in seeds:
            moved = partial(shrunk, generator=torch.Generator().manual_seed(seed))
            subject = moved(self.side.subject)
            call = torch_tree.tree_map(lambda x, moved=moved: moved(x) if id(x) in varied else x, self.side.call)
            try:
                single, truth = self.side.near(subject, call)
            except (RuntimeError, ValueError):  # numbers that may not be moved
                self._errors = {}
                return
            with standing_for(self.twins, subject):
                found = self.again(call)
            for part in ("outputs", "parameter_gradients", "input_gradients", "buffers"):
                ours = getattr(found, part)
                if part in ("parameter_gradients", "buffers") and self.twins:
                    ours = under_torchs(ours, self.twins)
                for name, exact in getattr(truth, part).items():
                    if name in ours and exact.size <= FEW and ours[name].shape == exact.shape:
                        kept = self._errors.setdefault((part, name), ([], []))
                        kept[0].append(getattr(single, part)[name].astype(exact.dtype) - exact)
                        kept[1].append(ours[name].astype(exact.dtype) - exact)


class _Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that an operator takes."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator call, passed on."""
        self.size = max([self.size, *(x.numel() for x in torch_tree.tree_leaves((args, kwargs)) if is_smooth(x))])
        return func(*args, **(kwargs or {}))
