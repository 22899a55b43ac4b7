import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as theirs

from jaxnn import optim
from jaxnn.optim import lr_scheduler as ours

LR = 0.3
STEPS = 60


def torch_rates(make: Callable[[torch.optim.Optimizer], Any], steps: int = STEPS) -> list[tuple[float, float]]:
    """Learning rate and momentum that each of ``steps`` updates sees."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=LR, momentum=0.9)
    schedule = make(optimizer)
    seen = []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        seen.append((float(group["lr"]), float(group["momentum"])))
        optimizer.step()
        schedule.step()
    return seen


def halve(step: Any) -> Any:
    return 0.95**step


def wave(step: Any) -> Any:
    return 1 - 0.05 * (step % 3)


PAIRS = {
    "LambdaLR": (lambda o: theirs.LambdaLR(o, halve), ours.LambdaLR(LR, halve)),
    "MultiplicativeLR": (lambda o: theirs.MultiplicativeLR(o, wave), ours.MultiplicativeLR(LR, wave)),
    "StepLR": (lambda o: theirs.StepLR(o, 7, 0.6), ours.StepLR(LR, 7, 0.6)),
    "MultiStepLR": (lambda o: theirs.MultiStepLR(o, [9, 3, 9, 20], 0.6), ours.MultiStepLR(LR, [9, 3, 9, 20], 0.6)),
    "ConstantLR": (lambda o: theirs.ConstantLR(o, 0.2, 6), ours.ConstantLR(LR, 0.2, 6)),
    "ConstantLR for ever": (lambda o: theirs.ConstantLR(o, 0.2, 0), ours.ConstantLR(LR, 0.2, 0)),
    "LinearLR": (lambda o: theirs.LinearLR(o, 0.2, 0.9, 11), ours.LinearLR(LR, 0.2, 0.9, 11)),
    "ExponentialLR": (lambda o: theirs.ExponentialLR(o, 0.97), ours.ExponentialLR(LR, 0.97)),
    "PolynomialLR": (lambda o: theirs.PolynomialLR(o, 21, 2.5), ours.PolynomialLR(LR, 21, 2.5)),
    "CosineAnnealingLR": (lambda o: theirs.CosineAnnealingLR(o, 13, 0.01), ours.CosineAnnealingLR(LR, 13, 0.01)),
    "CosineAnnealingWarmRestarts": (
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 9, 1, 0.01),
        ours.CosineAnnealingWarmRestarts(LR, 9, 1, 0.01),
    ),
    "CosineAnnealingWarmRestarts, longer and longer": (
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 4, 3),
        ours.CosineAnnealingWarmRestarts(LR, 4, 3),
    ),
    "CyclicLR": (lambda o: theirs.CyclicLR(o, 0.1, 0.5, 6, 9), ours.CyclicLR(0.1, 0.5, 6, 9)),
    "CyclicLR, halving": (
        lambda o: theirs.CyclicLR(o, 0.1, 0.5, 5, mode="triangular2"),
        ours.CyclicLR(0.1, 0.5, 5, mode="triangular2"),
    ),
    "CyclicLR, decaying": (
        lambda o: theirs.CyclicLR(o, 0.1, 0.5, 5, mode="exp_range", gamma=0.98),
        ours.CyclicLR(0.1, 0.5, 5, mode="exp_range", gamma=0.98),
    ),
    "CyclicLR, own scale": (
        lambda o: theirs.CyclicLR(o, 0.1, 0.5, 5, scale_fn=lambda x: 1 / (1 + x), scale_mode="iterations"),
        ours.CyclicLR(0.1, 0.5, 5, scale_fn=lambda x: 1 / (1 + x), scale_mode="iterations"),
    ),
    "OneCycleLR": (lambda o: theirs.OneCycleLR(o, 0.5, STEPS), ours.OneCycleLR(0.5, STEPS)),
    "OneCycleLR, three phases": (
        lambda o: theirs.OneCycleLR(
            o, 0.5, epochs=6, steps_per_epoch=10, anneal_strategy="linear", three_phase=True, pct_start=0.35
        ),
        ours.OneCycleLR(0.5, epochs=6, steps_per_epoch=10, anneal_strategy="linear", three_phase=True, pct_start=0.35),
    ),
    "SequentialLR": (
        lambda o: theirs.SequentialLR(
            o,
            [theirs.LinearLR(o, 0.1, 1.0, 8), theirs.CosineAnnealingLR(o, 20, 0.01), theirs.ExponentialLR(o, 0.9)],
            [8, 30],
        ),
        ours.SequentialLR(
            [ours.LinearLR(LR, 0.1, 1.0, 8), ours.CosineAnnealingLR(LR, 20, 0.01), ours.ExponentialLR(LR, 0.9)],
            [8, 30],
        ),
    ),
    "ChainedScheduler": (
        lambda o: theirs.ChainedScheduler(
            [theirs.ConstantLR(o, 0.1, 8), theirs.ExponentialLR(o, 0.95), theirs.MultiplicativeLR(o, wave)]
        ),
        ours.ChainedScheduler(
            [ours.ConstantLR(LR, 0.1, 8), ours.ExponentialLR(LR, 0.95), ours.MultiplicativeLR(LR, wave)]
        ),
    ),
    "ChainedScheduler, wiped": (
        lambda o: theirs.ChainedScheduler(
            [theirs.ExponentialLR(o, 0.95), theirs.LambdaLR(o, halve), theirs.LinearLR(o, 0.2, 1.0, 9)]
        ),
        ours.ChainedScheduler([ours.ExponentialLR(LR, 0.95), ours.LambdaLR(LR, halve), ours.LinearLR(LR, 0.2, 1.0, 9)]),
    ),
}


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*:UserWarning")
@pytest.mark.parametrize("name", PAIRS)
def test_a_schedule_gives_every_update_torchs_learning_rate_and_momentum(name: str):
    make, schedule = PAIRS[name]
    expected = torch_rates(make)
    exact = [schedule(step) for step in range(STEPS)]
    np.testing.assert_allclose(exact, [rate for rate, _ in expected], rtol=1e-10, atol=1e-15)
    traced = jax.jit(jax.vmap(schedule))(jnp.arange(STEPS))
    np.testing.assert_allclose(traced, exact, rtol=3e-6, atol=1e-8)
    if hasattr(schedule, "momentum"):
        momentum = [schedule.momentum(step) for step in range(STEPS)]
        np.testing.assert_allclose(momentum, [value for _, value in expected], rtol=1e-12)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("cooldown", [0, 3])
def test_a_plateau_lowers_the_rate_when_torch_does(mode: str, threshold_mode: str, cooldown: int):
    options = {"patience": 2, "factor": 0.5, "min_lr": 0.01, "threshold": 0.05}
    options |= {"mode": mode, "threshold_mode": threshold_mode, "cooldown": cooldown}
    metrics = np.random.default_rng(0).standard_normal(STEPS).cumsum()
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=LR)
    reference, schedule = theirs.ReduceLROnPlateau(optimizer, **options), ours.ReduceLROnPlateau(LR, **options)
    state = schedule.init()
    for metric in metrics:
        reference.step(metric)
        state = schedule.update(state, value=metric)
        np.testing.assert_allclose(schedule(state), optimizer.param_groups[0]["lr"], rtol=1e-6)
    assert schedule(state) < LR


def test_an_optimizer_reads_a_plateau_and_tells_it_the_metric():
    transform = optim.SGD(lr=ours.ReduceLROnPlateau(1.0, patience=0, factor=0.5))
    params = jnp.ones(())
    state = transform.init(params)
    update = jax.jit(transform.update)
    rates = []
    for metric in (1.0, 2.0, 3.0):
        change, state = update(params, state, params, value=metric)
        rates.append(-float(change))
    assert rates == [1.0, 1.0, 0.5]
    assert float(update(params, state, params)[0]) == -0.25
    untouched = update(params, state, params)[1]
    assert untouched.schedules == state.schedules


def test_cycled_momentum_reaches_the_optimizer():
    cycle = ours.OneCycleLR(0.1, 20)
    momentum = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    reference = torch.optim.Adam([momentum], lr=0.1)
    schedule = theirs.OneCycleLR(reference, 0.1, 20)
    with jax.enable_x64(True):
        transform = optim.Adam(lr=cycle, betas=(cycle.momentum, 0.999))
        params = jnp.ones(3)
        state = transform.init(params)
        for step in range(20):
            momentum.grad = momentum.detach() * math.cos(step)
            reference.step()
            schedule.step()
            change, state = transform.update(params * math.cos(step), state, params)
            params = params + change
        np.testing.assert_allclose(params, momentum.detach().numpy(), rtol=1e-12)


def test_a_schedule_goes_on_after_last_epoch():
    assert ours.StepLR(1.0, 3, 0.5, last_epoch=4)(0) == ours.StepLR(1.0, 3, 0.5)(5)


def test_a_step_after_the_last_is_refused_or_nan():
    schedule = ours.OneCycleLR(0.1, 10)
    with pytest.raises(ValueError, match="after the last of 10"):
        schedule(11)
    assert np.isnan(schedule(jnp.asarray(11)))


def test_a_slow_decay_keeps_its_digits_in_float32():
    schedule = ours.ExponentialLR(1.0, 0.9999)
    assert float(schedule(jnp.asarray(10_000))) == pytest.approx(0.9999**10_000, rel=3e-7)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ours.LambdaLR(LR, [halve]), TypeError),
        (lambda: ours.MultiplicativeLR(LR, 0.5), TypeError),
        (lambda: ours.ConstantLR(LR, 1.5), ValueError),
        (lambda: ours.LinearLR(LR, 0.0), ValueError),
        (lambda: ours.LinearLR(LR, 0.5, 1.5), ValueError),
        (lambda: ours.CosineAnnealingWarmRestarts(LR, 0), ValueError),
        (lambda: ours.CosineAnnealingWarmRestarts(LR, 3, 1.5), ValueError),
        (lambda: ours.CyclicLR(0.1, 0.2, mode="square"), ValueError),
        (lambda: ours.OneCycleLR(0.1), ValueError),
        (lambda: ours.OneCycleLR(0.1, 10, anneal_strategy="sin"), ValueError),
        (lambda: ours.OneCycleLR(0.1, 10, pct_start=1.5), ValueError),
        (lambda: ours.OneCycleLR(0.1, 0), ValueError),
        (lambda: ours.SequentialLR([], []), ValueError),
        (lambda: ours.SequentialLR([ours.StepLR(LR, 3)], [4]), ValueError),
        (lambda: ours.SequentialLR([ours.ReduceLROnPlateau(LR)], []), ValueError),
        (lambda: ours.SequentialLR([lambda count: 0.1], []), TypeError),
        (lambda: ours.ChainedScheduler([]), ValueError),
        (lambda: ours.ChainedScheduler([ours.StepLR(LR, 3), ours.CosineAnnealingLR(LR, 5, 0.1)]), ValueError),
        (lambda: ours.ReduceLROnPlateau(LR, factor=1.0), ValueError),
        (lambda: ours.ReduceLROnPlateau(LR, "least"), ValueError),
        (lambda: ours.CyclicLR(0.1, 0.2, cycle_momentum=False).momentum, ValueError),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(make: Callable[[], Any], error: type[Exception]):
    with pytest.raises(error):
        make()


def test_a_schedule_prints_in_place_of_the_learning_rate():
    assert "    lr: StepLR(lr=0.1, step_size=30, gamma=0.5, last_epoch=-1)\n" in str(
        optim.SGD(lr=ours.StepLR(0.1, 30, 0.5))
    )
