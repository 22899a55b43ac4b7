"""Modules that are alike become one class of the port, whose arguments are what they differ in."""

import re

import jax.numpy as jnp
import numpy as np
import torch

from parity.porting import port

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def ported(module, x):
    """The port, held against the model's output on a batch of another size."""
    written = port(module.eval(), x)
    x = torch.cat([x, x[:1]])
    with torch.no_grad():
        np.testing.assert_allclose(written.module(jnp.asarray(x.numpy())), module(x), 1e-4, 1e-5)
    return written.source


def classes(source):
    return re.findall(r"^class (\w+)", source, re.MULTILINE)


class ConvNorm(torch.nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__()
        self.conv = torch.nn.Conv2d(*args, bias=False, **kwargs)
        self.norm = torch.nn.BatchNorm2d(self.conv.out_channels)

    def forward(self, x):
        return self.norm(self.conv(x))


class Branches(torch.nn.Module):
    """Two convolutions, the stride of the first its own."""

    def __init__(self, width, stride):
        super().__init__()
        self.wide = ConvNorm(width, width, 3, padding=1, stride=stride)
        self.narrow = ConvNorm(width, width, 1, stride=stride)

    def forward(self, x):
        return self.wide(x) + self.narrow(x)


def test_layers_that_differ_in_arguments_with_defaults_are_of_one_class():
    stem = ConvNorm(3, 8, 3, stride=2, padding=1)
    source = ported(torch.nn.Sequential(stem, ConvNorm(8, 8, 3, padding=1, groups=8), ConvNorm(8, 4, 1)), IMAGES)
    assert classes(source) == ["ConvNorm", "Model"]
    assert "in_channels, out_channels, kernel_size, stride=1, padding=0, groups=1, *, rngs" in source
    assert "ConvNorm(3, 8, 3, stride=2, padding=1, rngs=rngs)" in source
    assert "ConvNorm(8, 4, 1, rngs=rngs)" in source


def test_an_argument_with_a_default_is_passed_on_with_it():
    source = ported(torch.nn.Sequential(Branches(3, 1), Branches(3, 2)), IMAGES)
    assert classes(source) == ["ConvNorm", "Branches", "Model"]
    assert "super().__init__(Branches(rngs=rngs), Branches(stride=2, rngs=rngs))" in source


class Shortcut(torch.nn.Module):
    """A layer beside which there may be another."""

    def __init__(self, width, out):
        super().__init__()
        self.layer = torch.nn.Linear(width, out)
        self.project = torch.nn.Linear(width, out, bias=False) if width != out else None

    def forward(self, x):
        return self.layer(x) - 2 * ((x if self.project is None else self.project(x)) + 1)


def test_a_child_that_some_do_without_and_a_call_that_none_makes_are_no_reason_for_another_class():
    model = torch.nn.Sequential(Shortcut(8, 8), Shortcut(8, 16), Shortcut(16, 16))
    model[0].spare = Shortcut(16, 8)
    source = ported(model, IMAGES[:, 0])
    assert classes(source) == ["Shortcut", "Shortcut2", "Model"]  # the first has another child besides
    assert "return self.layer(x) - (self.project(x) + 1) * 2" in source
    assert "self.project = nn.Linear(in_features, out_features, bias=False, rngs=rngs)" in source
    assert "Shortcut(8, 16, project=True, rngs=rngs), Shortcut(16, 16, rngs=rngs)" in source


def test_layers_with_a_parametrization_are_of_one_class_though_torch_makes_one_for_each():
    normed = [torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(a, b)) for a, b in ((8, 4), (4, 2))]
    source = port(torch.nn.Sequential(*normed), IMAGES[:, 0], verify=False).source
    assert "super().__init__(ParametrizedLinear(4, 8), ParametrizedLinear(2, 4))" in source


