"""Loops over lists of modules, which the graph holds unrolled."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import parity

WIDTH = 4


def linears(count: int = 3) -> nn.ModuleList:
    return nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(count)])


def source(model: nn.Module, *more: Tensor) -> str:
    """The last class's ``__call__``; a port that is wrong is refused."""
    torch.manual_seed(0)
    text = parity.port(model.eval(), (torch.randn(2, 3, WIDTH), *more)).source
    return text[text.rindex("def __call__") :]


class Zipped(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs, self.norms = linears(), nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(3)])

    def forward(self, x, edges):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(edges @ conv(x)))
        return x


def test_lists_gone_through_side_by_side_are_zipped():
    text = source(Zipped(), torch.randn(2, 3, 3))
    assert (
        "for conv, norm in zip(self.convs, self.norms, strict=True):\n            x = F.relu(norm(edges @ conv(x)))"
        in text
    )


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Tanh()]) for _ in range(3)])

    def forward(self, x):
        for first, second in self.layers:
            x = first(x) + x
            x = second(x) + x
        return x


def test_members_that_are_lists_themselves():
    text = source(Pairs())
    assert "for layer in self.layers:" in text
    assert "x = layer[0](x) + x" in text
    assert "x = layer[1](x) + x" in text


class Stages(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages, self.norms = nn.ModuleList(map(linears, (2, 3))), nn.ModuleList(map(nn.LayerNorm, (WIDTH, WIDTH)))

    def forward(self, x):
        for stage, norm in zip(self.stages, self.norms, strict=True):
            for layer in stage:
                x = layer(x)
            x = norm(x)
        return x


def test_stages_of_different_depth_are_a_loop_within_a_loop():
    text = source(Stages())
    assert "for stage, norm in zip(self.stages, self.norms, strict=True):\n            for layer in stage:" in text


class AllButLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = linears(4)

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < 3:
                x = F.relu(x)
        return x


def test_a_last_round_that_differs_stands_behind_the_loop():
    text = source(AllButLast())
    assert "for layer in self.layers[:3]:" in text
    assert "return self.layers[3](x)" in text


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(WIDTH, 3), linears()

    def forward(self, x):
        best = self.gate(x).argmax(-1)
        y = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            mask = best == i
            y[mask] = expert(x[mask])
        return y


def test_the_number_of_the_round_is_counted():
    text = source(Experts())
    assert "for i, expert in enumerate(self.experts):" in text
    assert "best == i" in text


class Crossed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = linears()

    def forward(self, x):
        start = x
        for layer in self.layers:
            x = start * layer(x) + x
        return x


def test_what_the_first_round_takes_may_be_read_by_all():
    text = source(Crossed())
    assert "for layer in self.layers:" in text


class Exchanged(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = linears(), linears()

    def forward(self, x, y):
        for first, second in zip(self.first, self.second, strict=True):
            x, y = first(x) + y, second(y) * x
        return x, y


def test_two_values_that_are_made_of_each_other_change_at_once():
    assert "x, y = " in source(Exchanged(), torch.randn(2, 3, WIDTH))


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = linears()


class SameNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Owner(), Owner()

    def forward(self, x):
        for first, second in zip(self.first.layers, self.second.layers, strict=True):
            x = F.relu(first(x)) * second(x)
        return x


def test_members_of_two_lists_of_one_name_have_two_names():
    assert "for layer, second_layer in zip(self.first.layers, self.second.layers, strict=True):" in source(SameNames())


class ReadAfter(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = linears()

    def forward(self, x):
        double = x * 2
        for layer in self.layers:
            x = F.relu(layer(x))
        return x + double


def test_what_is_made_of_the_first_value_and_read_behind_the_loop_stands_before_it():
    text = source(ReadAfter())
    assert text.index("double = x * 2") < text.index("for layer")


class Weights(nn.Module):
    def __init__(self):
        super().__init__()
        self.ws = nn.ParameterList([nn.Parameter(torch.randn(WIDTH, WIDTH)) for _ in range(3)])

    def forward(self, x):
        for w in self.ws:
            x = torch.tanh(x @ w)
        return x


def test_a_list_of_parameters():
    assert "for w in self.ws:\n            x = jnp.tanh(x @ w[...])" in source(Weights())


class Unequal(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.layers = kind, linears()

    def forward(self, x):
        seen = [x]
        for i, layer in enumerate(self.layers):
            if self.kind == "number":
                x = layer(x) * (i + 1)
            elif self.kind == "operator":
                x = torch.tanh(layer(x)) if i % 2 else torch.sigmoid(layer(x))
            elif self.kind == "order":
                x = F.relu(self.layers[2 - i](x))
            else:
                x = F.relu(layer(x)) + (seen[-2] if len(seen) > 1 else x)
            seen.append(x)
        return x


@pytest.mark.parametrize("kind", ["number", "operator", "order", "two back"])
def test_rounds_that_differ_are_no_loop(kind):
    assert "for " not in source(Unequal(kind))


class Aggregated(nn.Module):
    """As in VoVNet: the input and what every layer makes are joined."""

    def __init__(self):
        super().__init__()
        self.layers, self.last = linears(), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        outputs = [x]
        for layer in self.layers:
            x = F.relu(layer(x))
            outputs.append(x)
        return self.last(torch.cat(outputs, -1)) + x


def test_what_every_round_leaves_is_appended_to_a_list():
    text = source(Aggregated())
    assert "outputs = [x]\n        for layer in self.layers:\n            x = F.relu(layer(x))\n" in text
    assert "            outputs.append(x)\n        return self.last(jnp.concatenate(outputs, axis=-1)) + x" in text


class Cascaded(nn.Module):
    """As in Res2Net: every layer but the first is given its part of the input and what the one before has made."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])
        self.scale = nn.Parameter(torch.randn(3))

    def forward(self, x):
        parts = x.chunk(4, -1)
        made = []
        for i, layer in enumerate(self.layers):
            y = parts[i] if i == 0 else y + parts[i]  # noqa: F821
            y = torch.tanh(layer(y)) * self.scale[i]
            made.append(y)
        return torch.cat([*made, parts[3]], -1)


def test_a_first_round_that_differs_stands_before_the_loop_and_parts_of_a_value_are_gone_through():
    text = source(Cascaded())
    assert "for i, (layer, part) in enumerate(zip(self.layers[1:], parts[1:3], strict=True), 1):" in text
    assert "jnp.concatenate([*made, parts[3]], axis=-1)" in text


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.stages, self.norms = linears(), linears(), linears()

    def forward(self, x):
        xs = x.cumsum(-1)
        x = torch.stack([F.relu(head(xs)) for head in self.heads]).sum(0)
        features = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = F.relu(stage(x))
            features.append(norm(x))
        return features


def test_a_loop_that_fills_one_list_only_is_a_comprehension_and_a_list_may_be_the_result():
    text = source(Features())
    assert "xs_list = [F.relu(head(xs)) for head in self.heads]" in text  # which read what is called xs
    assert text.endswith("            features.append(norm(x))\n        return features\n")


class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = linears()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
            self.count += x.mean()
        return x


def test_a_buffer_that_every_round_writes_is_written_every_time():
    model = Buffered()
    x = torch.randn(2, 3, WIDTH)
    port = parity.port(model, (x,))
    with torch.no_grad():
        model.count.zero_()
        model(x)
    port.module.count.set_value(port.module.count[...] * 0)
    port.module(x.numpy())
    assert float(port.module.count[...]) == pytest.approx(float(model.count), rel=1e-5)


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.embeddings = linears(), nn.Parameter(torch.randn(3, WIDTH))

    def forward(self, x):
        i = torch.sin(x) + torch.cos(x) * torch.tanh(x) + torch.exp(-x.abs()) + x.abs().sqrt()
        for k, layer in enumerate(self.layers):
            x = F.relu(layer(x) + self.embeddings[k]) * i
        return x


def test_the_number_of_the_round_takes_no_name_that_every_round_reads():
    assert "for i_round, layer in enumerate(self.layers):" in source(Counted())


class Keyed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({str(i): nn.Linear(WIDTH, WIDTH) for i in range(3)})

    def forward(self, x):
        return self.layers["2"](self.layers["1"](self.layers["0"](x)))


def test_a_dict_whose_keys_are_numbers_is_one():
    assert 'self.layers["2"]' in source(Keyed())
