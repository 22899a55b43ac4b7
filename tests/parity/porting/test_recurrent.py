"""Recurrent layers that do not stay layers: weights that are computed, a class derived from them, a hook on them."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from jaxnn import nn
from parity.porting import port


class Doubled(torch.nn.LSTM):
    def forward(self, x, hx=None):
        output, states = super().forward(x, hx)
        return 2 * output, states


class Model(torch.nn.Module):
    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.head = layer, torch.nn.Linear(width, 3)

    def forward(self, x):
        output, states = self.layer(x)
        return self.head(output), states


def hooked(layer):
    layer.register_forward_hook(lambda module, args, result: (result[0] + 1, result[1]))
    return layer


LAYERS = {
    "derived": lambda: (Doubled(3, 4), 4),
    "normed": lambda: (weight_norm(torch.nn.GRU(3, 4, batch_first=True), "weight_hh_l0"), 4),
    "hooked": lambda: (hooked(torch.nn.RNN(3, 4, 2, nonlinearity="relu", bias=False, bidirectional=True)), 8),
}


@pytest.mark.parametrize("name", LAYERS)
def test_they_are_functions_of_their_weights(name):
    torch.manual_seed(0)
    module = Model(*LAYERS[name]()).eval()
    x = torch.randn(5, 2, 3)
    twin = port(module, (x,))
    assert f"F.{module.layer.mode.lower()}(" in twin.source
    assert twin.report.passed
    x = torch.randn(4, 3, 3)
    np.testing.assert_allclose(twin.module(jnp.asarray(x.numpy()))[0], module(x)[0].detach().numpy(), atol=1e-6)


def test_dropout_between_their_layers_comes_to_life_in_training():
    torch.manual_seed(0)
    module = Model(Doubled(3, 4, 2, dropout=0.5), 4).eval()
    x = torch.randn(5, 2, 3)
    twin = port(module, (x,)).module
    quiet, again = (twin(jnp.asarray(x.numpy()))[0] for _ in range(2))
    np.testing.assert_array_equal(quiet, again)
    twin.train()
    loud, other = (twin(jnp.asarray(x.numpy()))[0] for _ in range(2))
    assert not np.allclose(loud, quiet)
    assert not np.allclose(loud, other)


def test_a_plain_layer_stays_one():
    torch.manual_seed(0)
    twin = port(Model(torch.nn.LSTM(3, 4), 4).eval(), (torch.randn(5, 2, 3),))
    assert isinstance(twin.module.layer, nn.LSTM)
