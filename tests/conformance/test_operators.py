"""PyTorch's operator database: a stride of it by default, all of it under ``slow``."""

import pytest
import torch

from parity.conformance.operators import entry_name, functional_entries, pending, run_entry

WORK = list(pending(functional_entries(), [torch.float32, torch.float64]))
IDS = [f"{entry_name(entry)}-{str(dtype).removeprefix('torch.')}" for entry, dtype in WORK]


@pytest.mark.parametrize(("entry", "dtype"), WORK, ids=IDS)
def test_a_stride_of_samples_and_all_error_inputs(entry, dtype):
    count = sum(1 for _ in entry.sample_inputs("cpu", dtype))
    result = run_entry(entry, dtype, stride=max(1, count // (6 if dtype == torch.float32 else 2)))
    assert result.passed, "\n".join(result.failures)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("entry", "dtype"), WORK, ids=IDS)
def test_every_sample(entry, dtype, seed):
    result = run_entry(entry, dtype, seed=seed)
    assert result.passed, "\n".join(result.failures)
