"""``flex_attention``, whose scores and masks are functions of places."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import parity


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


def test_scores_and_masks_are_arrays_in_the_port(monkeypatch):
    # Torch compiles it else, which takes half a minute.
    monkeypatch.setattr("torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    torch.manual_seed(0)
    model, x = Windowed(), torch.randn(3, 6, 4)
    with jax.numpy_dtype_promotion("standard"), torch.no_grad():
        port = parity.port(model, (torch.randn(2, 6, 4),))
        np.testing.assert_allclose(port.module(jnp.asarray(x)), model(x), atol=1e-5)
