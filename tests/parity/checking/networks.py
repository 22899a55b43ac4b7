"""Four networks in torch and faithful ports of them, to plant faults in."""

import jax
import jax.numpy as jnp
import torch
from flax import nnx
from torch.nn import functional as TF

from jaxnn import functional as F
from jaxnn import nn
from parity import weights


class TorchConvNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.conv2 = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.bn2 = torch.nn.BatchNorm2d(8)
        self.pool = torch.nn.AvgPool2d(3, stride=1, padding=1)
        self.act = torch.nn.GELU()
        self.drop = torch.nn.Dropout(0.3)
        self.head = torch.nn.Linear(8 * 4 * 4, 5)

    def forward(self, x):
        x = self.act(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = self.pool(x)
        return self.head(self.drop(x.flatten(1)))


class ConvNet(nn.Module):
    def __init__(self, *, rngs):
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, rngs=rngs)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1, rngs=rngs)
        self.bn2 = nn.BatchNorm2d(8)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.act = nn.GELU()
        self.drop = nn.Dropout(0.3, rngs=rngs)
        self.head = nn.Linear(8 * 4 * 4, 5, rngs=rngs)

    def __call__(self, x):
        x = self.act(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.pool(x)
        return self.head(self.drop(x.reshape(x.shape[0], -1)))


class TorchTagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(20, 6)
        self.lstm = torch.nn.LSTM(6, 7, batch_first=True)
        self.norm = torch.nn.LayerNorm(7)
        self.head = torch.nn.Linear(7, 4)

    def forward(self, tokens):
        x, _ = self.lstm(self.embed(tokens))
        return TF.log_softmax(self.head(self.norm(x)), dim=-1)


class Tagger(nn.Module):
    def __init__(self, *, rngs):
        self.embed = nn.Embedding(20, 6, rngs=rngs)
        self.lstm = LSTM(6, 7, rngs=rngs)
        self.norm = nn.LayerNorm(7)
        self.head = nn.Linear(7, 4, rngs=rngs)

    def __call__(self, tokens):
        return F.log_softmax(self.head(self.norm(self.lstm(self.embed(tokens)))), dim=-1)


class LSTM(nnx.Module):
    """As a user writes it: a scan over time, and the output alone."""

    def __init__(self, inputs, hidden, *, rngs):
        init = nnx.initializers.normal(0.3)
        self.weight_ih_l0 = nnx.Param(init(rngs.params(), (4 * hidden, inputs)))
        self.weight_hh_l0 = nnx.Param(init(rngs.params(), (4 * hidden, hidden)))
        self.bias_ih_l0 = nnx.Param(jnp.zeros(4 * hidden))
        self.bias_hh_l0 = nnx.Param(jnp.zeros(4 * hidden))
        self.order = (0, 1, 2, 3)

    def __call__(self, x):
        size = self.weight_hh_l0.shape[1]

        def step(carry, x):
            h, c = carry
            z = x @ self.weight_ih_l0.T + self.bias_ih_l0 + h @ self.weight_hh_l0.T + self.bias_hh_l0
            gates = jnp.split(z, 4, axis=-1)
            i, f, g, o = (gates[k] for k in self.order)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((x.shape[0], size), x.dtype)
        return jax.lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))[1].swapaxes(0, 1)


class TorchBlock(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.proj = torch.nn.Linear(width, width)
        self.norm2 = torch.nn.LayerNorm(width)
        self.fc1 = torch.nn.Linear(width, 2 * width)
        self.fc2 = torch.nn.Linear(2 * width, width)
        self.heads = heads

    def forward(self, x, mask):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) / (d // self.heads) ** 0.5
        scores = scores.masked_fill(mask[:, None, None, :], float("-inf"))
        attended = torch.softmax(scores, dim=-1) @ v
        x = x + self.proj(attended.transpose(1, 2).reshape(b, t, d))
        return x + self.fc2(TF.gelu(self.fc1(self.norm2(x))))


class TorchEncoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(20, 8)
        self.position = torch.nn.Parameter(torch.randn(6, 8) * 0.5)
        self.blocks = torch.nn.ModuleList([TorchBlock(8, 2) for _ in range(3)])
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, tokens, mask):
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x).mean(1))


