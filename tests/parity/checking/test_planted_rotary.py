"""Mistakes in attention with rotary embeddings: each is found in the layer, and named."""

import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import jaxnn.functional as F
import parity
from jaxnn import nn
from parity import weights


class TorchAttention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inputs, self.out = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)

    def turned(self, x):
        angle = torch.arange(6.0)[:, None] * 10000.0 ** (-torch.arange(4) / 4)
        a, b = x[..., :4], x[..., 4:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def forward(self, x):
        q, k, v = self.inputs(x).view(2, 6, 3, 2, 8).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(2, 6, 16))


class Attention(nnx.Module):
    def __init__(self, fault, *, rngs):
        self.fault = fault
        self.inputs, self.out = nn.Linear(16, 48, rngs=rngs), nn.Linear(16, 16, rngs=rngs)

    def turned(self, x):
        base = 500000.0 if self.fault == "base" else 10000.0
        angle = jnp.arange(6.0)[:, None] * base ** (-jnp.arange(4.0) / 4)
        cos, sin = jnp.cos(angle), jnp.sin(-angle if self.fault == "backwards" else angle)
        if self.fault == "neighbours":
            a, b = x[..., ::2], x[..., 1::2]
            return jnp.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape)
        a, b = jnp.split(x, 2, -1)
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def __call__(self, x):
        y = self.inputs(x)
        if self.fault == "split":
            q, k, v = jnp.transpose(y.reshape(2, 6, 2, 3, 8), (3, 0, 2, 1, 4))
        else:
            q, k, v = jnp.transpose(y.reshape(2, 6, 3, 2, 8), (2, 0, 3, 1, 4))
        q = q if self.fault == "both" else self.turned(q)
        k = k if self.fault in ("keys", "both") else self.turned(k)
        how = {"attn_mask": jnp.tril(jnp.ones((6, 6), bool), 1)} if self.fault == "mask" else {"is_causal": True}
        y = F.scaled_dot_product_attention(q, k, v, **how)
        return self.out(jnp.swapaxes(y, 1, 2).reshape(2, 6, 16))


NAMED = {
    "neighbours": ("rotary embedding", "neighbours in the last axis are turned together"),
    "base": ("rotary embedding", "as if 500000, torch's is 10000"),
    "backwards": ("rotary embedding", "turns backwards"),
    "keys": ("rotary embedding", "queries or keys are not turned"),
    "both": ("rotary embedding", "queries and keys are not turned"),
    "split": ("order", "torch's parts (3, 2, 8) stand as (1, 0, 2)"),
    "mask": ("mask", "off by one: a position sees the one ahead of it, too"),
}


def pair(fault):
    torch.manual_seed(0)
    theirs, ours = TorchAttention(), Attention(fault, rngs=nnx.Rngs(0))
    nn.load_state_dict(ours, weights.load(theirs))
    return theirs, ours, torch.randn(2, 6, 16)


def test_a_faithful_rotary_embedding_passes():
    assert parity.check(*pair("")).passed


@pytest.mark.parametrize("fault", NAMED)
def test_a_mistake_in_rotary_attention_is_named(fault):
    suspect, said = NAMED[fault]
    report = parity.check(*pair(fault), gradients=False)
    assert [found.path for found in report.faults] == [""]
    assert report.faults[0].suspect == suspect, report.faults
    assert said in report.faults[0].reason
