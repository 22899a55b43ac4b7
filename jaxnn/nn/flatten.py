"""Layers that reshape."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Shaped

from jaxnn.functional import ArgumentError
from jaxnn.nn.module import Module, static


class Flatten(Module):
    """The axes from ``start_dim`` to ``end_dim`` as one. Source: ``torch.nn.Flatten``."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def __call__(self, input: Shaped[ArrayLike, "..."]) -> Shaped[Array, "..."]:
        input = jnp.asarray(input)
        rank = max(input.ndim, 1)
        for name, dim in (("start_dim", self.start_dim), ("end_dim", self.end_dim)):
            if not -rank <= dim < rank:
                raise IndexError(f"Flatten: {name} must lie in [{-rank}, {rank - 1}] for {input.shape}, got {dim}")
        start, end = self.start_dim % rank, self.end_dim % rank
        if start > end:
            raise ArgumentError(f"Flatten: start_dim={self.start_dim} comes after end_dim={self.end_dim}")
        flat = math.prod(input.shape[start : end + 1])
        return input.reshape(*input.shape[:start], flat, *input.shape[end + 1 :])

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axis ``dim`` as several, of ``unflattened_size``, where one entry may be -1. Source: ``torch.nn.Unflatten``."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        if not isinstance(dim, int):
            raise TypeError(f"Unflatten: dim must be an integer (JAX has no named axes), got {dim!r}")
        if not isinstance(unflattened_size, Sequence) or not all(isinstance(size, int) for size in unflattened_size):
            raise TypeError(f"Unflatten: unflattened_size must be a sequence of integers, got {unflattened_size!r}")
        self.dim = dim
        self.unflattened_size = static(unflattened_size)

    def __call__(self, input: Shaped[ArrayLike, "..."]) -> Shaped[Array, "..."]:
        input = jnp.asarray(input)
        if not -input.ndim <= self.dim < input.ndim:
            raise IndexError(f"Unflatten: dim must be an axis of {input.shape}, got {self.dim}")
        dim = self.dim % input.ndim
        shape = (*input.shape[:dim], *self.unflattened_size, *input.shape[dim + 1 :])
        try:
            return input.reshape(shape)
        except (TypeError, ValueError):
            raise ArgumentError(
                f"Unflatten: unflattened_size={self.unflattened_size} does not multiply to axis {self.dim} "
                f"of {input.shape}"
            ) from None

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
