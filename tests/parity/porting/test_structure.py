import re
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
from parity.porting import PortError, port
from parity.porting.source.formatting import wrapped


@dataclass
class Scores:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


torch.export.register_dataclass(Scores)


class Pair(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor


class Keyed(torch.nn.Module):
    """Returns dicts by other names than strings, in an order of its own."""

    def __init__(self, *keys):
        super().__init__()
        self.keys = keys

    def forward(self, x):
        more = defaultdict(list, {(1, "b"): [x], (1, "a"): []})
        return {key: x * (i + 1) for i, key in enumerate(self.keys)}, OrderedDict(more), more


def test_a_dict_in_the_result_has_the_keys_it_had():
    x = torch.arange(6.0).reshape(3, 2)
    first, *others = port(Keyed(7, 3), x).module(jnp.asarray(x.numpy()))
    assert list(first) == [7, 3]
    np.testing.assert_array_equal(first[3], 2 * x)
    assert [list(other) for other in others] == [[(1, "b"), (1, "a")]] * 2
    with pytest.raises(PortError, match="cannot sort"):
        port(Keyed(1, "a"), x)
    with pytest.raises(PortError, match="cannot be written"):
        port(Keyed(torch.Size([2])), x)


class Nested(torch.nn.Module):
    def forward(self, batch, scale, pair):
        y = batch["x"] * scale + pair.a - batch["y"]
        return Scores(y), {"z": [y, Pair(y, -y)], "n": None}


def test_results_and_arguments_keep_the_structure_they_had():
    x = torch.arange(6.0).reshape(3, 2)
    written = port(Nested(), ({"x": x, "y": x}, 2.0, Pair(x, x + 1))).module
    ours = jnp.asarray(x.numpy())
    first, second = written({"x": ours, "y": ours}, 2.0, Pair(ours, ours))
    assert type(first).__name__ == "Scores"
    assert first.loss is None
    assert type(second["z"][1])._fields == ("a", "b")
    assert second["n"] is None
    assert (first.logits == 2 * ours).all()


def test_another_value_of_a_constant_argument_is_refused():
    x = torch.ones(3, 2)
    written = port(Nested(), ({"x": x, "y": x}, 2.0, Pair(x, x)), verify=False).module
    ours = jnp.ones((3, 2))
    with pytest.raises(ValueError, match=re.escape("scale is fixed to 2.0, got 3.0")):
        written({"x": ours, "y": ours}, 3.0, Pair(ours, ours))


class Layer:
    def __init__(self, keys):
        self.keys = keys
        self.name = "layer"


class Cache:
    def __init__(self, layers):
        self.layers = layers
        self._seen = layers[0].keys.sum(-1)
        self.owner = self


class Other:
    def __init__(self, held):
        self.held = held


class Registered:
    def __init__(self, mean, deviation):
        self.mean = mean
        self.deviation = deviation


torch.utils._pytree.register_pytree_node(
    Registered, lambda x: ([x.mean, x.deviation], None), lambda parts, _: Registered(*parts)
)


class Remembering(torch.nn.Module):
    def forward(self, x):
        layers = [Layer(2 * x), Layer(3 * x), Layer(None), Other(Registered(x, x)), Other(Layer(x))]
        return {"y": x + 1, "cache": Cache(layers), "spread": Registered(x - 1, x - 2)}


def test_objects_in_a_result_are_the_arrays_they_hold_with_a_note():
    written = port(Remembering(), (torch.ones(3, 2),))
    assert [note.split()[0] for note in written.notes] == ["Registered", "Layer", "Other", "Cache"]
    for line in ("    keys: jax.Array | None", "    held: Any", "    layers: list[Any]", "    seen: jax.Array"):
        assert f"{line}\n" in written.source
    ours = jnp.arange(8.0).reshape(4, 2)
    result = written.module(ours)
    cache = result["cache"]
    assert (type(cache).__name__, cache._fields) == ("Cache", ("layers", "seen"))
    assert (cache.layers[1].keys == 3 * ours).all()
    assert (cache.seen == 2 * ours.sum(-1)).all()
    assert (result["spread"][1] == ours - 2).all()
    assert parity.check(Remembering(), written.module, torch.ones(3, 2)).passed


class Shared(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.utils.weight_norm(torch.nn.Linear(4, 4))
        self.net = torch.nn.Sequential(self.first, torch.nn.ReLU(), self.first)

    def forward(self, x):
        return self.net(x)


@pytest.mark.filterwarnings("ignore")
def test_a_module_in_a_list_and_under_a_name_is_one():
    written = port(Shared(), (torch.ones(3, 4),))
    assert written.module.net[0] is written.module.first


class Repeated(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x] * x.shape[0])


def test_a_batch_size_used_as_a_python_number_is_noted():
    assert "sizes are fixed" in port(Repeated(), (torch.ones(3, 4),)).notes[0]


OPERATORS = {
    "aliases": lambda x: torch.multiply(x, x) + torch.subtract(x, 1),
    "order": lambda x: (x.kthvalue(2, 1), x.median(1), x.median(), x.topk(2, 1, largest=False), x.topk(2, 0)),
    "running sums of small integers": lambda x: [
        (90 * x.abs()).to(kind).cumsum(0) for kind in (torch.uint8, torch.bool)
    ],
    "running extremes": lambda x: (x.cummax(1), x.cummin(0)),
    "scatter": lambda x: tuple(
        torch.ones_like(x).scatter_reduce(1, (x > 0).long(), x, how, include_self=own)
        for how in ("sum", "mean", "amax", "prod")
        for own in (True, False)
    ),
    "strided": lambda x: (x.as_strided((2, 3), (1, 2), 1), x.T.as_strided((2, 3), (1, 2), 1)),
    "spectrum": lambda x: torch.stft(
        x.reshape(-1), 8, 4, window=torch.hann_window(6), win_length=6, return_complex=True
    ).abs(),
    "determinant": lambda x: torch.logdet(x[:3, :3] @ x[:3, :3].T + torch.eye(3)),
    "zeroed": lambda x: (y := x.clone(), y[0].zero_(), y + 1)[2],
}


@pytest.mark.parametrize("name", list(OPERATORS))
def test_an_operator_does_what_torchs_does(name):
    class Model(torch.nn.Module):
        def forward(self, x):
            return OPERATORS[name](x)

    port(Model(), (torch.randn(4, 5, generator=torch.Generator().manual_seed(0)),))


class Orders(torch.nn.Module):
    def forward(self, x):
        return x.median(1).values, x.cummax(1).values, x.cummin(0).values


def test_a_median_and_running_extremes_are_nan_where_the_data_are():
    x = torch.arange(20.0).reshape(4, 5) % 7
    written = port(Orders(), x).module
    x[1, 2] = torch.nan
    for ours, theirs in zip(written(jnp.asarray(x.numpy())), Orders()(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_line_is_broken_in_its_long_bracket_and_not_in_a_short_one_behind_it():
    arguments = [f"argument_number_{i}" for i in range(10)]
    lines = [f"    {argument}," for argument in arguments]
    assert wrapped(f"y = f({', '.join(arguments)})[0]", 0).split("\n") == ["y = f(", *lines, ")[0]"]
    assert wrapped(f"y = f(x)({', '.join(arguments)})", 0).split("\n") == ["y = f(x)(", *lines, ")"]


def test_breaking_a_line_changes_no_meaning():
    value = "first_name_of_something + " * 5 + "1"
    said = "refused for f(x) and for (" + "f(y), " * 20 + "g(z))"
    for line in (f"f('{said}', {value})", f"f('{said}')", f"({value}).mT", f"x[{value}]", f'f("a, b", {value})'):
        assert eval(f"lambda: {wrapped(line, 0)}").__code__.co_code == eval(f"lambda: {line}").__code__.co_code
