"""ResNet18, ported from PyTorch."""

from flax import nnx

from jaxnn import nn


class BasicBlock(nnx.Module):
    def __init__(self, in_channels, out_channels, stride=1, downsample=False, *, rngs: nnx.Rngs):
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False, rngs=rngs)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False, rngs=rngs)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Identity()
        if downsample:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False, rngs=rngs),
                nn.BatchNorm2d(out_channels),
            )

    def __call__(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + self.downsample(x)
        return self.relu(out)


class ResNet18(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False, rngs=rngs)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(*(BasicBlock(8, 8, rngs=rngs) for _ in range(2)))
        self.layer2 = nn.Sequential(
            BasicBlock(8, 16, stride=2, downsample=True, rngs=rngs),
            BasicBlock(16, 16, rngs=rngs),
        )
        self.layer3 = nn.Sequential(
            BasicBlock(16, 32, stride=2, downsample=True, rngs=rngs),
            BasicBlock(32, 32, rngs=rngs),
        )
        self.layer4 = nn.Sequential(
            BasicBlock(32, 64, stride=2, downsample=True, rngs=rngs),
            BasicBlock(64, 64, rngs=rngs),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        x = self.avgpool(self.layer4(self.layer3(self.layer2(x)))).reshape(-1, 64)
        return self.fc(x)
