"""Which of torch's random draws no result is made of, as those of a head that nobody reads: no port need make them."""

from typing import Any

import torch
from torch.utils import _pytree as torch_tree

from parity.checking.evaluation import TorchSide, as_tensor, named_outputs, same_numbers
from parity.checking.perturbation import copied
from parity.replay import Draws, memory


def unread_draws(side: TorchSide) -> set[int]:
    """The ids of the draws of which no output, no buffer and no decision is made."""
    args, kwargs = torch_tree.tree_map(as_tensor, side.call)
    subject, kept = side.subject, []
    if isinstance(subject, torch.nn.Module):
        subject = copied(subject, shared=not side.writes)
        kept = [*subject.parameters(), *subject.buffers()]
    with torch.set_grad_enabled(side.differentiates), same_numbers(side), _Followed(side.draws) as followed:
        output = subject(*args, **kwargs)
    read = followed.read | followed.union([*named_outputs(output).values(), *kept])
    return {id(draw) for i, draw in enumerate(side.draws) if not read >> i & 1}


class _Followed(Draws):
    """Hands out the draws again, and notes of which of them, as bits, every array is made.

    Attributes:
        read: those that numbers were made of which Python has read.
    """

    def __init__(self, recorded: list[torch.Tensor]) -> None:
        super().__init__(recorded)
        self.read = 0
        self._made_of: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []  # an array's place in memory is its name here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.position
        result = super().__torch_dispatch__(func, types, args, kwargs)
        given = torch_tree.tree_leaves((args, kwargs))
        made_of = self.union(given) | (1 << self.position) - (1 << before)
        results = [x for x in torch_tree.tree_leaves(result) if x is not None]
        if made_of:
            if not all(isinstance(x, torch.Tensor) for x in results):
                self.read |= made_of
            for x in (*results, *_written(func, args, kwargs)):
                if place := memory(x):
                    self._made_of[place] = self._made_of.get(place, 0) | made_of
                    self._alive.append(x)
        return result

    def union(self, arrays: list[Any]) -> int:
        """The draws of which any of ``arrays`` is made."""
        found = 0
        for x in arrays:
            found |= self._made_of.get(memory(x), 0)
        return found


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that an operator writes into."""
    if not isinstance(func, torch._ops.OpOverload) or not func._schema.is_mutable:
        return []
    given = {argument.name: x for argument, x in zip(func._schema.arguments, args, strict=False)} | kwargs
    return torch_tree.tree_leaves([given.get(x.name) for x in func._schema.arguments if x.is_write])
