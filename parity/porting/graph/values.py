"""Which values two runs of a model share: those that the same calls compute of the same arrays."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as torch_tree
from torch.utils.weak import WeakIdKeyDictionary

_PLAIN: tuple[type, ...] = (
    *(bool, int, float, complex, str, type, type(None), type(...)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)


class Values:
    """Numbers for what is computed in a run, which are another run's for the same.

    Args:
        module: the model that runs; its arrays are known by their names.
        arguments: its own, known by their places.
    """

    def __init__(self, module: torch.nn.Module, arguments: Any) -> None:
        self.computed: set[int] = set()
        self._numbers: Any = WeakIdKeyDictionary()
        self._news = itertools.count()
        given = ((str(place), x) for place, x in enumerate(torch_tree.tree_leaves(arguments)))
        for name, x in itertools.chain(module.named_parameters(), module.named_buffers(), given):
            if isinstance(x, Tensor):
                self._numbers[x] = hash(name)

    def add(self, function: Callable[..., Any], given: Any, result: Any) -> int:
        """The number of a call with all that it is ``given``; its results get theirs from it."""
        leaves, nesting = torch_tree.tree_flatten(given)
        number = hash((repr(function), str(nesting), tuple(map(self._text, leaves))))
        for place, x in enumerate(torch_tree.tree_leaves(result)):
            if isinstance(x, Tensor):
                self._numbers[x] = hash((number, place))
        self.computed.add(number)
        return number

    def same(self, x: Any, result: Any) -> None:
        """Number ``result`` as ``x`` is, some of which it is."""
        if isinstance(result, Tensor) and x in self._numbers:
            self._numbers[result] = self._numbers[x]

    def _text(self, x: Any) -> str:
        if isinstance(x, Tensor) and x in self._numbers:
            return f"tensor {self._numbers[x]}"
        if isinstance(x, slice):
            return f"slice {self._text(x.start)} {self._text(x.stop)} {self._text(x.step)}"
        if isinstance(x, _PLAIN):
            return repr(x)
        return f"{next(self._news)} of {id(self)}"  # as no other
