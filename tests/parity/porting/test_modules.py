"""Modules in unusual places, and what a model keeps of its calls."""

import copy

import jax.numpy as jnp
import numpy as np
import torch

from parity.porting import port

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def ported(module, x=X):
    """The port, held against the model's output."""
    written = port(module, x)
    np.testing.assert_allclose(written.module(jnp.asarray(x.numpy())), module(x).detach(), 1e-5, 1e-6)
    return written


class Scales(torch.nn.Module):
    def __init__(self):
        super().__init__()
        pair = torch.nn.ParameterList([torch.full((3,), 2.0), torch.ones(3)])
        self.scales = torch.nn.ParameterList([pair, torch.arange(3.0)])

    def forward(self, x):
        (factor, shift), more = self.scales
        return x * factor + shift + more


def test_a_list_of_parameters_may_hold_another():
    ported(Scales())


class Gap(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = torch.nn.ModuleList([None, torch.nn.Linear(3, 3), None])

    def forward(self, x):
        for stage in self.stages:
            x = x if stage is None else stage(x)
        return x


def test_a_list_of_modules_may_have_none_in_a_place():
    ported(Gap())


class Borrower(torch.nn.Module):
    def forward(self, x, bias):
        return x + bias()


class Bias(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(3.0))

    def forward(self):
        return self.weight * 2


class Lender(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bias, self.borrower = Bias(), Borrower()

    def forward(self, x):
        return self.borrower(x, self.bias)


def test_a_module_called_by_one_that_does_not_hold_it():
    ported(Lender())


class Cached(torch.nn.Module):
    """Keeps what it has computed as attributes, in a dict and in a buffer."""

    def __init__(self):
        super().__init__()
        self.length, self.angles, self.tables = 0, None, {}
        self.register_buffer("bias", None, persistent=False)

    def forward(self, x):
        if x.shape[1] != self.length:
            self.length = x.shape[1]
            self.angles = torch.arange(self.length).float()
            self.tables[self.length] = self.angles.sin()
            self.register_buffer("bias", self.angles.cos(), persistent=False)
        return x * self.angles + self.tables[x.shape[1]] + self.bias


def test_a_model_is_left_without_what_it_kept_while_it_was_exported():
    module = Cached()
    port(module, X)
    assert (module.length, module.angles, module.tables, module.bias) == (0, None, {}, None)
    ported(module)


class Described(torch.nn.Linear):
    def state_dict(self, *args, **kwargs):
        return {**super().state_dict(*args, **kwargs), "_metadata": {"width": 3}}


def test_what_a_state_dict_holds_beside_tensors_is_no_weight():
    ported(torch.nn.Sequential(Described(3, 3)))
    ported(Described(3, 3))


class Padded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("stride", torch.tensor(2), persistent=False)

    def forward(self, x):
        more = self.stride - x.shape[-1] % self.stride
        x = torch.nn.functional.pad(x, (0, more))
        return x[:, self.stride :].reshape(-1, more, self.stride)


def test_sizes_computed_of_buffers_are_numbers():
    ported(Padded())


class FrozenBackbone(torch.nn.Module):
    def __init__(self):
        super().__init__()
        stage = torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)
        self.stages = torch.nn.ModuleList(torch.nn.Sequential(*copy.deepcopy(stage)) for _ in range(3))
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x):
        features = []
        with torch.no_grad():
            for stage in self.stages:
                x = stage(x)
                features.append(x)
        return self.head(features[0] + features[2]), features[1]


def test_what_several_modules_give_out_of_a_region_without_gradients_is_cut_behind_them():
    written = port(FrozenBackbone().eval(), (torch.randn(3, 4),))
    assert "class Sequential" not in written.source
    assert " in self.stages:" in written.source
    assert written.source.count("jax.lax.stop_gradient(") == 3
    assert written.report.passed


def test_an_activation_that_is_shared_and_never_called_is_built_where_it_is_listed():
    class Unused(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.act = torch.nn.SiLU()
            self.layers = torch.nn.Sequential(torch.nn.Linear(4, 4), self.act)

        def forward(self, x):
            return self.layers[0](x)

    assert "nnx.List([nn.Linear(4, 4, rngs=rngs), nn.SiLU()])" in port(Unused().eval(), (torch.randn(3, 4),)).source
