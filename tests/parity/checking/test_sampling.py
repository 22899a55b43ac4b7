import numpy as np
import pytest
import torch

from parity.checking.evaluation import TorchSide
from parity.checking.sampling import explained_by_sample
from parity.comparison import FACTOR

generator = torch.Generator().manual_seed(0)
LAYERS = [
    (torch.nn.Linear(96, 32), torch.randn(4, 512, 96, generator=generator)),
    (torch.nn.Conv1d(8, 16, 5), torch.randn(512, 8, 20, generator=generator)),
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


def test_a_layer_that_mixes_rows_or_has_few_is_held_against_the_whole_truth():
    assert not cleared(torch.nn.BatchNorm1d(8), torch.randn(512, 8))
    assert not cleared(torch.nn.Linear(8, 8), torch.randn(40, 8))


def test_a_layer_with_a_hook_is_held_against_the_whole_truth():
    layer = torch.nn.Linear(8, 8)
    layer.register_forward_hook(lambda layer, args, output: output - output.mean(0))
    assert not cleared(layer, torch.randn(512, 8))
