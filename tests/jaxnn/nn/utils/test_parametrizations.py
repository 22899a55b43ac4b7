import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn.utils import parametrizations as theirs
from torch.nn.utils import parametrize as torch_parametrize

from jaxnn import nn
from jaxnn.nn.utils import parametrizations, parametrize
from parity import MirrorError, mirror, weights

IMAGE, ROWS = (2, 4, 5, 5), (3, 4)
CASES = {
    "weight_norm": (lambda: theirs.weight_norm(torch.nn.Linear(4, 5)), ROWS),
    "weight_norm_of_all": (lambda: theirs.weight_norm(torch.nn.Linear(4, 5), dim=None), ROWS),
    "weight_norm_of_columns": (lambda: theirs.weight_norm(torch.nn.Conv2d(4, 5, 3), dim=1), IMAGE),
    "spectral_norm": (lambda: theirs.spectral_norm(torch.nn.Linear(4, 5)), ROWS),
    "spectral_norm_of_convolution": (
        lambda: theirs.spectral_norm(torch.nn.Conv2d(4, 5, 3), n_power_iterations=3),
        IMAGE,
    ),
    "spectral_norm_of_transposed": (lambda: theirs.spectral_norm(torch.nn.ConvTranspose2d(4, 5, 3)), IMAGE),
    "spectral_norm_of_vector": (lambda: theirs.spectral_norm(torch.nn.LayerNorm(4)), ROWS),
    **{
        f"orthogonal_{orthogonal_map}_{sizes[0]}_{sizes[1]}": (
            lambda m=orthogonal_map, s=sizes: theirs.orthogonal(torch.nn.Linear(*s), orthogonal_map=m),
            (3, sizes[0]),
        )
        for orthogonal_map in ("matrix_exp", "cayley", "householder")
        for sizes in ((4, 4), (4, 6), (6, 4))
    },
    "orthogonal_without_base": (
        lambda: theirs.orthogonal(torch.nn.Linear(4, 6), orthogonal_map="householder", use_trivialization=False),
        ROWS,
    ),
    "spectral_after_weight_norm": (lambda: theirs.spectral_norm(theirs.weight_norm(torch.nn.Linear(4, 5))), ROWS),
}


def trained(make):
    """A torch module away from its start, where the maps are not the identity."""
    torch.manual_seed(0)
    module = make().double()
    with torch.no_grad():
        for parameter in module.parameters():
            # The diagonal holds the signs of a product of reflections.
            keep = 1 - torch.eye(*parameter.shape[-2:]) if parameter.ndim == 2 else 1
            parameter += 0.3 * torch.randn_like(parameter) * keep
    return module


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("make", "shape", "training"), [(*case, i % 2 == 0) for i, case in enumerate(CASES.values())], ids=CASES
)
def test_values_gradients_and_buffers_are_torchs(make, shape, training):
    module = trained(make).train(training)
    twin = mirror(module)
    assert repr(twin) == repr(module)
    assert list(nn.state_dict(twin)) == list(module.state_dict())
    x = torch.randn(*shape, dtype=torch.float64)
    loss = module(x).square().sum()
    loss.backward()

    @nnx.jit
    def gradients(twin, x):
        return nnx.value_and_grad(lambda module: jnp.sum(jnp.square(module(x))))(twin)

    ours, found = gradients(twin, x.numpy())
    np.testing.assert_allclose(ours, loss.detach().numpy(), rtol=1e-9)
    for name, parameter in module.named_parameters():
        leaf = found
        for part in name.split("."):
            leaf = leaf[part]
        np.testing.assert_allclose(leaf.get_value(), parameter.grad.numpy(), rtol=1e-7, atol=1e-9, err_msg=name)
    for name, buffer in module.state_dict().items():
        np.testing.assert_allclose(nn.state_dict(twin)[name], buffer.numpy(), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES)
