"""Activations as layers."""

from jaxtyping import Array, ArrayLike, Num

from jaxnn import functional
from jaxnn.nn.module import Module


class ReLU(Module):
    """Source: ``torch.nn.ReLU``; see :func:`jaxnn.functional.relu`."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def __call__(self, input: Num[ArrayLike, "*shape"]) -> Num[Array, "*shape"]:
        return functional.relu(input)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""
