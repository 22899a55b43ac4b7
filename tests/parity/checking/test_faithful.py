"""Faithful ports written in other ways than torch's: they pass, and mistakes in them are found."""

import random
from collections import OrderedDict

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import parity
from jaxnn import functional as F
from jaxnn import nn
from parity import weights
from tests.parity.checking.test_planted_faults import replaced


class TorchGate(torch.nn.Module):
    """The weights of the best expert alone, which sum to one: their gradient cancels to nothing."""

    def __init__(self):
        super().__init__()
        self.router, self.value = torch.nn.Linear(8, 4), torch.nn.Linear(8, 3)

    def forward(self, x):
        chosen = self.router(x).softmax(-1).topk(1)[0]
        chosen = chosen / chosen.sum(-1, keepdim=True)
        return self.value(x) * chosen, chosen.detach()


class Gate(nn.Module):
    def __init__(self, *, rngs):
        self.router, self.value = nn.Linear(8, 4, rngs=rngs), nn.Linear(8, 3, rngs=rngs)
        self.normalized = True

    def __call__(self, x):
        chosen = jax.lax.top_k(jax.nn.softmax(self.router(x)), 1)[0]
        shared = chosen / chosen.sum(-1, keepdims=True) if self.normalized else chosen
        return self.value(x) * shared, shared


def test_a_gradient_that_cancels_to_zero_and_an_output_without_one_pass():
    torch.manual_seed(0)
    theirs, ours, x = TorchGate(), Gate(rngs=nnx.Rngs(0)), torch.randn(50, 8)
    nn.load_state_dict(ours, weights.load(theirs))
    assert parity.check(theirs, ours, x).passed
    ours.normalized = False
    failed = [row.name for row in parity.check(theirs, ours, x).rows if not row.passed]
    assert {"output[0]", "output[1]", "router.weight"} <= set(failed)


def test_a_kernel_of_flax_that_runs_the_other_way_has_torchs_gradient():
    class Port(nnx.Module):
        def __init__(self, layer):
            self.up = layer

        def __call__(self, x):
            return jnp.moveaxis(self.up(jnp.moveaxis(x, 1, -1)), -1, 1)

    theirs = torch.nn.Sequential(OrderedDict(up=torch.nn.ConvTranspose2d(2, 3, (2, 3), stride=2)))
    layer = nnx.ConvTranspose(2, 3, (2, 3), strides=(2, 2), padding="VALID", rngs=nnx.Rngs(0))
    layer.bias.set_value(jnp.asarray(theirs.up.bias.detach().numpy()))
    kernel = theirs.up.weight.detach().numpy().transpose(2, 3, 0, 1)

    layer.kernel.set_value(jnp.asarray(kernel[::-1, ::-1]))
    report = parity.check(theirs, Port(layer), torch.randn(2, 2, 4, 5))
    assert report.passed
    assert "up.weight" in {row.name for row in report.rows}
    layer.kernel.set_value(jnp.asarray(kernel))
    (fault,) = parity.check(theirs, Port(layer), torch.randn(2, 2, 4, 5)).faults
    assert (fault.path, fault.suspect) == ("up", "flipped weight")


def test_an_input_that_torch_does_not_differentiate_is_left_out():
    x, target, class_weights = torch.randn(5, 3), torch.randint(0, 3, (5,)), torch.tensor([1.0, 2.0, 3.0])

    def loss(cross_entropy):
        return lambda x, target, class_weights: cross_entropy(x, target, weight=class_weights)

    theirs, ours = loss(torch.nn.functional.cross_entropy), loss(F.cross_entropy)
    report = parity.check(theirs, ours, (x, target, class_weights))
    assert report.passed
    assert [row.name for row in report.rows if row.kind == "gradient"] == ["input 0"]


def test_a_function_may_be_the_port_of_a_module():
    theirs, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.GELU()), torch.randn(5, 4)
    weight, bias = (jnp.asarray(p.detach().numpy()) for p in theirs.parameters())

    def port(x, approximate=False):
        return jax.nn.gelu(x @ weight.T + bias, approximate=approximate)

    assert parity.check(theirs, port, x).passed
    assert parity.check(theirs, jax.jit(port), x).passed
    (fault,) = parity.check(theirs, lambda x: port(x, approximate=True), x).faults
    assert fault.suspect == "gelu approximate"


def test_integers_among_the_parameters_of_a_port_have_no_gradient():
    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))
            self.register_buffer("steps", torch.tensor([1, 2, 3]))

        def forward(self, x):
            return x * self.scale * self.steps

    class Ours(nnx.Module):
        def __init__(self):
            self.scale, self.steps = nnx.Param(jnp.ones(3)), nnx.Param(jnp.array([1, 2, 3]))

        def __call__(self, x):
            return x * self.scale[...] * self.steps[...].astype(x.dtype)

    assert parity.check(Theirs(), Ours(), torch.randn(5, 3)).passed


