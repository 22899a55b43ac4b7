"""Recurrent layers as functions of their weights, against torch's functions of the same name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn import functional as F


def weights_of(layer):
    return [getattr(layer, name) for name in layer._flat_weights_names]


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_they_are_torchs(name, bias, given):
    torch.manual_seed(0)
    kind, *mode = name.split("_")
    options = {"num_layers": 2, "bias": bias, "batch_first": True, "bidirectional": True}
    layer = getattr(torch.nn, kind.upper())(3, 4, **options, **({"nonlinearity": mode[0]} if mode else {}))
    x, states = torch.randn(2, 5, 3), tuple(torch.randn(4, 2, 4) * given for _ in range(1 + (name == "lstm")))
    before = states if name == "lstm" else states[0]
    theirs = getattr(torch, name)(x, before, weights_of(layer), bias, 2, 0.0, False, True, True)
    ours = getattr(F, name)(
        *jax.tree.map(lambda t: jnp.asarray(t.detach().numpy()), (x, before if given else None, weights_of(layer))),
        2,
        bidirectional=True,
        batch_first=True,
    )
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("bias", [True, False])
def test_states_of_an_lstm_are_projected_by_a_last_weight_of_each_layer_without_a_batch_too(bias):
    torch.manual_seed(1)
    layer = torch.nn.LSTM(3, 4, bias=bias, proj_size=2)
    x = torch.randn(5, 3)
    theirs, (hidden, memory) = layer(x)
    arrays = [jnp.asarray(weight.detach().numpy()) for weight in weights_of(layer)]
    for found, expected in zip(F.lstm(jnp.asarray(x.numpy()), None, arrays), (theirs, hidden, memory), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_weights_that_no_number_of_directions_can_have_are_refused():
    x = jnp.ones((5, 3))
    with pytest.raises(F.ArgumentError, match="gru: weights must hold 2 arrays, or 4 with biases, for each of 1"):
        F.gru(x, None, [x] * 3)
    with pytest.raises(F.ArgumentError, match=r"lstm: weights must hold 2 arrays.*of 4 directions of layers, got 7"):
        F.lstm(x, None, [x] * 7, 2, bidirectional=True)
    with pytest.raises(F.ArgumentError, match="rnn_tanh: input must have 3 axes"):
        F.rnn_tanh(jnp.ones(3), None, [x] * 2)


def test_what_does_not_fit_the_weights_is_refused_in_the_function_s_name():
    weights = [jnp.ones((8, 3)), jnp.ones((8, 2))]
    x = jnp.ones((5, 4, 3))
    for match, args, keywords in (
        ("lstm: input must have input_size=3 features", (x[..., :2], None), {}),
        ("lstm: input must have the dtype of the weights", (x.astype(jnp.bfloat16), None), {}),
        (r"lstm: hx\[1\] must have shape \(1, 4, 2\)", (x, (jnp.ones((1, 4, 2)), jnp.ones((1, 4, 3)))), {}),
        ("lstm: lengths must lie between 1 and 5", (x, None), {"lengths": jnp.array([1, 2, 3, 6])}),
    ):
        with pytest.raises(F.ArgumentError, match=match):
            F.lstm(*args, weights, **keywords)
