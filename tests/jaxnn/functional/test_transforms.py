"""What every function does under jit and vmap, in bfloat16 and on numpy arrays, on samples of PyTorch's database."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.utils import _pytree as torch_tree

from jaxnn import functional
from parity.arrays import to_numpy
from parity.comparison import compare
from parity.conformance.operators import call_of, entry_name, functional_entries, random_key, samples
from parity.mirroring import counterpart
from parity.replay import Draws, replayed

ENTRIES = {entry_name(entry): entry for entry in functional_entries() if torch.float32 in entry.supported_dtypes("cpu")}

RANDOM = re.compile("dropout|rrelu|fractional|multi_head_attention_forward")
"""They draw: one mask for each example under vmap."""

BFLOAT16_FLOOR = 8.0
"""Epsilons always allowed: samples are small, and torch's own error in bfloat16 is often zero by luck."""


def sample_of(entry, dtype=torch.float32):
    """The second sample, which sets more options than the first."""
    first, *second = (sample for _, sample in itertools.islice(samples(entry, dtype), 2))
    return second[0] if second else first


def calls(entry):
    """jaxnn's function of the sample's floating-point arrays, and those arrays."""
    function = getattr(functional, entry.name.removeprefix("nn.functional."))
    leaves, spec = torch_tree.tree_flatten(call_of(entry, sample_of(entry)))
    values = [counterpart(x) for x in leaves]
    varied = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim]

    def call(*arrays):
        merged = list(values)
        for i, x in zip(varied, arrays, strict=True):
            merged[i] = x
        args, kwargs = torch_tree.tree_unflatten(merged, spec)
        return [x for x in jax.tree.leaves(function(*args, **kwargs)) if isinstance(x, jax.Array)]

    return call, [np.asarray(values[i]) for i in varied]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in ENTRIES if not RANDOM.search(name)])
def test_jit_and_vmap_change_nothing_and_numpy_arrays_are_taken(name):
    call, arrays = calls(ENTRIES[name])
    expected = call(*arrays)
    assert_same(jax.jit(call)(*arrays), expected)
    if arrays:
        other = [x[::-1].copy() if x.ndim == 1 else x * 0.5 + 0.25 * (x > 0) for x in arrays]
        stacked = [np.stack(pair) for pair in zip(arrays, other, strict=True)]
        both = jax.vmap(call)(*(jnp.asarray(x) for x in stacked))
        assert_same([x[0] for x in both], expected)
        assert all(x.shape[0] == 2 for x in both)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name for name, entry in ENTRIES.items() if torch.bfloat16 in entry.supported_dtypes("cpu")]
)
def test_bfloat16_is_as_near_to_float64_as_torchs(name):
    entry = ENTRIES[name]
    function = getattr(functional, entry.name.removeprefix("nn.functional."))
    sample = sample_of(entry, torch.bfloat16)
    exact = torch_tree.tree_map_only(
        torch.Tensor,
        lambda x: x.double() if x.is_floating_point() else x,
        ((sample.input, *sample.args), sample.kwargs),
    )
    with Draws() as draws:
        theirs = entry.op(sample.input, *sample.args, **sample.kwargs)
    with Draws(draws.recorded):
        truth = entry.op(*exact[0], **exact[1])
    with jax.enable_x64(True):
        args, kwargs = torch_tree.tree_map(counterpart, call_of(entry, sample))
    if draws.recorded:
        kwargs |= random_key(function)
    with replayed(draws.recorded), jax.enable_x64(True):
        ours = function(*args, **kwargs)
    for a, b, t in zip(
        jax.tree.leaves(ours), torch_tree.tree_leaves(theirs), torch_tree.tree_leaves(truth), strict=True
    ):
        if isinstance(b, torch.Tensor) and b.is_floating_point():
            row = compare(name, np.asarray(a), to_numpy(b), to_numpy(t), floor=BFLOAT16_FLOOR)
            assert row.passed, row.reason