class Heads(torch.nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def forward(self, x):
        batch, channels = x.shape
        rows = x.reshape(batch * self.heads, channels // self.heads)
        return (rows - rows.mean(dim=1, keepdim=True) + batch * self.heads).reshape(batch, channels)


def test_numbers_in_sizes_are_arguments_too():
    source = ported(torch.nn.Sequential(Heads(2), Heads(4)), IMAGES.flatten(1)[:, :8])
    assert classes(source) == ["Heads", "Model"]


class PaddedConv(torch.nn.Conv2d):
    """Pads by itself, with an attribute of the layer's own name for it."""

    def __init__(self, *args, border, **kwargs):
        super().__init__(*args, **kwargs)
        self.border = border

    def forward(self, x):
        x = torch.nn.functional.pad(x, (0, self.border, 0, self.border))
        x = torch.nn.functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return x * self.border


def test_what_a_derived_class_keeps_is_no_attribute_of_the_layer():
    source = ported(torch.nn.Sequential(PaddedConv(3, 4, 3, border=1), PaddedConv(4, 2, 3, stride=2, border=2)), IMAGES)
    assert classes(source) == ["PaddedConv", "Model"]
    assert "nn.Conv2d" in source


class StageV3(torch.nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(depth))

    def forward(self, x):
        x = torch.nn.functional.pad(x, (0, 0))
        for layer in self.layers:
            x = x * layer(x)
        return x


def test_the_number_of_a_class_is_told_from_the_digits_of_its_name():
    source = ported(torch.nn.Sequential(StageV3(1), StageV3(2)), IMAGES.flatten(1)[:, :8])
    assert classes(source) == ["StageV3", "StageV3_2", "Model"]
    assert "F.pad" not in source  # by nothing


class Biased(torch.nn.Module):
    """Attention that hands its logits on, as the bias of the next."""

    def __init__(self):
        super().__init__()
        self.qk, self.v = torch.nn.Linear(8, 16), torch.nn.Linear(8, 8)

    def forward(self, x, bias):
        q, k = self.qk(x).chunk(2, -1)
        logits = q @ k.mT + bias
        return x + logits.softmax(-1) @ self.v(x), logits


class Biases(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Biased() for _ in range(3)])
        self.last = Biased()

    def forward(self, x):
        logits = x.mean() * torch.ones(8, 8)
        for block in self.blocks:
            x, logits = block(x, logits)
        return self.last(x, logits.sigmoid())[0]


def test_modules_of_which_one_result_is_not_read_are_of_one_class():
    source = ported(Biases(), IMAGES[:, 0])
    assert classes(source) == ["Biased", "Biases"]
    assert "for block in self.blocks:\n            x, logits = block(x, logits)" in source


class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.score = torch.nn.Linear(8, 8)

    def forward(self, x):
        weights = self.score(x).softmax(-1)
        return x * weights, weights


class Gated(Weighted):
    def forward(self, x):
        weights = self.score(x).sigmoid()
        return x + weights, weights


class Around(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class Read(torch.nn.Module):
    """The weights of the one are read, those of the other are not."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Around(Weighted()), Around(Gated())

    def forward(self, x):
        x, weights = self.first(x)
        return self.second(x)[0] * weights


def test_what_a_module_gives_back_is_handed_up_from_the_one_that_makes_it():
    assert ported(Read(), IMAGES[:, 0]).count("return self.inner(x)\n") == 2


def test_a_chain_may_hold_a_module_twice():
    tied = torch.nn.Linear(4, 4)
    model = torch.nn.Sequential(tied, torch.nn.ReLU(), torch.nn.Sequential(tied, torch.nn.Tanh()))
    assert ported(model, torch.randn(2, 4)).count("nn.Linear") == 1


class Dropping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.query = torch.nn.Linear(4, 4)

    def forward(self, x):
        query = self.query(x)
        rate = 0.1 if self.training else 0.0
        return torch.nn.functional.scaled_dot_product_attention(query, query, query, dropout_p=rate)


class Spare(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = Dropping(), Dropping()

    def forward(self, x):
        return self.used(x)


def test_a_module_that_is_never_called_has_the_state_that_its_class_needs_for_calls():
    source = port(Spare().eval(), torch.randn(2, 3, 4)).source
    assert "self.used = Dropping(rngs=rngs)" in source
    assert "self.spare = Dropping(rngs=rngs)" in source
