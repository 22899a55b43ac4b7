"""Recurrent layers at the lengths where a turn of their loop is not full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxnn import nn
from jaxnn.functional import ArgumentError
from jaxnn.functional._recurrence import CHUNK
from parity import mirror


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("length", [1, CHUNK + 1])
def test_steps_beyond_the_last_whole_turn_count_like_the_others(kind: str, length: int) -> None:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(3, 4, bidirectional=True)
    x = torch.randn(length, 2, 3, requires_grad=True)
    output, _ = theirs(x)
    expected = torch.autograd.grad(output.sin().sum(), [x, *theirs.parameters()])
    graphdef, state = nnx.split(mirror(theirs))

    def loss(x: jax.Array, state: nnx.State) -> jax.Array:
        return jnp.sum(jnp.sin(nnx.merge(graphdef, state)(x)[0]))

    found_x, found = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(x.detach().numpy()), state)
    layer = nnx.merge(graphdef, found)
    gradients = [found_x, *(getattr(layer, name)[...] for name, _ in theirs.named_parameters())]
    for ours, reference in zip(gradients, expected, strict=True):
        # A few float32 roundings of sums of some ten terms of order one.
        np.testing.assert_allclose(ours, reference.numpy(), rtol=1e-5, atol=2e-6)


def test_a_sequence_without_steps_is_refused_as_torch_refuses_it() -> None:
    with pytest.raises(RuntimeError):
        torch.nn.GRU(3, 4)(torch.zeros(0, 2, 3))
    with pytest.raises(ArgumentError, match="at least one step"):
        nn.GRU(3, 4, rngs=nnx.Rngs(0))(jnp.zeros((0, 2, 3)))
