import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

import jaxnn
import jaxnn.functional as F
from jaxnn import nn, optim


def loss(model, x, y):
    return F.mse_loss(model(x), y)


BATCH = jnp.ones((4, 3)), jnp.zeros((4, 2))


def test_the_model_lives_on_and_gets_the_result_when_asked():
    model = nn.Linear(3, 2, rngs=nnx.Rngs(0))
    before = np.array(model.weight[...])
    step, state = jaxnn.train_step(model, optim.SGD(lr=0.1, momentum=0.9), loss)
    state, first = step(state, *BATCH)
    state, second = step(state, *BATCH)
    assert second < first
    np.testing.assert_array_equal(model.weight[...], before)
    state.copy_to(model)
    np.testing.assert_array_equal(model.weight[...], state.params["weight"])


def test_an_optimizer_may_keep_an_array_twice_or_the_parameters_themselves():
    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return params, zeros, zeros

    def update(gradients, state, params):
        return jax.tree.map(lambda g: -0.1 * g, gradients), state

    model = nn.Linear(3, 2, rngs=nnx.Rngs(0))
    step, state = jaxnn.train_step(model, optax.GradientTransformation(init, update), loss)
    for _ in range(2):
        state, _ = step(state, *BATCH)
    np.testing.assert_array_equal(state.optimizer[0]["weight"], model.weight[...])


def test_a_complex_parameter_goes_downhill_as_in_torch():
    theirs = torch.nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))
    optimizer = torch.optim.SGD([theirs], lr=0.1)
    (theirs - 1j).abs().square().sum().backward()
    optimizer.step()

    model = nnx.Module()
    model.weight = nnx.Param(jnp.array([1 + 2j, 3 - 1j]))
    step, state = jaxnn.train_step(
        model, optim.SGD(lr=0.1), lambda m: jnp.sum(jnp.square(m.weight.real) + jnp.square(m.weight.imag - 1))
    )
    np.testing.assert_allclose(step(state)[0].params["weight"], theirs.detach().numpy(), rtol=1e-6)
