from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.optim import swa_utils as theirs

from jaxnn import nn
from jaxnn.optim import swa_utils as ours


class Scale(nnx.Module):
    """A parameter and a buffer."""

    def __init__(self, value: float):
        self.weight = nnx.Param(jnp.full(2, value))
        self.seen = nnx.BatchStat(jnp.full(2, 10 * value))

    def __call__(self, x: Any) -> Any:
        return self.weight[...] * x


class TorchScale(torch.nn.Module):
    def __init__(self, value: float):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((2,), value))
        self.register_buffer("seen", torch.full((2,), 10 * value))


AVERAGES = {
    "default": ({}, {}),
    "swa": ({"avg_fn": theirs.get_swa_avg_fn()}, {"avg_fn": ours.get_swa_avg_fn()}),
    "ema": ({"avg_fn": theirs.get_ema_avg_fn(0.8)}, {"avg_fn": ours.get_ema_avg_fn(0.8)}),
    "swa of many": ({"multi_avg_fn": theirs.get_swa_multi_avg_fn()}, {"multi_avg_fn": ours.get_swa_multi_avg_fn()}),
    "ema of many": (
        {"multi_avg_fn": theirs.get_ema_multi_avg_fn(0.8)},
        {"multi_avg_fn": ours.get_ema_multi_avg_fn(0.8)},
    ),
}


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("name", AVERAGES)
def test_averages_of_parameters_and_buffers_are_torchs(name: str, use_buffers: bool):
    options, own = AVERAGES[name]
    reference = theirs.AveragedModel(TorchScale(5.0), use_buffers=use_buffers, **options)
    model = ours.AveragedModel(Scale(5.0), use_buffers=use_buffers, **own)
    for value in (1.0, 4.0, -2.0, 3.0):
        reference.update_parameters(TorchScale(value))
        model.update_parameters(Scale(value))
    np.testing.assert_allclose(model.module.weight[...], reference.module.weight.detach(), rtol=1e-6)
    np.testing.assert_allclose(model.module.seen[...], reference.module.seen, rtol=1e-6)
    assert int(model.n_averaged[...]) == int(reference.n_averaged)
    np.testing.assert_allclose(model(jnp.ones(2)), model.module.weight[...])


def test_the_model_that_is_averaged_is_left_alone():
    source = Scale(1.0)
    averaged = ours.AveragedModel(source)
    averaged.update_parameters(Scale(7.0))
    assert float(source.weight[...][0]) == 1


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*:UserWarning")
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 1, 6])
def test_the_learning_rate_goes_where_torchs_goes(strategy: Any, epochs: int):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.4)
    schedule = theirs.SWALR(optimizer, 0.05, epochs, strategy)
    twin = ours.SWALR(0.4, 0.05, epochs, strategy)
    for step in range(10):
        assert twin(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        assert float(twin(jnp.asarray(step))) == pytest.approx(twin(step), rel=1e-6)
        optimizer.step()
        schedule.step()


def test_what_cannot_be_is_refused():
    for decay in (-0.1, 1.1):
        with pytest.raises(ValueError, match="decay must be"):
            ours.get_ema_avg_fn(decay)
    with pytest.raises(ValueError, match="not both"):
        ours.AveragedModel(Scale(1.0), avg_fn=ours.get_swa_avg_fn(), multi_avg_fn=ours.get_swa_multi_avg_fn())
    with pytest.raises(ValueError, match="anneal_strategy"):
        ours.SWALR(0.1, 0.2, anneal_strategy="sin")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="anneal_epochs"):
        ours.SWALR(0.1, 0.2, -1)


def test_batch_normalisation_averages_over_the_batches_and_keeps_its_mode():
    batches = np.random.default_rng(0).standard_normal((3, 8, 2)).astype(np.float32)
    reference = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2, momentum=0.3)).eval()
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, momentum=0.3))
    model.eval()
    theirs.update_bn([torch.tensor(batch) for batch in batches], reference)
    ours.update_bn([(jnp.asarray(batch), None) for batch in batches], model)
    arrays = nn.state_dict(model)
    for name, value in reference.state_dict().items():
        np.testing.assert_allclose(arrays[name], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model(batches[0]), reference(torch.tensor(batches[0])).detach(), rtol=1e-4, atol=1e-5)
