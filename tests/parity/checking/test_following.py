"""A faithful port is cleared in one pass of its own; what is not certainly right is looked at layer by layer."""

import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity import weights
from parity.checking import following, models
from tests.parity.checking.networks import pair


def layers(report):
    """What a report says of its layers, but for numbers that rounding changes."""
    return [(r.path, r.call, r.kind, r.depth, r.passed, r.layout, r.axes) for r in report.layers]


@pytest.fixture
def unlooked(monkeypatch):
    """Fails where the pass over the layers runs."""

    def refuse(*_):
        raise AssertionError("the port was not cleared")

    monkeypatch.setattr(models, "checked_layers", refuse)


@pytest.mark.parametrize("ahead", [following.AHEAD, 1])
@pytest.mark.parametrize("network", ["convnet", "tagger", "encoder", "unet"])
def test_a_faithful_port_is_cleared_without_a_second_pass(network, ahead, unlooked, monkeypatch):
    monkeypatch.setattr(following, "AHEAD", ahead)
    report = parity.check(*pair(network), gradients=False)
    assert report.passed, report


@pytest.mark.parametrize("network", ["convnet", "tagger", "encoder", "unet"])
def test_following_reports_the_layers_that_the_second_pass_reports(network, monkeypatch):
    theirs, ours, inputs = pair(network)
    followed = parity.check(theirs, ours, inputs, gradients=False)
    monkeypatch.setattr(following.Following, "cleared", lambda self: None)
    looked_at = parity.check(theirs, ours, inputs, gradients=False)
    assert layers(followed) == layers(looked_at)
    assert (followed.only_torch, followed.only_jax) == (looked_at.only_torch, looked_at.only_jax)


class TorchHidden(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(5, 4, max_norm=0.5)
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, places):
        y = self.second(self.first(self.table(places)) * 2)
        return y * 0


class Hidden(nn.Module):
    def __init__(self, factor):
        self.factor = factor
        self.table = nn.Embedding(5, 4, max_norm=0.5, rngs=nnx.Rngs(0))
        self.first, self.second = (nn.Linear(4, 4, rngs=nnx.Rngs(0)) for _ in range(2))

    def __call__(self, places):
        return self.second(self.first(self.table(places)) * self.factor) * 0


def hidden(factor):
    theirs, ours = TorchHidden(), Hidden(factor)
    nn.load_state_dict(ours, weights.load(theirs))
    return theirs, ours, torch.arange(5)


def test_parameters_that_a_model_writes_into_are_left_as_they_were():
    theirs, ours, inputs = hidden(2.0)
    before = theirs.table.weight.detach().clone()
    assert before.norm(dim=1).max() > 0.5
    assert parity.check(theirs, ours, inputs, gradients=False).passed
    assert torch.equal(theirs.table.weight, before)


class Compiled(nnx.Module):
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, x):
        return nnx.jit(lambda inner, x: inner(x))(self.inner, x)


class TorchCompiled(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def test_layers_in_a_compiled_function_are_looked_at_all_the_same():
    inner = torch.nn.Linear(3, 4)
    report = parity.check(TorchCompiled(inner), Compiled(parity.mirror(inner)), jnp.ones((2, 3)), gradients=False)
    assert report.passed, report
    assert {record.path for record in report.layers} == {"inner", ""}


class TorchCode(torch.nn.Module):
    def __init__(self, code, layers):
        super().__init__()
        self.code = code
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.code(self, x)


class Code(nn.Module):
    def __init__(self, code, layers):
        self.code = code
        for name, layer in layers.items():
            setattr(self, name, parity.mirror(layer))

    def __call__(self, x):
        return self.code(self, x)


def looked_at(theirs, ours, **layers):
    """The report on a block whose output goes nowhere, so that a slip in it shows in the block alone."""
    lost = lambda model, x: model.block(x) * 0  # noqa: E731
    block = TorchCode(theirs, layers)
    torch_model, jax_model = TorchCode(lost, {"block": block}), Code(lost, {})
    jax_model.block = Code(ours, layers)
    return parity.check(torch_model, jax_model, torch.randn(3, 4), gradients=False)


def test_what_is_written_into_a_returned_input_counts():
    def theirs(model, x):
        y = model.first(x)
        model.same(y).mul_(2)
        return model.second(y)

    def layers():
        return {"first": torch.nn.Linear(4, 4), "same": torch.nn.SiLU(inplace=True), "second": torch.nn.Linear(4, 4)}

    assert looked_at(theirs, lambda m, x: m.second(m.same(m.first(x)) * 2), **layers()).passed
    report = looked_at(theirs, lambda m, x: m.second(m.same(m.first(x))), **layers())
    assert [fault.path for fault in report.faults] == ["block"], report


def test_layers_may_write_into_a_list_that_is_passed_along():
    class TorchKeeping(torch.nn.Linear):
        def forward(self, x, kept):
            kept.append(super().forward(x))

    class Keeping(nn.Linear):
        def __call__(self, x, kept):
            kept.append(super().__call__(x))

    def code(model, x, count=2):
        kept = [x]
        for layer in (model.first, model.second):
            layer(kept[-1], kept)
        return model.last(sum(kept[-count:]))

    theirs = TorchCode(code, {"first": TorchKeeping(4, 4), "second": TorchKeeping(4, 4), "last": torch.nn.Linear(4, 4)})
    for count in (2, 1):
        ours = Code(lambda model, x, n=count: code(model, x, n), {"last": theirs.last})
        ours.first, ours.second = (Keeping(4, 4, rngs=nnx.Rngs(0)) for _ in range(2))
        nn.load_state_dict(ours, weights.load(theirs))
        report = parity.check(theirs, ours, torch.randn(3, 4), gradients=False)
        assert report.passed == (count == 2), report
        assert {fault.kind for fault in report.faults} <= {"code"}, report


def test_a_layer_that_raises_and_is_caught_is_no_fault():
    def code(model, x):
        try:
            x = model.odd(x)
        except (RuntimeError, ValueError, TypeError):
            x = model.odd(x[:, :3])
        return model.even(x)

    layers = {"odd": torch.nn.Linear(3, 4), "even": torch.nn.Linear(4, 4)}
    assert looked_at(code, code, **layers).passed
    report = looked_at(code, lambda model, x: code(model, x) + 1e-3, **layers)
    assert [fault.path for fault in report.faults] == ["block"], report


def test_layers_in_a_function_compiled_before_are_looked_at():
    compiled = nnx.jit(lambda model, x: model.second(model.first(x)))
    theirs = lambda model, x: model.second(model.first(x))  # noqa: E731
    layers = {"first": torch.nn.Linear(4, 4), "second": torch.nn.GELU()}
    model, port = TorchCode(theirs, layers), Code(compiled, layers)
    port.second = nn.GELU(approximate="tanh")
    for _ in range(2):
        report = parity.check(model, port, torch.randn(3, 4), gradients=False)
        assert [fault.path for fault in report.faults] == ["second"], report
