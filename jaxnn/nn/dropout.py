"""Layers that zero at random in training."""

from flax import nnx
from jaxtyping import Array, ArrayLike, Inexact, Key

from jaxnn import functional
from jaxnn.functional.dropouts import check_probability
from jaxnn.nn.module import Module


class Dropout(Module):
    """Zero each element with probability ``p`` in training; nothing in evaluation.

    ``module.train()`` and ``module.eval()``, on it or on what holds it, switch the two; it starts in training, as in
    torch. A key comes from ``rngs`` (its ``dropout`` stream), or with the call.

    Source: ``torch.nn.Dropout``.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rngs: nnx.Rngs | None = None) -> None:
        check_probability(type(self).__name__, p)
        self.p = p
        self.inplace = inplace
        self.deterministic = False
        self.rngs = nnx.data(None) if rngs is None else rngs["dropout"].fork()

    def __call__(
        self, input: Inexact[ArrayLike, "*shape"], *, key: Key[Array, ""] | None = None
    ) -> Inexact[Array, "*shape"]:
        if key is None and self.rngs is not None and not self.deterministic:
            key = self.rngs()
        return functional.dropout(input, self.p, not self.deterministic, self.inplace, key=key)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
