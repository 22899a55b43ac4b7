"""Every layer under every transform of Flax NNX and JAX, alone against itself called plainly."""

import copy
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
from flax import nnx

from jaxnn import nn
from tests.jaxnn.nn.layer_table import CONTAINERS, LAYERS, LAZY_NAMES, NAMES, STACKS, ours, theirs

every_layer = pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), LAYERS, ids=NAMES)
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")


def made(case, rngs=0):
    return ours(*case, nnx.Rngs(rngs) if isinstance(rngs, int) else rngs)


def scalar(outputs):
    """A sum of squares of everything inexact in ``outputs``."""
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return sum((jnp.sum(jnp.square(leaf)) for leaf in leaves), jnp.float32(0))


def plain_state(module):
    """All that ``module`` holds, keys as their numbers."""
    return [
        np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        for leaf in jax.tree.leaves(nnx.state(module))
    ]


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_every_layer_is_in_the_table():
    layers = {n for n in dir(nn) if inspect.isclass(getattr(nn, n)) and issubclass(getattr(nn, n), nn.Module)}
    assert layers - set(NAMES) - CONTAINERS - STACKS - LAZY_NAMES == set()


@every_layer
def test_prints_as_torchs(name, args, kwargs, inputs):
    assert repr(made((name, args, kwargs))) == repr(theirs(name, args, kwargs))


@every_layer
def test_parts_copies_and_compiled_calls_do_what_the_layer_does(name, args, kwargs, inputs):
    """``split``/``merge``, ``clone``, ``deepcopy``, ``nnx.jit`` and ``jax.jit`` on the parts: output and new state."""
    layer = made((name, args, kwargs))
    graphdef, state = nnx.split(layer)
    others = [nnx.merge(graphdef, state, copy=True), nnx.clone(layer), copy.deepcopy(layer), nnx.clone(layer)]

    @jax.jit
    def step(state, *inputs):
        module = nnx.merge(graphdef, state)
        output = module(*inputs)
        return output, nnx.state(module)

    outputs, new_state = step(jax.tree.map(jnp.copy, state), *inputs)
    expected = layer(*inputs)
    for other in others[:3]:
        assert_same(other(*inputs), expected)
    assert_same(outputs, expected)
    assert_same(nnx.jit(lambda module, *inputs: module(*inputs))(others[3], *inputs), expected)
    nnx.update(others[0], new_state)
    for other in (others[0], others[3]):
        for a, b in zip(plain_state(other), plain_state(layer), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@every_layer
def test_modes_reach_the_layer_and_evaluation_repeats_itself(name, args, kwargs, inputs):
    layer = made((name, args, kwargs))
    before = nn.Sequential(layer)
    before.eval()
    if not name.startswith("FractionalMax"):
        first = layer(*inputs)
        assert_same(layer(*inputs), first)
    for attribute, in_training in (("deterministic", False), ("use_running_average", False)):
        if hasattr(layer, attribute):
            assert getattr(layer, attribute) is not in_training
            before.train()
            assert getattr(layer, attribute) is in_training


TRAINED = [case for case in LAYERS if any(parameter.requires_grad for parameter in theirs(*case[:3]).parameters())]


def every_second(first):
    """Half of the layers that have parameters; each is in one of the two halves."""
    half = TRAINED[first::2]
    return pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), half, ids=[name for name, *_ in half])


@every_second(0)
def test_gradients_of_parameters_agree_whichever_way_they_are_asked_for(name, args, kwargs, inputs):
    """``nnx.grad``, ``jax.grad`` on the split state, and both through a rematerialized call."""
    layer = made((name, args, kwargs))
    graphdef, parameters, rest = nnx.split(nnx.clone(layer), nnx.Param, ...)

    def loss(parameters):
        return scalar(nnx.merge(graphdef, parameters, rest, copy=True)(*inputs))

    expected = jax.grad(loss)(parameters)
    assert_same(jax.grad(jax.checkpoint(loss))(parameters), expected)
    assert_same(nnx.grad(lambda module: scalar(module(*inputs)))(layer), expected)


@every_second(1)
def test_a_stack_of_layers_made_under_vmap_does_what_each_does_alone(name, args, kwargs, inputs):
    make = nnx.vmap(lambda rngs: made((name, args, kwargs), rngs), in_axes=0, out_axes=0)
    stack = make(nnx.Rngs(0).split(3))
    stack.eval()
    graphdef, state = nnx.split(stack)
    together = nnx.vmap(lambda module, *inputs: module(*inputs), in_axes=(0, *(None for _ in inputs)))(stack, *inputs)
    one = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[1], state))
    assert_same(jax.tree.map(lambda leaf: leaf[1], together), one(*inputs))


def test_a_checkpoint_on_disk_brings_every_layer_back(tmp_path):
    """All layers in one checkpoint: parameters, statistics, buffers and keys return as they were."""
    module = nn.Sequential(*(made(case[:3], seed) for seed, case in enumerate(LAYERS)))
    other = nn.Sequential(*(made(case[:3], 1) for case in LAYERS))
    saved = nnx.to_pure_dict(nnx.state(module))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "layers", saved)
        checkpointer.wait_until_finished()
        state = nnx.state(other)
        nnx.replace_by_pure_dict(state, checkpointer.restore(tmp_path / "layers", nnx.to_pure_dict(state)))
    nnx.update(other, state)
    for a, b in zip(plain_state(other), plain_state(module), strict=True):
        np.testing.assert_array_equal(a, b)