class Block(nn.Module):
    def __init__(self, width, heads, *, rngs):
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, rngs=rngs)
        self.proj = nn.Linear(width, width, rngs=rngs)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width, rngs=rngs)
        self.fc2 = nn.Linear(2 * width, width, rngs=rngs)
        self.heads = heads
        self.fault = ""

    def __call__(self, x, mask):
        b, t, d = x.shape
        q, k, v = jnp.transpose(self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, -1), (2, 0, 3, 1, 4))
        scores = (q @ jnp.swapaxes(k, -1, -2)) / (1.0 if self.fault == "scale" else (d // self.heads) ** 0.5)
        fill = -1.0 if self.fault == "masked value" else -jnp.inf
        scores = jnp.where(mask[:, None, None, :], fill, scores)
        attended = jax.nn.softmax(scores, axis=-2 if self.fault == "softmax axis" else -1) @ v
        attended = self.proj(jnp.swapaxes(attended, 1, 2).reshape(b, t, d))
        x = attended if self.fault == "residual" else x + attended
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), "tanh" if self.fault == "gelu" else "none"))


class Encoder(nn.Module):
    def __init__(self, *, rngs):
        self.embed = nn.Embedding(20, 8, rngs=rngs)
        self.position = nnx.Param(jnp.zeros((6, 8)))
        self.blocks = nnx.List([Block(8, 2, rngs=rngs) for _ in range(3)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3, rngs=rngs)

    def __call__(self, tokens, mask):
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(jnp.mean(self.norm(x), 1))


class TorchUNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = torch.nn.Conv2d(2, 4, 3, padding=1)
        self.norm1 = torch.nn.GroupNorm(2, 4)
        self.pool = torch.nn.MaxPool2d(3, 2, padding=1)
        self.down2 = torch.nn.Conv2d(4, 8, 3, padding=1)
        self.act = torch.nn.LeakyReLU(0.1)
        self.up = torch.nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.resize = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.out = torch.nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = self.act(self.norm1(self.down1(x)))
        x = self.up(self.act(self.down2(self.pool(skip))))
        return self.resize(self.out(torch.cat([skip, x], 1)))


class UNet(nn.Module):
    def __init__(self, *, rngs):
        self.down1 = nn.Conv2d(2, 4, 3, padding=1, rngs=rngs)
        self.norm1 = nn.GroupNorm(2, 4)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.down2 = nn.Conv2d(4, 8, 3, padding=1, rngs=rngs)
        self.act = nn.LeakyReLU(0.1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2, rngs=rngs)
        self.resize = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.out = nn.Conv2d(8, 2, 1, rngs=rngs)
        self.reverse = False

    def __call__(self, x):
        skip = self.act(self.norm1(self.down1(x)))
        x = self.up(self.act(self.down2(self.pool(skip))))
        return self.resize(self.out(jnp.concatenate([x, skip] if self.reverse else [skip, x], 1)))


def pair(name):
    """A network, its port with the same weights, and inputs."""
    torch.manual_seed(0)
    padding = torch.arange(6) >= torch.tensor([[6], [4], [3]])
    kinds = {
        "convnet": (TorchConvNet, ConvNet, lambda: torch.randn(4, 3, 8, 8)),
        "tagger": (TorchTagger, Tagger, lambda: torch.randint(0, 20, (3, 6))),
        "encoder": (TorchEncoder, Encoder, lambda: (torch.randint(0, 20, (3, 6)), padding)),
        "unet": (TorchUNet, UNet, lambda: torch.randn(2, 2, 8, 8)),
    }  # fmt: skip
    torch_kind, jax_kind, inputs = kinds[name]
    theirs, ours = torch_kind(), jax_kind(rngs=nnx.Rngs(0))
    with torch.no_grad():
        for tensor in (*theirs.parameters(), *theirs.buffers()):
            # As after training: norms that scale and shift, statistics that are not 0 and 1.
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(torch.rand(tensor.shape) * 0.4)
    nn.load_state_dict(ours, weights.load(theirs))
    return theirs, ours, inputs()
