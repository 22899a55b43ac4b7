"""A softmax over many classes whose rare ones share clusters."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.functional._argument import concrete
from jaxnn.nn.container import ModuleList, Sequential
from jaxnn.nn.linear import Linear
from jaxnn.nn.module import Module


class ASMoutput(NamedTuple):
    """Log probability of each target, and the mean negative of them."""

    output: Float[Array, "*batch"]
    loss: Float[Array, ""]


class AdaptiveLogSoftmaxWithLoss(Module):
    """Classes below the first cutoff stand in a head of their own; the rest in clusters of shrinking width behind it.

    Every cluster is computed for every row: shapes cannot depend on the targets under ``jit``.

    Attributes:
        head: linear, ``in_features`` to the shortlist and one output for each cluster.
        tail: for each cluster two linear layers, ``in_features`` to ``in_features / div_value**i`` to its classes.

    Source: ``torch.nn.AdaptiveLogSoftmaxWithLoss``; Grave et al. (2017).
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        bounds = [0, *cutoffs, n_classes]
        if not cutoffs or any(int(c) != c for c in cutoffs) or any(low >= high for low, high in pairwise(bounds)):
            raise ArgumentError(
                "AdaptiveLogSoftmaxWithLoss: cutoffs must be integers that increase strictly from 1 at least to "
                f"n_classes - 1 = {n_classes - 1} at most, got {list(cutoffs)}"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = (*map(int, cutoffs), n_classes)
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, device, dtype, rngs=rngs)
        self.tail = ModuleList(
            Sequential(
                Linear(in_features, int(in_features // div_value ** (i + 1)), False, device, dtype, rngs=rngs),
                Linear(int(in_features // div_value ** (i + 1)), high - low, False, device, dtype, rngs=rngs),
            )
            for i, (low, high) in enumerate(pairwise(self.cutoffs))
        )

    def __call__(self, input_: Float[ArrayLike, "*batch in_features"], target_: Int[ArrayLike, "*batch"]) -> ASMoutput:
        input, target = jnp.asarray(input_), jnp.asarray(target_)
        if target.ndim > 1 or input.ndim != target.ndim + 1 or input.shape[:-1] != target.shape:
            raise ArgumentError(
                "AdaptiveLogSoftmaxWithLoss: input_ must be (N, in_features) with target_ (N,), or one row with a "
                f"scalar target, got {input.shape} and {target.shape}"
            )
        valid = (target >= 0) & (target < self.n_classes)
        known = concrete(target)
        if known is not None and known.size and not 0 <= known.min() <= known.max() < self.n_classes:
            raise ArgumentError(
                f"AdaptiveLogSoftmaxWithLoss: target_ must lie in [0, {self.n_classes - 1}], "
                f"got values from {known.min()} to {known.max()}"
            )
        index = jnp.where(valid, target, 0)[..., None]
        picked = jnp.where(valid, jnp.take_along_axis(self.log_prob(input), index, -1)[..., 0], jnp.nan)
        return ASMoutput(picked, -jnp.mean(picked))

    def log_prob(self, input: Float[ArrayLike, "*batch in_features"]) -> Float[Array, "*batch n_classes"]:
        """Log probability of every class."""
        head = functional.log_softmax(self.head(input), -1)
        parts = [head[..., : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            within = functional.log_softmax(cluster(input), -1)
            parts.append(within + head[..., self.shortlist_size + i, None])
        return jnp.concatenate(parts, -1)

    def predict(self, input: Float[ArrayLike, "*batch in_features"]) -> Int[Array, "*batch"]:
        """The likeliest class."""
        return jnp.argmax(self.log_prob(input), -1)
