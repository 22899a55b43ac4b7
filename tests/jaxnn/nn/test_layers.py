import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxnn import models, nn
from parity import tutorial
from tests.jaxnn.nn.layer_table import LAZY


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda: torch.nn.Linear(3, 4, bias=False), lambda r: nn.Linear(3, 4, bias=False, rngs=r)),
        (
            lambda: torch.nn.Conv2d(
                4, 8, (3, 1), stride=2, padding=1, dilation=2, groups=2, bias=False, padding_mode="reflect"
            ),
            lambda r: nn.Conv2d(4, 8, (3, 1), 2, 1, 2, 2, bias=False, padding_mode="reflect", rngs=r),
        ),
        (lambda: torch.nn.Conv1d(4, 8, 3, padding="same"), lambda r: nn.Conv1d(4, 8, 3, padding="same", rngs=r)),
        (lambda: torch.nn.ReLU(), lambda r: nn.ReLU()),
        (lambda: torch.nn.ReLU(inplace=True), lambda r: nn.ReLU(inplace=True)),
        (lambda: torch.nn.Dropout(0.3), lambda r: nn.Dropout(0.3, rngs=r)),
        (lambda: torch.nn.CrossEntropyLoss(label_smoothing=0.1), lambda r: nn.CrossEntropyLoss(label_smoothing=0.1)),
        (lambda: torch.nn.BCELoss(), lambda r: nn.BCELoss()),
        (lambda: torch.nn.MSELoss(), lambda r: nn.MSELoss()),
        (lambda: torch.nn.BCEWithLogitsLoss(), lambda r: nn.BCEWithLogitsLoss()),
        (tutorial.SimpleNN, lambda r: models.SimpleNN(rngs=r)),
        (
            lambda: torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Sequential(torch.nn.ReLU())),
            lambda r: nn.Sequential(nn.Linear(1, 2, rngs=r), nn.Sequential(nn.ReLU())),
        ),
    ],
)
def test_prints_as_torch_prints_it(theirs, ours):
    assert repr(ours(nnx.Rngs(0))) == str(ours(nnx.Rngs(0))) == repr(theirs())


@pytest.mark.parametrize(
    ("make", "theirs"),
    [
        (lambda r: nn.Linear(50, 200, rngs=r), lambda: torch.nn.Linear(50, 200)),
        (lambda r: nn.Conv2d(8, 64, 5, groups=2, rngs=r), lambda: torch.nn.Conv2d(8, 64, 5, groups=2)),
    ],
)
def test_parameters_start_in_torchs_distribution(make, theirs):
    """A Kolmogorov-Smirnov distance under the critical value at a chance of 1e-4."""
    ours = np.sort(np.asarray(make(nnx.Rngs(3)).weight[...]).ravel())
    torch.manual_seed(3)
    other = np.sort(theirs().weight.detach().numpy().ravel())
    points = np.concatenate([ours, other])
    distance = np.abs(np.searchsorted(ours, points) / len(ours) - np.searchsorted(other, points) / len(other)).max()
    assert distance < 2.23 * np.sqrt(1 / len(ours) + 1 / len(other))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, "same", "valid", (2, 1)])
def test_padding_modes_of_convolution_are_torchs(mode, padding):
    theirs = torch.nn.Conv2d(2, 3, (4, 3), padding=padding, padding_mode=mode)
    ours = nn.Conv2d(2, 3, (4, 3), padding=padding, padding_mode=mode, rngs=nnx.Rngs(0))
    nn.load_state_dict(ours, {k: v.numpy() for k, v in theirs.state_dict().items()})
    x = torch.randn(2, 2, 8, 7)
    np.testing.assert_allclose(ours(x.numpy()), theirs(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_train_and_eval_switch_dropout_inside_a_model():
    model = nn.Sequential(nn.Linear(8, 8, rngs=nnx.Rngs(0)), nn.Dropout(0.5, rngs=nnx.Rngs(1)))
    x = jnp.ones((2, 8))
    assert jnp.any(model(x) == 0)
    assert jnp.any(model(x) != model(x))
    model.eval()
    np.testing.assert_array_equal(model(x), model(x))
    assert not jnp.any(model(x) == 0)


def test_dropout_takes_a_key_with_the_call():
    layer = nn.Dropout(0.5)
    x, key = jnp.ones((4, 4)), jax.random.key(0)
    np.testing.assert_array_equal(layer(x, key=key), layer(x, key=key))


def test_dropout_in_training_without_a_key_is_refused():
    with pytest.raises(ValueError, match="key"):
        nn.Dropout(0.5)(jnp.ones(3))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.Dropout(1.5), "p is a probability"),
        (lambda: nn.MSELoss(reduction="average"), "'none', 'mean' or 'sum', got 'average'"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2, rngs=nnx.Rngs(0)), "in_channels must be divisible by groups=2, got 3"),
        (lambda: nn.Conv2d(4, 4, (3, 3, 3), rngs=nnx.Rngs(0)), "kernel_size"),
        (lambda: nn.Conv2d(4, 4, 3, padding="full", rngs=nnx.Rngs(0)), "padding must be"),
        (lambda: nn.Conv2d(4, 4, 3, stride=2, padding="same", rngs=nnx.Rngs(0)), "stride 1"),
        (lambda: nn.Conv2d(4, 4, 3, padding_mode="mirror", rngs=nnx.Rngs(0)), "padding_mode"),
        (lambda: nn.Linear(-1, 4, rngs=nnx.Rngs(0)), "cannot be negative"),
    ],
)
def test_impossible_hyperparameters_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(("name", "args", "shape"), LAZY)
def test_a_lazy_layer_becomes_the_layer_that_takes_its_first_input(name, args, shape):
    kind = getattr(nn, name)
    layer = kind(*args) if "Norm" in name else kind(*args, rngs=nnx.Rngs(0))
    theirs = getattr(torch.nn, name)(*args)
    assert repr(layer) == repr(theirs)
    assert isinstance(layer, kind.cls_to_become)
    with pytest.raises(ValueError, match="outside of transforms"):
        jax.jit(layer.__call__)(jnp.ones(shape))
    x = torch.randn(shape)
    theirs.eval()(x), layer.eval()
    layer(x.numpy())
    assert type(layer) is kind.cls_to_become
    assert repr(layer) == repr(theirs)
    nn.load_state_dict(layer, {k: v.numpy() for k, v in theirs.state_dict().items()})
    ours = nnx.jit(lambda layer, x: layer(x))(layer, x.numpy())
    np.testing.assert_allclose(ours, theirs(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_lazy_layer_refuses_an_input_of_other_rank_and_waits_on():
    layer = nn.LazyConv2d(4, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="3 or 4 axes"):
        layer(jnp.ones((3, 3)))
    assert layer(jnp.ones((5, 3, 3))).shape == (4, 1, 1)
