"""Layers that zero at random in training."""

from flax import nnx
from jaxtyping import Array, ArrayLike, Inexact, Key

from jaxnn import functional
from jaxnn.functional.dropouts import check_probability
from jaxnn.nn.module import RandomModule


class Dropout(RandomModule):
    """Zero each element with probability ``p`` in training; nothing in evaluation.

    ``module.train()`` and ``module.eval()``, on it or on what holds it, switch the two; it starts in training, as in
    torch. A key comes from ``rngs`` (its ``dropout`` stream), or with the call.

    Source: ``torch.nn.Dropout``; see :func:`jaxnn.functional.dropout`.
    """

    drop = staticmethod(functional.dropout)

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(rngs)
        check_probability(type(self).__name__, p)
        self.p = p
        self.inplace = inplace

    def __call__(
        self, input: Inexact[ArrayLike, "*shape"], *, key: Key[Array, ""] | None = None
    ) -> Inexact[Array, "*shape"]:
        # Where nothing or everything is zeroed no key is used up.
        return type(self).drop(input, self.p, self.training, key=self.drawn(key) if 0 < self.p < 1 else None)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout1d(Dropout):
    """Zero whole channels of ``(N, C, L)``. Source: ``torch.nn.Dropout1d``; see :func:`jaxnn.functional.dropout1d`."""

    drop = staticmethod(functional.dropout1d)


class Dropout2d(Dropout):
    """Zero whole channels of ``(N, C, H, W)``.

    Source: ``torch.nn.Dropout2d``; see :func:`jaxnn.functional.dropout2d`.
    """

    drop = staticmethod(functional.dropout2d)


class Dropout3d(Dropout):
    """Zero whole channels of ``(N, C, D, H, W)``.

    Source: ``torch.nn.Dropout3d``; see :func:`jaxnn.functional.dropout3d`.
    """

    drop = staticmethod(functional.dropout3d)


class AlphaDropout(Dropout):
    """Dropout that keeps mean and variance behind SELU. Source: ``torch.nn.AlphaDropout``."""

    drop = staticmethod(functional.alpha_dropout)


class FeatureAlphaDropout(Dropout):
    """Alpha dropout of whole channels. Source: ``torch.nn.FeatureAlphaDropout``."""

    drop = staticmethod(functional.feature_alpha_dropout)
