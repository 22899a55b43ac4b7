"""The tutorial's networks; ``parity.tutorial`` holds the same in torch."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Key

from jaxnn import functional, nn
from jaxnn.nn.module import RandomModule


class SimpleNeuralNetwork(RandomModule):
    """Two layers made of bare parameters, with dropout between them.

    Attributes:
        weight1: ``(hidden_size, input_size)``; bias1: ``(hidden_size,)``.
        weight2: ``(output_size, hidden_size)``; bias2: ``(output_size,)``.
    """

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, dropout_rate: float = 0.5, *, rngs: nnx.Rngs
    ) -> None:
        super().__init__(rngs)
        self.weight1 = _normal(rngs, (hidden_size, input_size))
        self.bias1 = _normal(rngs, (hidden_size,))
        self.weight2 = _normal(rngs, (output_size, hidden_size))
        self.bias2 = _normal(rngs, (output_size,))
        self.dropout_rate = dropout_rate

    def __call__(
        self, x: Float[ArrayLike, "batch input_size"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "batch output_size"]:
        """``key`` replaces the module's own random stream for this call."""
        x = functional.relu(functional.linear(x, self.weight1[...], self.bias1[...]))
        x = functional.dropout(x, self.dropout_rate, self.training, key=self.drawn(key))
        return functional.linear(x, self.weight2[...], self.bias2[...])


class CustomLinearLayer(nn.Module):
    """A linear layer from bare parameters: ``weight`` ``(output_dim, input_dim)``, ``bias`` ``(output_dim,)``."""

    def __init__(self, input_dim: int, output_dim: int, *, rngs: nnx.Rngs) -> None:
        self.weight = _normal(rngs, (output_dim, input_dim))
        self.bias = _normal(rngs, (output_dim,))

    def __call__(self, x: Float[ArrayLike, "*batch input_dim"]) -> Float[Array, "*batch output_dim"]:
        """Affine map of the last axis."""
        return functional.linear(x, self.weight[...], self.bias[...])


class CustomMLP(nn.Module):
    """Three :class:`CustomLinearLayer`, 20-50-30-3, with relu between them."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.layer1 = CustomLinearLayer(20, 50, rngs=rngs)
        self.layer2 = CustomLinearLayer(50, 30, rngs=rngs)
        self.layer3 = CustomLinearLayer(30, 3, rngs=rngs)

    def __call__(self, x: Float[ArrayLike, "*batch 20"]) -> Float[Array, "*batch 3"]:
        """Logits of three classes."""
        x = functional.relu(self.layer1(x))
        x = functional.relu(self.layer2(x))
        return self.layer3(x)


class SimpleNN(nn.Module):
    """Linear 1-5, relu, linear 5-1."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.fc1 = nn.Linear(1, 5, rngs=rngs)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(5, 1, rngs=rngs)

    def __call__(self, x: Float[ArrayLike, "*batch 1"]) -> Float[Array, "*batch 1"]:
        """A scalar function of a scalar."""
        return self.fc2(self.relu(self.fc1(x)))


class DigitsClassifier(nn.Module):
    """Two convolutions and a linear layer, for 8 x 8 images of ten digits."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, rngs=rngs)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, rngs=rngs)
        self.head = nn.Linear(32 * 4 * 4, 10, rngs=rngs)

    def __call__(self, x: Float[ArrayLike, "batch 1 8 8"]) -> Float[Array, "batch 10"]:
        """Logits of ten classes."""
        x = functional.relu(self.conv1(x))
        x = functional.relu(self.conv2(x))
        return self.head(jnp.reshape(x, (-1, 32 * 4 * 4)))


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...]) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), shape))
