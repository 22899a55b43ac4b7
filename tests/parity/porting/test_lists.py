"""Modules that are given lists of arrays."""

import re

import jax.numpy as jnp
import numpy as np
import torch

from parity.porting import port

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


class DenseLayer(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.conv = torch.nn.BatchNorm2d(width), torch.nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, features):
        joined = torch.cat(features, dim=1)
        return self.conv(self.norm(joined)) + joined.mean(dim=1, keepdim=True)


class DenseBlock(torch.nn.ModuleDict):
    def __init__(self, depth):
        super().__init__({f"layer{i}": DenseLayer(3 + 2 * i) for i in range(depth)})

    def forward(self, x):
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, dim=1)


class Difference(torch.nn.Module):
    def forward(self, pair):
        return torch.cat(pair, dim=1) * (pair[0] - pair[1]).mean()


class Differences(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.difference = Difference()

    def forward(self, x):
        return self.difference([x, x.sin()])


def ported(module):
    written = port(module.eval(), X)
    with torch.no_grad():
        np.testing.assert_allclose(written.module(jnp.asarray(X.numpy())), module(X), 1e-4, 1e-5)
    return written.source


def test_layers_that_join_what_they_are_given_are_of_one_class():
    source = ported(DenseBlock(3))
    assert re.findall(r"^class (\w+)", source, re.MULTILINE) == ["DenseLayer", "DenseBlock"]
    assert "jnp.concatenate(features, axis=1)" in source
    assert source.endswith(
        """
        features = [x]
        features.append(self.layer0(features))
        features.append(self.layer1(features))
        features.append(self.layer2(features))
        return jnp.concatenate(features, axis=1)
"""
    )


class ListedBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([DenseLayer(3), DenseLayer(5), DenseLayer(7)])

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return features[-1] * features[1]


def test_a_growing_list_that_members_of_a_list_are_given_is_a_loop():
    source = ported(ListedBlock())
    assert "for layer in self.layers[:2]:\n            features.append(layer(features))" in source
    assert source.endswith("return self.layers[2](features) * features[1]\n")


def test_of_a_list_that_is_not_joined_as_a_whole_each_entry_is_an_argument():
    assert "pair_0, pair_1" in ported(Differences())
