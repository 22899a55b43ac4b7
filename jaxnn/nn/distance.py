"""Distances as layers."""

from jaxtyping import Array, ArrayLike, Inexact

from jaxnn import functional
from jaxnn.nn.module import Module

Input = Inexact[ArrayLike, "..."]
Output = Inexact[Array, "..."]


class PairwiseDistance(Module):
    """Source: ``torch.nn.PairwiseDistance``; see :func:`jaxnn.functional.pairwise_distance`."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def __call__(self, x1: Input, x2: Input) -> Output:
        return functional.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class CosineSimilarity(Module):
    """Source: ``torch.nn.CosineSimilarity``; see :func:`jaxnn.functional.cosine_similarity`."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim = dim
        self.eps = eps

    def __call__(self, x1: Input, x2: Input) -> Output:
        return functional.cosine_similarity(x1, x2, self.dim, self.eps)