def test_weights_go_both_ways(make, shape):
    module, other = trained(make), make().double()
    other.load_state_dict({k: torch.from_numpy(v) for k, v in weights.load(mirror(module)).items()})
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_the_split_module_compiles_once_and_merges_back():
    make = lambda seed: parametrizations.weight_norm(nn.Linear(4, 5, rngs=nnx.Rngs(seed)))  # noqa: E731
    (first, state), (second, other) = nnx.split(make(0)), nnx.split(make(1))
    assert first == second
    x = jnp.ones((2, 4), jnp.float32)
    np.testing.assert_array_equal(nnx.merge(first, other)(x), make(1)(x))
    np.testing.assert_allclose(jax.jit(lambda s: nnx.merge(first, s)(x))(state), make(0)(x), rtol=1e-6)


@pytest.mark.parametrize("orthogonal_map", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("sizes", [(4, 4), (4, 6), (6, 4)])
def test_a_new_orthogonal_weight_is_orthogonal(orthogonal_map, sizes):
    rngs = nnx.Rngs(0)
    layer = parametrizations.orthogonal(nn.Linear(*sizes, rngs=rngs), orthogonal_map=orthogonal_map, rngs=rngs)
    w = layer.weight if sizes[0] <= sizes[1] else layer.weight.T
    np.testing.assert_allclose(w.T @ w, np.eye(4), atol=1e-5)


@pytest.mark.parametrize("make", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_an_assigned_weight_is_read_back(make):
    layer = make(nn.Linear(4, 4, rngs=nnx.Rngs(0)))
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0].astype(np.float32)
    layer.weight = q
    np.testing.assert_allclose(layer.weight, q, atol=1e-6)


def test_removal_leaves_the_computed_weight_and_the_class():
    layer = parametrizations.weight_norm(nn.Linear(4, 5, rngs=nnx.Rngs(0)))
    other = torch_parametrize.remove_parametrizations(theirs.weight_norm(torch.nn.Linear(4, 5)), "weight")
    assert type(layer).__name__ == "ParametrizedLinear"
    weight = layer.weight
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert not parametrize.is_parametrized(layer)
    assert repr(layer) == repr(other)
    assert list(nn.state_dict(layer)) == list(other.state_dict())
    np.testing.assert_array_equal(layer.weight[...], weight)


def test_a_map_of_ones_own_is_applied_and_one_that_changes_the_shape_refused():
    class Symmetric(nn.Module):
        def __call__(self, x):
            return jnp.triu(x) + jnp.triu(x, 1).T

    layer = parametrize.register_parametrization(nn.Linear(4, 4, rngs=nnx.Rngs(0)), "weight", Symmetric())
    np.testing.assert_array_equal(layer.weight, layer.weight.T)

    class Short(nn.Module):
        def __call__(self, x):
            return x[1:]

    with pytest.raises(ValueError, match="must keep shape"):
        parametrize.register_parametrization(nn.Linear(4, 4, rngs=nnx.Rngs(0)), "weight", Short())


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda layer: parametrizations.weight_norm(layer, "scale"), ValueError, "no parameter 'scale'"),
        (lambda layer: parametrizations.spectral_norm(layer, dim=2, rngs=nnx.Rngs(0)), IndexError, "got 2"),
        (lambda layer: parametrizations.spectral_norm(layer, n_power_iterations=0), ValueError, "got 0"),
        (lambda layer: parametrizations.orthogonal(layer, "bias"), ValueError, "two axes"),
        (lambda layer: parametrizations.orthogonal(layer, orthogonal_map="qr"), ValueError, "got 'qr'"),
        (
            lambda layer: parametrizations.orthogonal(layer, orthogonal_map="cayley", use_trivialization=False),
            NotImplementedError,
            "cayley",
        ),
    ],
)
def test_bad_parametrizations_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make(nn.Linear(4, 5, rngs=nnx.Rngs(0)))


def test_a_parametrization_that_jaxnn_lacks_is_named():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x

    module = torch_parametrize.register_parametrization(torch.nn.Linear(2, 2), "weight", Odd())
    with pytest.raises(MirrorError, match=r"parametrizations\.weight \(.*Odd\).*parity\.port"):
        mirror(module)
