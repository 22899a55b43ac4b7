"""``flex_attention``, whose scores and masks are functions of places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import parity
from parity.arrays import to_jax


class Windowed(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(4, 8)
        self.kv = nn.Linear(4, 4)
        self.register_buffer("slopes", torch.tensor([0.5, 0.25, 0.1, 0.2]))

    def forward(self, x):
        heads = [part.unflatten(-1, (-1, 2)).transpose(1, 2) for part in (self.q(x), *self.kv(x)[..., None].unbind(-1))]
        key = value = heads[1]
        mask = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < 3), None, None, x.shape[1], x.shape[1], "cpu")

        def score(score, b, h, i, j):
            return score - self.slopes[h] * (i - j)

        changed = flex_attention(heads[0], key, value, score, mask, enable_gqa=True, scale=0.3)
        return changed + flex_attention(heads[0], key, value, block_mask=mask, enable_gqa=True)


class Documents(Windowed):
    """Attends within documents; what is in none attends to nothing."""

    def forward(self, x, document):
        q = k = v = self.q(x).unflatten(-1, (2, -1)).transpose(1, 2)

        def score(score, b, h, i, j):
            return torch.where((document[b, i] == document[b, j]) & (document[b, i] > 0), score, -torch.inf)

        scores = flex_attention(q, k, v, lambda score, b, h, i, j: score + self.slopes[h] * (i - j))
        return flex_attention(q, k, v, score) + scores


@pytest.fixture
def run(monkeypatch):
    # Torch compiles it else, which takes half a minute.
    monkeypatch.setattr("torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    torch.manual_seed(0)
    with jax.numpy_dtype_promotion("standard"), torch.no_grad():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_attend_to_nothing_are_zero_and_scores_are_in_single(run, dtype):
    model, x = Documents().to(dtype), torch.randn(2, 6, 4, dtype=dtype)
    model.slopes = model.slopes.float()
    document = torch.tensor([[1, 1, 2, 2, 0, 0], [1, 1, 1, 2, 2, 0]])
    ours = parity.port(model, (x, document)).module(to_jax(x), to_jax(document))
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    np.testing.assert_allclose(np.asarray(ours, np.float32), model(x, document).float(), tolerance, tolerance)


def test_scores_and_masks_are_arrays_in_the_port(run):
    model, x = Windowed(), torch.randn(3, 6, 4)
    port = parity.port(model, (torch.randn(2, 6, 4),))
    np.testing.assert_allclose(port.module(jnp.asarray(x)), model(x), atol=1e-5)
