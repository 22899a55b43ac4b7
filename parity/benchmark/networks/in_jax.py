"""The networks with ``jaxnn.nn``."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

import jaxnn.functional as F
from jaxnn import nn
from parity.benchmark.networks.in_torch import MOBILE_BLOCKS


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False, rngs=rngs)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False, rngs=rngs)
        self.bn2 = nn.BatchNorm2d(outputs)
        plain = stride == 1 and inputs == outputs
        self.downsample = (
            nn.Identity()
            if plain
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False, rngs=rngs), nn.BatchNorm2d(outputs))
        )

    def __call__(self, x: Array) -> Array:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet18(nn.Module):
    """He et al. (2015)."""

    def __init__(self, classes: int = 1000, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False, rngs=rngs)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        widths += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = nn.Sequential(*(BasicBlock(*width, rngs=rngs) for width in widths))
        self.fc = nn.Linear(512, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        pooled = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.blocks(pooled).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Channels weighed by what the whole image holds."""

    def __init__(self, channels: int, squeezed: int, *, rngs: nnx.Rngs) -> None:
        self.fc1 = nn.Conv2d(channels, squeezed, 1, rngs=rngs)
        self.fc2 = nn.Conv2d(squeezed, channels, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        scale = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdims=True))))
        return x * F.hardsigmoid(scale)


class InvertedResidual(nn.Module):
    """Widened, filtered channel by channel, and narrowed again."""

    def __init__(
        self,
        inputs: int,
        kernel: int,
        widened: int,
        outputs: int,
        squeeze: int,
        hard: bool,
        stride: int,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.expand = nn.Conv2d(inputs, widened, 1, bias=False, rngs=rngs)
        self.bn1 = nn.BatchNorm2d(widened, eps=0.001, momentum=0.01)
        self.depthwise = nn.Conv2d(widened, widened, kernel, stride, kernel // 2, groups=widened, bias=False, rngs=rngs)
        self.bn2 = nn.BatchNorm2d(widened, eps=0.001, momentum=0.01)
        self.se = SqueezeExcite(widened, squeeze, rngs=rngs) if squeeze else nn.Identity()
        self.project = nn.Conv2d(widened, outputs, 1, bias=False, rngs=rngs)
        self.bn3 = nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01)
        self.activation = nn.Hardswish() if hard else nn.ReLU()
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: Array) -> Array:
        y = self.activation(self.bn1(self.expand(x)))
        y = self.se(self.activation(self.bn2(self.depthwise(y))))
        y = self.bn3(self.project(y))
        return x + y if self.residual else y


