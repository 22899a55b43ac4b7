"""ViT, ported from PyTorch."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxnn import nn


class Attention(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.qkv = nn.Linear(16, 48, rngs=rngs)
        self.proj = nn.Linear(16, 16, rngs=rngs)
        self.drop = nn.Dropout(p=0.1, rngs=rngs)

    def __call__(self, x):
        qkv = self.qkv(x).reshape(-1, 17, 3, 2, 8).transpose(2, 0, 3, 1, 4)
        q, k, v = qkv
        x = self.drop(jax.nn.softmax(q @ k.mT * 0.3535533905932738)) @ v
        return self.proj(x.swapaxes(1, 2).reshape(-1, 17, 16))


class ViTBlock(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.norm1 = nn.LayerNorm(16, eps=1e-06)
        self.attn = Attention(rngs=rngs)
        self.norm2 = nn.LayerNorm(16, eps=1e-06)
        self.mlp = nn.Sequential(nn.Linear(16, 64, rngs=rngs), nn.GELU(), nn.Linear(64, 16, rngs=rngs))

    def __call__(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.cls_token = nnx.Param(jnp.zeros((1, 1, 16)))
        self.pos_embed = nnx.Param(jnp.zeros((1, 17, 16)))
        self.patch = nn.Conv2d(3, 16, 4, stride=4, rngs=rngs)
        self.blocks = nnx.List([ViTBlock(rngs=rngs) for _ in range(3)])
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        if x.shape[2:] != (16, 16):
            raise ValueError(f"x.shape[2:] is fixed to (16, 16), got {x.shape[2:]}")
        cls_token = jnp.broadcast_to(self.cls_token[...], (x.shape[0], 1, 16))
        x = jnp.concatenate([cls_token, self.patch(x).reshape(-1, 16, 16).mT], axis=1)
        x = x + self.pos_embed[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
