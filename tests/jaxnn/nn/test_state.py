import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxnn import models, nn
from parity import tutorial, weights


def pair():
    return tutorial.DigitsClassifier(), models.DigitsClassifier(rngs=nnx.Rngs(0))


def test_state_dict_has_torchs_keys_in_torchs_order():
    torch_side, jax_side = pair()
    assert list(nn.state_dict(jax_side)) == list(torch_side.state_dict())


def test_named_parameters_are_torchs_after_loading():
    torch_side, jax_side = pair()
    nn.load_state_dict(jax_side, weights.load(torch_side))
    for (theirs, tensor), (ours, param) in zip(
        torch_side.named_parameters(), nn.named_parameters(jax_side), strict=True
    ):
        assert theirs == ours
        np.testing.assert_array_equal(tensor.detach().numpy(), param[...])


def test_sequential_numbers_its_layers_as_torch_does():
    layers = nn.Sequential(*(nn.Linear(2, 2, rngs=nnx.Rngs(i)) for i in range(12)))
    theirs = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(12)))
    assert list(nn.state_dict(layers)) == list(theirs.state_dict())
    assert [name for name, _ in nn.named_parameters(layers)] == [name for name, _ in theirs.named_parameters()]


def test_containers_of_nnx_give_torchs_paths():
    class Model(nn.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nn.Linear(2, 2, rngs=rngs), nn.Linear(2, 2, rngs=rngs)])
            self.named = nnx.Dict(a=nn.Linear(2, 2, rngs=rngs))

    names = list(nn.state_dict(Model(nnx.Rngs(0))))
    assert names == [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "layers.1.bias",
        "named.a.weight",
        "named.a.bias",
    ]


def test_a_shared_parameter_has_two_keys_and_is_one_parameter():
    class Tied(nn.Module):
        def __init__(self, rngs):
            self.first = nn.Linear(3, 3, bias=False, rngs=rngs)
            self.again = nn.Linear(3, 3, bias=False, rngs=rngs)
            self.again.weight = self.first.weight

    model = Tied(nnx.Rngs(0))
    assert list(nn.state_dict(model)) == ["first.weight", "again.weight"]
    assert [name for name, _ in nn.named_parameters(model)] == ["first.weight"]


def test_missing_unexpected_and_misshapen_keys_are_all_listed_and_nothing_is_changed():
    _, model = pair()
    before = {name: np.array(x) for name, x in nn.state_dict(model).items()}
    broken = {**before, "head.weight": np.zeros((1, 1), np.float32), "extra.one": np.zeros(1), "extra.two": np.zeros(1)}
    del broken["conv1.bias"], broken["conv2.bias"]
    broken["conv1.weight"] = before["conv1.weight"] + 1
    with pytest.raises(RuntimeError) as error:
        nn.load_state_dict(model, broken)
    for name in ("conv1.bias", "conv2.bias", "extra.one", "extra.two", "head.weight", "(10, 512)", "(1, 1)"):
        assert name in str(error.value)
    for name, array in nn.state_dict(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_without_strict_the_misshapen_are_still_refused_and_the_rest_is_returned():
    _, model = pair()
    arrays = dict(nn.state_dict(model))
    with pytest.raises(ValueError, match=r"head\.bias must have shape \(10,\), got \(2,\)"):
        nn.load_state_dict(model, {**arrays, "head.bias": np.zeros(2)}, strict=False)
    del arrays["head.bias"]
    result = nn.load_state_dict(model, {**arrays, "extra": np.zeros(1)}, strict=False)
    assert result.missing_keys == ["head.bias"]
    assert result.unexpected_keys == ["extra"]


def test_loaded_arrays_do_not_share_memory_with_the_mapping():
    model = nn.Linear(64, 64, rngs=nnx.Rngs(0))
    source = {name: np.zeros(x.shape, np.float32) for name, x in nn.state_dict(model).items()}
    nn.load_state_dict(model, source)
    source["weight"][:] = 7
    assert not jnp.any(model.weight[...])


def test_arrays_are_cast_to_the_modules_dtype():
    model = nn.Linear(2, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    nn.load_state_dict(model, {"weight": np.ones((2, 2)), "bias": np.ones(2)})
    assert model.weight[...].dtype == jnp.bfloat16


def test_modules_survive_split_merge_and_transforms():
    model = models.SimpleNeuralNetwork(4, 8, 2, rngs=nnx.Rngs(0))
    x = jnp.ones((3, 4))
    graphdef, state = nnx.split(model)
    model.eval()
    expected = model(x)
    merged = nnx.merge(graphdef, state)
    merged.eval()
    np.testing.assert_array_equal(merged(x), expected)
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(model, x), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda s, x: _evaluated(graphdef, s)(x))(state, x), expected, rtol=1e-6)


def _evaluated(graphdef, state):
    model = nnx.merge(graphdef, state)
    model.eval()
    return model
