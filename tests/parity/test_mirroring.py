import numpy as np
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity import MirrorError, mirror, weights


def assert_twins(module, *inputs):
    twin = mirror(module)
    assert repr(twin) == repr(module)
    theirs, ours = weights.load(module), weights.load(twin)
    assert list(theirs) == list(ours)
    for name, array in theirs.items():
        np.testing.assert_array_equal(array, ours[name])
    report = parity.check(module, twin, inputs)
    assert report.passed, report
    return twin


def network():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        torch.nn.BatchNorm2d(8, momentum=None),
        torch.nn.LeakyReLU(0.2, inplace=True),
        torch.nn.MaxPool2d(2),
        torch.nn.Sequential(torch.nn.Conv2d(8, 4, 1), torch.nn.GroupNorm(2, 4), torch.nn.GELU("tanh")),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 4 * 4, 5),
        torch.nn.Softmax(dim=1),
    )


@pytest.mark.parametrize("training", [True, False])
def test_a_nested_network_is_mirrored_with_weights_mode_and_statistics(training):
    torch.manual_seed(0)
    module = network()
    module(torch.randn(4, 3, 16, 16))
    assert_twins(module.train(training), torch.randn(4, 3, 16, 16))


def test_lists_and_dicts_of_modules_keep_their_paths():
    module = torch.nn.ModuleDict(
        {
            "stem": torch.nn.ModuleList([torch.nn.Linear(2, 3), torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)]),
            "head": torch.nn.Identity(),
        }
    )
    twin = mirror(module)
    assert repr(twin) == repr(module)
    assert list(nn.state_dict(twin)) == list(module.state_dict())
    assert twin["stem"][2].in_features == 3


def test_shared_parameters_stay_shared():
    first, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    second.weight = first.weight
    twin = mirror(torch.nn.Sequential(first, torch.nn.Tanh(), second))
    assert list(nn.state_dict(twin)) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [name for name, _ in nn.named_parameters(twin)] == ["0.weight", "0.bias", "2.bias"]
    assert twin[0].weight is twin[2].weight


def test_a_shared_module_stays_shared():
    shared = torch.nn.Linear(3, 3)
    module = torch.nn.Sequential(shared, torch.nn.ReLU(), shared)
    twin = assert_twins(module, torch.randn(2, 3))
    assert len(list(nn.named_parameters(twin))) == 2


def test_weights_go_back_to_torch():
    module, other = network(), network()
    twin = mirror(module)
    other.load_state_dict({name: torch.from_numpy(array) for name, array in weights.load(twin).items()})
    for theirs, ours in zip(module.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(theirs, ours)


def test_a_lazy_layer_is_mirrored_once_it_has_seen_an_input():
    module = torch.nn.LazyLinear(4)
    with pytest.raises(MirrorError, match="has not seen an input"):
        mirror(module)
    module(torch.ones(2, 3))
    assert isinstance(mirror(module), nn.Linear)


def test_an_unknown_module_is_named_with_its_path():
    class Odd(torch.nn.Module):
        pass

    with pytest.raises(MirrorError, match=r"1\.0 \(.*Odd\).*parity\.port"):
        mirror(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sequential(Odd())))


def test_a_subclass_of_a_layer_is_not_taken_for_the_layer():
    class Scaled(torch.nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    with pytest.raises(MirrorError, match="Scaled"):
        mirror(Scaled(2, 2))


def test_mirroring_leaves_the_module_alone():
    module = network()
    before = weights.load(module)
    twin = mirror(module)
    nnx.update(twin, nnx.state(mirror(network())))
    for name, array in weights.load(module).items():
        np.testing.assert_array_equal(array, before[name])
