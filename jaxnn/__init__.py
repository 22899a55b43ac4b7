"""PyTorch's neural-network semantics in pure JAX, on Flax NNX and optax."""

from jaxnn import functional as functional

__version__ = "0.1.0"
