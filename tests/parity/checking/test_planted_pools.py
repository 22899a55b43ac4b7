"""Pooling whose windows are not torch's."""

import jax.numpy as jnp
import pytest
import torch

import parity
from jaxnn import functional as F

SLIPS = {
    "reversed along axes 2, 3": lambda x: F.max_pool2d(x[:, :, ::-1, ::-1], 3, 2),
    "reversed along axis 3": lambda x: F.max_pool2d(x[..., ::-1], 3, 2),
    "as if [(-1, 0), (-1, 0)]": lambda x: F.max_pool2d(x[:, :, 1:, 1:], 3, 2),
    "and the output turned back": lambda x: F.max_pool2d(x[:, :, ::-1, ::-1], 3, 2)[:, :, ::-1, ::-1],
    "as if [(0, 0), (1, -1)]": lambda x: F.max_pool2d(
        jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 0)), constant_values=-jnp.inf), 3, 2
    )[..., :4],
    "it takes the minimum": lambda x: -F.max_pool2d(-x, 3, 2),
    "kernel_size is as if 2": lambda x: F.max_pool2d(x, 2, 2)[..., :4, :4],
}


@pytest.mark.parametrize("said", SLIPS)
def test_other_windows_are_named(said):
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.MaxPool2d(3, 2))
    ours = parity.mirror(theirs)
    ours[1].__class__ = type("MaxPool2d", (type(ours[1]),), {"__call__": lambda self, x: SLIPS[said](x)})
    (found,) = parity.check(theirs, ours, torch.randn(2, 1, 10, 10), gradients=False).faults
    assert found.path == "1"
    assert said in found.reason, found
