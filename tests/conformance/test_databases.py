"""PyTorch's databases: a stride of them by default, all of them under ``slow``."""

import pytest
import torch

from parity.conformance import databases
from parity.conformance.operators import samples

OPERATORS, MODULES = databases()["operators"], databases()["modules"]


def work(database):
    """A parameter for each entry and dtype."""
    return [
        pytest.param(entry, dtype, id=f"{database.name(entry)}-{str(dtype).removeprefix('torch.')}")
        for entry in database.entries()
        for dtype in sorted(database.dtypes(entry), key=str)
    ]


def some(database):
    """Every second of these: neighbours have both dtypes between them."""
    return [x for i, x in enumerate(work(database)) if (i + i // 2) % 2 == 0]


@pytest.mark.parametrize(("entry", "dtype"), some(OPERATORS))
def test_a_stride_of_operator_samples_and_all_error_inputs(entry, dtype):
    count = sum(1 for _ in samples(entry, dtype))
    result = OPERATORS.run(entry, dtype, stride=max(1, count // (2 if dtype == torch.float32 else 1)))
    assert result.passed, "\n".join(result.failures)


@pytest.mark.parametrize(("entry", "dtype"), some(MODULES))
def test_a_stride_of_layers_and_all_error_inputs(entry, dtype):
    arguments = {"device": "cpu", "dtype": dtype, "requires_grad": False, "training": False}
    count = len(entry.module_inputs_func(entry, **arguments))
    result = MODULES.run(entry, dtype, stride=max(1, count))
    assert result.passed, "\n".join(result.failures)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("entry", "dtype"), work(OPERATORS))
def test_every_operator_sample(entry, dtype, seed):
    result = OPERATORS.run(entry, dtype, seed=seed)
    assert result.passed, "\n".join(result.failures)


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "dtype"), work(MODULES))
def test_every_layer(entry, dtype):
    result = MODULES.run(entry, dtype)
    assert result.passed, "\n".join(result.failures)


def test_a_seed_says_what_is_drawn_whichever_samples_are_run():
    entry = next(entry for entry in OPERATORS.entries() if OPERATORS.name(entry) == "softplus")
    first, again, other = (dict(samples(entry, torch.float32, seed)) for seed in (1, 1, 2))
    torch.rand(5)
    last = dict(samples(entry, torch.float32, 1))
    assert first.keys() == other.keys()
    assert all(torch.equal(first[i].input, x.input) for i, x in [*again.items(), *last.items()])
    assert not any(torch.equal(x.input, other[i].input) for i, x in first.items() if x.input.numel())


def test_a_gradient_that_torch_makes_zero_may_be_what_rounding_leaves():
    entry = next(entry for entry in OPERATORS.entries() if OPERATORS.name(entry) == "rms_norm")
    result = OPERATORS.run(entry, torch.float32, stride=6, offset=2, seed=12)  # one number, divided by its size
    assert result.samples == 1
    assert result.passed, "\n".join(result.failures)
