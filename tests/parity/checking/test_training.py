"""Training runs side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import jaxnn.functional as F
import parity
from jaxnn import nn, optim
from parity import weights
from parity.checking.runs import Step
from tests.parity.checking.networks import pair

LOSS = (lambda m, *x: ((m(*x) - 1) ** 2).mean(), lambda m, *x: jnp.mean((m(*x) - 1) ** 2))


def run(network, torch_optimizer, transform, steps):
    theirs, ours, inputs = pair(network)
    batch = inputs if isinstance(inputs, tuple) else (inputs,)
    return parity.check_training(theirs, ours, torch_optimizer, transform, LOSS, [batch], steps)


def clipped(parameters):
    parameters = list(parameters)
    optimizer = torch.optim.SGD(parameters, 0.1)
    optimizer.register_step_pre_hook(lambda *_: torch.nn.utils.clip_grad_value_(parameters, 1e-3))
    return optimizer


@pytest.mark.parametrize(
    ("torch_optimizer", "transform", "step", "said"),
    [
        (lambda p: torch.optim.SGD(p, 0.1), optim.SGD(0.11), 1, "torch's times 1.1"),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), optim.SGD(0.1, momentum=0.8), 2, "momentum is as if 0.8"),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), optim.SGD(0.1, momentum=0.87), 2, "momentum is as if 0.87"),
        (lambda p: torch.optim.Adam(p, 1e-3), optim.Adam(1e-3, eps=1e-5), 1, "eps is as if 1e-05"),
        (lambda p: torch.optim.Adam(p, 1e-3), optim.Adam(1e-3, eps=3e-4), 1, "eps is as if 0.0003"),
        (lambda p: torch.optim.AdamW(p, 1e-2), optim.AdamW(1e-2, weight_decay=0.02), 1, "weight_decay is as if 0.02"),
        (clipped, optax.chain(optax.clip_by_global_norm(0.02), optim.SGD(0.1)), 1, "cut to a norm of 0.02"),
    ],
)
def test_the_step_and_the_tensor_are_named(torch_optimizer, transform, step, said):
    report = run("unet", torch_optimizer, transform, 4)
    assert not report.passed
    assert report.first_divergence == f"down1.weight, step {step}"
    assert said in str(report.faults[0])


def test_weight_decay_left_off_vectors_is_named():
    transform = optax.adamw(1e-2, weight_decay=0.1, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree))
    with jax.numpy_dtype_promotion("standard"):
        report = run("unet", lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1), transform, 4)
    assert "left out for biases and other vectors" in str(report.faults[0])


def test_label_smoothing_is_named():
    theirs, ours = torch.nn.Linear(4, 3), nn.Linear(4, 3, rngs=nnx.Rngs(0))
    nn.load_state_dict(ours, weights.load(theirs))
    loss = (
        lambda m, x, y: torch.nn.functional.cross_entropy(m(x), y),
        lambda m, x, y: F.cross_entropy(m(x), y, label_smoothing=0.1),
    )
    batch = torch.randn(5, 4), torch.tensor([0, 2, 1, 0, 2])
    report = parity.check_training(theirs, ours, lambda p: torch.optim.SGD(p, 0.1), optim.SGD(0.1), loss, [batch], 2)
    assert (report.faults[0].path, report.faults[0].suspect) == ("loss", "label smoothing")


def test_what_is_wrong_in_a_layer_is_not_laid_to_the_optimizer():
    theirs, ours, x = pair("unet")
    ours.act.negative_slope = 0.3
    report = parity.check(theirs, ours, x, gradients=False, steps=2)
    assert report.faults[-1].kind == "training"
    assert "follows from what is wrong in the layers above" in report.faults[-1].reason


def test_adam_of_optax_passes_though_it_corrects_its_averages_in_float32():
    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        report = run("convnet", lambda p: torch.optim.Adam(p, 1e-2), optax.adam(1e-2), 3)
    assert report.passed, report


def test_what_the_optimizer_keeps_is_compared():
    report = run("unet", lambda p: torch.optim.Adam(p, 1e-3), optim.Adam(1e-3), 3)
    assert report.passed, report
    assert "exp_avg_sq of out.bias, step 3" in {row.name for row in report.rows}


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_chaotic_run_of_a_right_port_is_not_accused(rate):
    report = run("unet", lambda p: torch.optim.SGD(p, rate, momentum=0.9), optim.SGD(rate, momentum=0.9), 100)
    assert report.passed, report


def test_a_port_of_flax_layers_trains_under_torchs_names():
    class Port(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 3, (3, 3), padding=1, rngs=rngs)
            self.head = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.conv(jnp.transpose(x, (0, 2, 3, 1))))
            return self.head(jnp.mean(x, (1, 2)))

    class Torch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.Linear(3, 2)

        def forward(self, x):
            return self.head(torch.relu(self.conv(x)).mean((2, 3)))

    torch.manual_seed(0)
    theirs, ours = Torch(), Port(nnx.Rngs(0))
    arrays = weights.load(theirs)
    ours.conv.kernel[...] = jnp.array(arrays["conv.weight"].transpose(2, 3, 1, 0))
    ours.head.kernel[...] = jnp.array(arrays["head.weight"].T)
    for path in ("conv", "head"):
        getattr(ours, path).bias[...] = jnp.array(arrays[f"{path}.bias"])
    pair = (lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9), optax.sgd(1e-2, momentum=0.9))
    report = parity.check(theirs, ours, torch.randn(2, 2, 5, 5), steps=4, optimizer=pair)
    assert report.passed, report
    names = {row.name for row in report.rows}
    assert {"conv.weight", "conv.weight, step 4", "momentum_buffer of conv.weight, step 4"} <= names
    assert next(layer for layer in report.layers if layer.path == "conv").layout == "channels last"


def test_numbers_that_numpy_draws_are_drawn_anew_in_each_step():
    def losses(square):
        return lambda m, x: square(m(x)) * np.random.uniform(0.5, 1.5)  # noqa: NPY002

    theirs, ours = torch.nn.Linear(4, 3), nn.Linear(4, 3, rngs=nnx.Rngs(0))
    nn.load_state_dict(ours, weights.load(theirs))
    both = losses(lambda y: (y**2).mean()), losses(lambda y: jnp.mean(y**2))
    sgd = (lambda p: torch.optim.SGD(p, 0.1), optim.SGD(0.1))
    report = parity.check_training(theirs, ours, *sgd, both, [(torch.randn(5, 4),)], 3)
    assert report.passed
    assert "compiled anew for each step" in report.notes[0]


def line(torch_optimizer, transform, steps=4, scale=1.0, loss=None):
    """A linear layer's run."""
    torch.manual_seed(0)
    theirs, ours = torch.nn.Linear(4, 3), nn.Linear(4, 3, rngs=nnx.Rngs(0))
    nn.load_state_dict(ours, weights.load(theirs))
    both = loss or (lambda m, x: scale * (m(x) ** 2).mean(), lambda m, x: scale * jnp.mean(m(x) ** 2))
    batches = [(torch.randn(5, 4),) for _ in range(3)]
    with jax.numpy_dtype_promotion("standard"):
        return parity.check_training(theirs, ours, torch_optimizer, transform, both, batches, steps)


