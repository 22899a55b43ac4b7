"""GPT, ported from PyTorch."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxnn import nn


class CausalSelfAttention(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.bias = nn.Buffer(jnp.zeros((1, 1, 12, 12)))
        self.c_attn = nn.Linear(16, 48, rngs=rngs)
        self.c_proj = nn.Linear(16, 16, rngs=rngs)
        self.dropout_2 = nn.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        q, k, v = jnp.split(self.c_attn(x), 3, axis=2)
        att = q.reshape(-1, 10, 2, 8).swapaxes(1, 2) @ k.reshape(-1, 10, 2, 8).swapaxes(1, 2).mT
        att = jnp.where(self.bias[..., :10, :10] == 0, -jnp.inf, att * 0.35355339059327373)
        y = jax.nn.softmax(att) @ v.reshape(-1, 10, 2, 8).swapaxes(1, 2)
        return self.dropout_2(self.c_proj(y.swapaxes(1, 2).reshape(-1, 10, 16)))


class GPTBlock(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.ln_1 = nn.LayerNorm(16)
        self.attn = CausalSelfAttention(rngs=rngs)
        self.ln_2 = nn.LayerNorm(16)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(16, 64, rngs=rngs),
                "c_proj": nn.Linear(64, 16, rngs=rngs),
                "act": nn.GELU(approximate="tanh"),
            },
        )

    def __call__(self, x):
        x = x + self.attn(self.ln_1(x))
        x2 = self.mlp["c_proj"](self.mlp["act"](self.mlp["c_fc"](self.ln_2(x))))
        return x + x2


class GPT(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(40, 16, rngs=rngs),
                "wpe": nn.Embedding(12, 16, rngs=rngs),
                "h": nnx.List([GPTBlock(rngs=rngs) for _ in range(3)]),
                "ln_f": nn.LayerNorm(16),
            },
        )
        self.lm_head = nn.Linear(16, 40, bias=False, rngs=rngs)
        self.lm_head.weight = self.transformer["wte"].weight

    def __call__(self, idx):
        if idx.shape[1] != 10:
            raise ValueError(f"idx.shape[1] is fixed to 10, got {idx.shape[1]}")
        x = self.transformer["wte"](idx) + self.transformer["wpe"](jnp.arange(10))
        for layer in self.transformer["h"]:
            x = layer(x)
        return self.lm_head(self.transformer["ln_f"](x))
