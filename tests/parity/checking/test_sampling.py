import numpy as np
import pytest
import torch

from parity.checking.evaluation import TorchSide
from parity.checking.perturbation import doubled
from parity.checking.sampling import _truth, explained_by_sample
from parity.comparison import FACTOR

generator = torch.Generator().manual_seed(0)
LAYERS = [
    (torch.nn.Linear(96, 32), torch.randn(4, 512, 96, generator=generator)),
    (torch.nn.Conv1d(8, 16, 5), torch.randn(32, 8, 20, generator=generator)),
    (torch.nn.Linear(40, 600), torch.randn(300, 40, generator=generator)),
    (torch.nn.Linear(512, 1024), torch.randn(5, 512, generator=generator)),
]


def cleared(layer, x, change=lambda output: output):
    """Whether an output correctly rounded, then changed, is cleared by some of its rows."""
    side = TorchSide(layer, ((x,), {}), gradients=False)
    output = side.exact().outputs["output"].astype(np.float32)
    return explained_by_sample(side, {"output": change(output)}, FACTOR) is not None


@pytest.mark.parametrize(("layer", "x"), LAYERS)
def test_another_rounding_is_cleared_by_a_few_rows(layer, x):
    assert cleared(layer, x)


@pytest.mark.parametrize(("layer", "x"), LAYERS)
def test_a_small_systematic_error_is_not_cleared(layer, x):
    assert not cleared(layer, x, lambda output: output * np.float32(1 + 2e-6))


@pytest.mark.parametrize(("layer", "x"), LAYERS)
@pytest.mark.parametrize("wrong", [1e-4, np.nan, np.inf])
def test_one_wrong_number_in_one_row_is_not_cleared(layer, x, wrong):
    def changed(output):
        output.reshape(-1)[4567] += wrong
        return output

    assert not cleared(layer, x, changed)


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv2d(6, 9, (3, 2), padding=(1, 2), stride=(2, 1), dilation=(1, 2)),
        torch.nn.Conv2d(6, 12, (4, 2), padding="same", dilation=2, groups=3, bias=False),
        torch.nn.Conv2d(6, 6, 3, padding="valid", groups=6),
    ],
)
def test_the_truth_of_a_convolution_is_computed_where_it_is_wanted(layer):
    x = torch.randn(3, 6, 11, 13)
    with torch.no_grad():
        whole = doubled(layer)(x.double()).flatten(2)
        examples, within = np.unravel_index(np.arange(3 * whole.shape[2]), (3, whole.shape[2]))
        channels = np.arange(layer.out_channels)[::-1].copy()
        found = _truth(layer, x, examples, within, channels)
    torch.testing.assert_close(found, whole.movedim(1, -1).flatten(0, 1)[:, channels], rtol=0, atol=1e-13)


def test_a_layer_that_mixes_rows_or_has_few_is_held_against_the_whole_truth():
    assert not cleared(torch.nn.BatchNorm1d(8), torch.randn(512, 8))
    assert not cleared(torch.nn.Linear(8, 8), torch.randn(40, 8))


def test_a_layer_with_a_hook_is_held_against_the_whole_truth():
    layer = torch.nn.Linear(8, 8)
    layer.register_forward_hook(lambda layer, args, output: output - output.mean(0))
    assert not cleared(layer, torch.randn(512, 8))


def test_a_layer_with_another_forward_is_held_against_the_whole_truth():
    layer, x = torch.nn.Linear(40, 40), torch.randn(400, 40)
    assert cleared(layer, x)
    layer.forward = lambda x: torch.nn.functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype)) + x
    assert not cleared(layer, x, lambda output: output - x.numpy())