def test_a_model_that_differentiates_itself_is_checked_without_gradients_too():
    class Force(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.energy = torch.nn.Linear(3, 1)

        def forward(self, x):
            x = x.clone().requires_grad_()
            return torch.autograd.grad(self.energy(x).tanh().sum(), x)[0]

    theirs = Force()
    weight, bias = (jnp.asarray(p.detach().numpy()) for p in theirs.parameters())

    def force(x):
        return jax.grad(lambda x: jnp.tanh(x @ weight.T + bias).sum())(x)

    assert parity.check(theirs, force, torch.randn(4, 3), gradients=False).passed


@pytest.mark.parametrize("shared", [False, True], ids=["torch alone", "both"])
def test_every_pass_has_the_same_numbers_of_pythons_generator(shared):
    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(6))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x) if random.random() < 0.5 else x
            return x

    class Ours(nnx.Module):
        def __init__(self):
            self.layers = nn.ModuleList([nn.Linear(4, 4, rngs=nnx.Rngs(0)) for _ in range(6)])

        def __call__(self, x):
            numbers = random if shared else random.Random(0)
            for layer in self.layers:
                x = layer(x) if numbers.random() < 0.5 else x
            return x

    theirs, ours = Theirs(), Ours()
    nn.load_state_dict(ours, weights.load(theirs))
    random.seed(5)
    before = random.getstate()
    for gradients in (True, False):
        report = parity.check(theirs, ours, torch.randn(3, 4), gradients=gradients, steps=int(not shared))
        assert report.passed, report
        assert not report.faults
    assert random.getstate() == before


def test_any_seed_of_torch_will_do():
    theirs = torch.nn.Linear(2, 2)
    assert parity.check(theirs, parity.mirror(theirs), torch.randn(2, 2), seed=2**40).passed


class TorchBlocks(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(OrderedDict(fc=torch.nn.Linear(4, 4), norm=torch.nn.LayerNorm(4))) for _ in range(3)
        )

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


class Block(nnx.Module):
    def __init__(self, rngs):
        self.fc, self.norm = nnx.Linear(4, 4, rngs=rngs), nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.fc(x))


def over_blocks(step):
    return nnx.scan(step, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)


class Scanned(nnx.Module):
    """One block, its parameters those of all, stacked."""

    def __init__(self):
        self.blocks = nnx.vmap(Block)(nnx.Rngs(0).split(3))

    def __call__(self, x):
        return over_blocks(lambda x, block: x + block(x))(x, self.blocks)


def test_layers_whose_parameters_are_stacked_are_compared_one_by_one():
    torch.manual_seed(0)
    theirs, ours, x = TorchBlocks(), Scanned(), torch.randn(2, 4)
    kernels = jnp.stack([jnp.asarray(block.fc.weight.detach().numpy().T) for block in theirs.blocks])
    biases = jnp.stack([jnp.asarray(block.fc.bias.detach().numpy()) for block in theirs.blocks])
    ours.blocks.fc.kernel.set_value(kernels)
    ours.blocks.fc.bias.set_value(biases)
    report = parity.check(theirs, ours, x)
    assert report.passed
    assert {"blocks.0.fc.weight", "blocks.2.norm.bias"} <= {row.name for row in report.rows}
    assert [record.path for record in report.layers if record.path.endswith("fc")] == [
        f"blocks.{i}.fc" for i in range(3)
    ]
    ours.blocks.fc.bias.set_value(biases.at[1].set(0.0))
    (fault,) = parity.check(theirs, ours, x, gradients=False).faults
    assert (fault.path, fault.suspect) == ("blocks.1.fc", "missing bias")
    ours.blocks.fc.bias.set_value(biases)
    stopped = over_blocks(lambda x, block: x + block(jax.lax.stop_gradient(x)))
    replaced(ours, lambda self, x: stopped(x, self.blocks))
    report = parity.check(theirs, ours, x)
    assert report.faults[0].path == ""
    assert "stops the gradient of what each blocks.* gets" in report.faults[0].reason


def test_a_block_whose_sizes_happen_to_be_the_number_of_parts_is_not_taken_for_a_stack():
    class Block(nnx.Module):
        def __init__(self, layers):
            self.first, self.second = (nnx.Linear(2, 2, rngs=nnx.Rngs(0)) for _ in layers)
            for ours, layer in zip((self.first, self.second), layers, strict=True):
                ours.kernel.set_value(jnp.asarray(layer.weight.detach().numpy().T))
                ours.bias.set_value(jnp.asarray(layer.bias.detach().numpy()))

        def __call__(self, x):
            return self.second(self.first(x))

    class Port(nnx.Module):
        def __init__(self, layers):
            self.body = Block(layers)

        def __call__(self, x):
            return self.body(x)

    body = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    theirs = torch.nn.Sequential(OrderedDict(body=body))
    assert parity.check(theirs, Port(body), torch.randn(3, 2)).passed
