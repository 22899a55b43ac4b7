"""The networks in torch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        plain = stride == 1 and inputs == outputs
        self.downsample = (
            nn.Identity()
            if plain
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet18(nn.Module):
    """He et al. (2015)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        widths += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = nn.Sequential(*(BasicBlock(*width) for width in widths))
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.blocks(x).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Channels weighed by what the whole image holds."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(scale)


class InvertedResidual(nn.Module):
    """Widened, filtered channel by channel, and narrowed again."""

    def __init__(
        self, inputs: int, kernel: int, widened: int, outputs: int, squeeze: int, hard: bool, stride: int
    ) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, widened, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widened, eps=0.001, momentum=0.01)
        self.depthwise = nn.Conv2d(widened, widened, kernel, stride, kernel // 2, groups=widened, bias=False)
        self.bn2 = nn.BatchNorm2d(widened, eps=0.001, momentum=0.01)
        self.se = SqueezeExcite(widened, squeeze) if squeeze else nn.Identity()
        self.project = nn.Conv2d(widened, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01)
        self.activation = nn.Hardswish() if hard else nn.ReLU()
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.expand(x)))
        y = self.se(self.activation(self.bn2(self.depthwise(y))))
        y = self.bn3(self.project(y))
        return x + y if self.residual else y


MOBILE_BLOCKS = [
    (16, 3, 16, 16, 8, False, 2),
    (16, 3, 72, 24, 0, False, 2),
    (24, 3, 88, 24, 0, False, 1),
    (24, 5, 96, 40, 24, True, 2),
    (40, 5, 240, 40, 64, True, 1),
    (40, 5, 240, 40, 64, True, 1),
    (40, 5, 120, 48, 32, True, 1),
    (48, 5, 144, 48, 40, True, 1),
    (48, 5, 288, 96, 72, True, 2),
    (96, 5, 576, 96, 144, True, 1),
    (96, 5, 576, 96, 144, True, 1),
]
"""Inputs, kernel, widened, outputs, squeezed, hard swish, stride of MobileNetV3's small blocks."""


class MobileNetV3(nn.Module):
    """The small one of Howard et al. (2019)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16, eps=0.001, momentum=0.01)
        self.blocks = nn.Sequential(*(InvertedResidual(*block) for block in MOBILE_BLOCKS))
        self.head = nn.Conv2d(96, 576, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(576, eps=0.001, momentum=0.01)
        self.fc1 = nn.Linear(576, 1024)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.hardswish(self.bn1(self.stem(x))))
        x = F.hardswish(self.bn2(self.head(x))).mean((2, 3))
        return self.fc2(F.hardswish(self.fc1(x)))


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of an image."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """A wide filter for each channel, then two linear maps of the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """ConvNeXt-atto, after Liu et al. (2022)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        widths, depths = (40, 80, 160, 320), (2, 2, 6, 2)
        stages: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), LayerNorm2d(widths[0], eps=1e-6)]
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if i:
                stages += [LayerNorm2d(widths[i - 1], eps=1e-6), nn.Conv2d(widths[i - 1], width, 2, 2)]
            stages += [ConvNeXtBlock(width) for _ in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x).mean((2, 3))))


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """A transformer's layer, normalized first."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, causal)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """ViT-tiny, after Dosovitskiy et al. (2020)."""

    def __init__(self, classes: int = 1000, width: int = 192, depth: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 197, width))
        self.blocks = nn.Sequential(*(Block(width, heads, False) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class GPT2(nn.Module):
    """GPT-2 small, after Radford et al. (2019); the head shares the embedding's weight."""

    def __init__(self, vocabulary: int = 50257, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(1024, width)
        self.blocks = nn.Sequential(*(Block(width, heads, True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        return F.linear(self.norm(self.blocks(x)), self.wte.weight).transpose(1, 2)


class Tagger(nn.Module):
    """A label for each word, by a bidirectional LSTM."""

    def __init__(self, vocabulary: int = 10000, width: int = 128, hidden: int = 256, labels: int = 20) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, hidden, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, labels)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(states).transpose(1, 2)


class Double(nn.Module):
    """Two normalized 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class UNet(nn.Module):
    """A label for each pixel, after Ronneberger et al. (2015)."""

    def __init__(self, classes: int = 21, width: int = 32) -> None:
        super().__init__()
        self.down1 = Double(3, width)
        self.down2 = Double(width, 2 * width)
        self.down3 = Double(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.merge2 = Double(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.merge1 = Double(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        x = self.up2(self.down3(F.max_pool2d(b, 2)))
        x = self.up1(self.merge2(torch.cat([x, b], 1)))
        return self.head(self.merge1(torch.cat([x, a], 1)))