def hooked(make, before=lambda optimizer, parameters: None, after=lambda optimizer, parameters: None):
    """An optimizer around whose step something is done, as clipping before it or a schedule behind it."""

    def made(parameters):
        parameters = list(parameters)
        optimizer = make(parameters)
        optimizer.register_step_pre_hook(lambda *_: (before(optimizer, parameters), None)[1])
        optimizer.register_step_post_hook(lambda *_: (after(optimizer, parameters), None)[1])
        return optimizer

    return made


def momentum(parameters):
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def cut(norm):
    return hooked(momentum, lambda _, parameters: torch.nn.utils.clip_grad_norm_(parameters, norm))


def test_clipping_by_optax_passes_though_torch_adds_a_millionth_to_the_norm():
    transform = optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(0.1, momentum=0.9))
    report = line(cut(0.01), transform, scale=0.1)
    assert report.passed, report
    assert "divides by the norm + 1e-6" in report.notes[0]
    assert not line(cut(0.01), transform, scale=30.0).notes  # beside a large norm the millionth is nothing


def test_a_norm_so_small_that_the_millionth_counts_is_the_reason():
    transform = optax.chain(optax.clip_by_global_norm(1e-5), optax.sgd(0.1, momentum=0.9))
    report = line(cut(1e-5), transform, scale=1e-3)
    assert report.faults[0].suspect == "clipping"
    assert "divides by the norm + 1e-6" in report.faults[0].reason


def test_a_millionth_does_not_excuse_another_norm():
    transform = optax.chain(optax.clip_by_global_norm(0.01001), optax.sgd(0.1, momentum=0.9))
    assert not line(cut(0.01), transform, scale=0.1).passed


def test_squares_are_compared_by_their_roots_as_gradients_are():
    """What is left of a gradient that cancels may be four times torch's, its square then is sixteen times that."""
    noise = np.array([1e-9, 2e-9], np.float32)
    step = Step(np.zeros(()), {}, {"exp_avg_sq of bias": noise**2, "exp_avg of bias": -noise})
    np.testing.assert_allclose(step.arrays()["exp_avg_sq of bias"], noise)
    np.testing.assert_array_equal(step.arrays()["exp_avg of bias"], -noise)


def test_a_schedule_around_the_step_leaves_the_neighbouring_runs_where_they_are():
    """A rate changed for one step and then restored would be the schedule's no more."""
    rates = []

    def make(parameters):
        optimizer = torch.optim.Adam(parameters, 0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        optimizer.register_step_post_hook(lambda *_: schedule.step())
        optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    assert line(make, optim.Adam(lambda step: 0.1 / (1 + step)), 3).passed
    assert set(rates) == {0.1, 0.05, 0.1 / 3}
