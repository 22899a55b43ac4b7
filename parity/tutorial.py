"""The tutorial's layers and networks in torch; ``jaxnn.models`` holds the same in JAX."""

import torch
from torch import nn
from torch.nn import functional


def custom_layer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``weight @ x + bias``: an affine map of the columns."""
    return weight @ x + bias


def custom_sine_layer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``sin(x @ weight.T) + bias``."""
    return torch.sin(x @ weight.T) + bias


class SimpleNeuralNetwork(nn.Module):
    """Two layers made of bare parameters, with dropout between them."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int, dropout_rate: float = 0.5) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.randn(hidden_size, input_size))
        self.bias1 = nn.Parameter(torch.randn(hidden_size))
        self.weight2 = nn.Parameter(torch.randn(output_size, hidden_size))
        self.bias2 = nn.Parameter(torch.randn(output_size))
        self.dropout_rate = dropout_rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Linear, relu, dropout, linear."""
        x = functional.relu(functional.linear(x, self.weight1, self.bias1))
        x = functional.dropout(x, self.dropout_rate, self.training)
        return functional.linear(x, self.weight2, self.bias2)


class CustomLinearLayer(nn.Module):
    """A linear layer from bare parameters."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(output_dim, input_dim))
        self.bias = nn.Parameter(torch.randn(output_dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Affine map of the last axis."""
        return functional.linear(x, self.weight, self.bias)


class CustomMLP(nn.Module):
    """Three custom layers, 20-50-30-3, with relu between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = CustomLinearLayer(20, 50)
        self.layer2 = CustomLinearLayer(50, 30)
        self.layer3 = CustomLinearLayer(30, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of three classes."""
        x = functional.relu(self.layer1(x))
        x = functional.relu(self.layer2(x))
        return self.layer3(x)


class SimpleNN(nn.Module):
    """Linear 1-5, relu, linear 5-1."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(1, 5)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A scalar function of a scalar."""
        return self.fc2(self.relu(self.fc1(x)))


class DigitsClassifier(nn.Module):
    """Two convolutions and a linear layer, for 8 x 8 images of ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.head = nn.Linear(32 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of ten classes."""
        x = functional.relu(self.conv1(x))
        x = functional.relu(self.conv2(x))
        return self.head(x.reshape(len(x), -1))