class MobileNetV3(nn.Module):
    """The small one of Howard et al. (2019)."""

    def __init__(self, classes: int = 1000, *, rngs: nnx.Rngs) -> None:
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False, rngs=rngs)
        self.bn1 = nn.BatchNorm2d(16, eps=0.001, momentum=0.01)
        self.blocks = nn.Sequential(*(InvertedResidual(*block, rngs=rngs) for block in MOBILE_BLOCKS))
        self.head = nn.Conv2d(96, 576, 1, bias=False, rngs=rngs)
        self.bn2 = nn.BatchNorm2d(576, eps=0.001, momentum=0.01)
        self.fc1 = nn.Linear(576, 1024, rngs=rngs)
        self.fc2 = nn.Linear(1024, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.blocks(F.hardswish(self.bn1(self.stem(x))))
        x = F.hardswish(self.bn2(self.head(x))).mean((2, 3))
        return self.fc2(F.hardswish(self.fc1(x)))


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of an image."""

    def __call__(self, input: Any) -> Array:
        return super().__call__(input.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """A wide filter for each channel, then two linear maps of the channels."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width, rngs=rngs)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width, rngs=rngs)
        self.pwconv2 = nn.Linear(4 * width, width, rngs=rngs)
        self.gamma = nnx.Param(jnp.full((width,), 1e-6))

    def __call__(self, x: Array) -> Array:
        y = self.norm(self.dwconv(x).transpose(0, 2, 3, 1))
        y = self.gamma[...] * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.transpose(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """ConvNeXt-atto, after Liu et al. (2022)."""

    def __init__(self, classes: int = 1000, *, rngs: nnx.Rngs) -> None:
        widths, depths = (40, 80, 160, 320), (2, 2, 6, 2)
        stages: list[nnx.Module] = [nn.Conv2d(3, widths[0], 4, 4, rngs=rngs), LayerNorm2d(widths[0], eps=1e-6)]
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if i:
                stages += [LayerNorm2d(widths[i - 1], eps=1e-6), nn.Conv2d(widths[i - 1], width, 2, 2, rngs=rngs)]
            stages += [ConvNeXtBlock(width, rngs=rngs) for _ in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.head(self.norm(self.stages(x).mean((2, 3))))


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, width: int, heads: int, causal: bool, *, rngs: nnx.Rngs) -> None:
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width, rngs=rngs)
        self.proj = nn.Linear(width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.swapaxes(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """A transformer's layer, normalized first."""

    def __init__(self, width: int, heads: int, causal: bool, *, rngs: nnx.Rngs) -> None:
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, causal, rngs=rngs)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width, rngs=rngs)
        self.fc2 = nn.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """ViT-tiny, after Dosovitskiy et al. (2020)."""

    def __init__(
        self, classes: int = 1000, width: int = 192, depth: int = 12, heads: int = 3, *, rngs: nnx.Rngs
    ) -> None:
        self.patch = nn.Conv2d(3, width, 16, 16, rngs=rngs)
        self.token = nnx.Param(jnp.zeros((1, 1, width)))
        self.position = nnx.Param(jnp.zeros((1, 197, width)))
        self.blocks = nn.Sequential(*(Block(width, heads, False, rngs=rngs) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.patch(x).reshape(x.shape[0], self.position.shape[2], -1).swapaxes(1, 2)
        x = jnp.concatenate([jnp.broadcast_to(self.token[...], (x.shape[0], 1, x.shape[2])), x], 1) + self.position[...]
        return self.head(self.norm(self.blocks(x))[:, 0])


class GPT2(nn.Module):
    """GPT-2 small, after Radford et al. (2019); the head shares the embedding's weight."""

    def __init__(
        self, vocabulary: int = 50257, width: int = 768, depth: int = 12, heads: int = 12, *, rngs: nnx.Rngs
    ) -> None:
        self.wte = nn.Embedding(vocabulary, width, rngs=rngs)
        self.wpe = nn.Embedding(1024, width, rngs=rngs)
        self.blocks = nn.Sequential(*(Block(width, heads, True, rngs=rngs) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def __call__(self, tokens: Array) -> Array:
        x = self.wte(tokens) + self.wpe(jnp.arange(tokens.shape[1]))
        return F.linear(self.norm(self.blocks(x)), self.wte.weight[...]).swapaxes(1, 2)


class Tagger(nn.Module):
    """A label for each word, by a bidirectional LSTM."""

    def __init__(
        self, vocabulary: int = 10000, width: int = 128, hidden: int = 256, labels: int = 20, *, rngs: nnx.Rngs
    ) -> None:
        self.embedding = nn.Embedding(vocabulary, width, rngs=rngs)
        self.lstm = nn.LSTM(width, hidden, 2, batch_first=True, bidirectional=True, rngs=rngs)
        self.head = nn.Linear(2 * hidden, labels, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(states).swapaxes(1, 2)


class Double(nn.Module):
    """Two normalized 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, rngs=rngs)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False, rngs=rngs)
        self.bn2 = nn.BatchNorm2d(outputs)

    def __call__(self, x: Any) -> Array:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class UNet(nn.Module):
    """A label for each pixel, after Ronneberger et al. (2015)."""

    def __init__(self, classes: int = 21, width: int = 32, *, rngs: nnx.Rngs) -> None:
        self.down1 = Double(3, width, rngs=rngs)
        self.down2 = Double(width, 2 * width, rngs=rngs)
        self.down3 = Double(2 * width, 4 * width, rngs=rngs)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2, rngs=rngs)
        self.merge2 = Double(4 * width, 2 * width, rngs=rngs)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2, rngs=rngs)
        self.merge1 = Double(2 * width, width, rngs=rngs)
        self.head = nn.Conv2d(width, classes, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        x = self.up2(self.down3(F.max_pool2d(b, 2)))
        x = self.up1(self.merge2(jnp.concatenate([x, b], 1)))
        return self.head(self.merge1(jnp.concatenate([x, a], 1)))
