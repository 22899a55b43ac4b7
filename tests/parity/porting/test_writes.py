"""What a model writes: into its buffers, into what ``out`` names, where a mask is true."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn.nn import state_dict
from parity import DivergenceError
from parity.porting import PortError, port


def floats(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class Kept(torch.nn.Module):
    """Does ``forward(self, x)`` with the buffer ``state``."""

    def __init__(self, forward):
        super().__init__()
        self.register_buffer("state", torch.arange(8.0).reshape(2, 4))
        self.does = forward

    def forward(self, x):
        return self.does(self, x)


def chained(self, x):
    self.state.mul_(0.5).add_(x.sum(0))
    return self.state * 2


def slices(self, x):
    self.state[0, 1:3] = x[0, :2]
    self.state.t()[3].add_(1)
    return x + (2 * x).float().fill_(0.5)


def out(self, x):
    torch.add(self.state, x.mean(0), out=self.state)
    return x * self.state[0] + self.state[1]


def two_outs(self, x):
    values, places = torch.empty(x.shape[0]), torch.empty(x.shape[0], dtype=torch.long)
    torch.max(x, 1, out=(values, places))
    return values, places


def read_between(self, x):
    before = self.state * 1
    self.state.add_(1)
    between = self.state * 1
    self.state.add_(1)
    return before, between, self.state + x[0]


@pytest.mark.parametrize("forward", [chained, slices, out, two_outs, read_between], ids=lambda f: f.__name__)
def test_buffers_hold_afterwards_what_was_written(forward):
    x = floats(3, 4)
    module = Kept(forward)
    written = port(module, x).module
    for _ in range(2):
        module(x)
        written(jnp.asarray(x.numpy()))
    np.testing.assert_allclose(written.state[...], module.state.numpy(), rtol=1e-6)


class Owner(torch.nn.Module):
    """Gives what it owns another buffer, between two calls of it."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(Kept(lambda self, x: x + self.state[0]))

    def forward(self, x):
        before = self.inner(x)
        self.inner[0].state = 0.5 * self.inner[0].state + x[:2]
        return before - 2 * self.inner(x)


def test_a_buffer_that_another_module_replaces_is_written():
    x, module = floats(3, 4), Owner()
    written = port(module, x).module
    for _ in range(2):
        expected = module(x)
        np.testing.assert_allclose(written(jnp.asarray(x.numpy())), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state_dict(written)["inner.0.state"], module.inner[0].state, rtol=1e-6)


class Cache(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("keys", torch.zeros(6, 4), persistent=False)
        self.register_buffer("values", torch.zeros(6, 4), persistent=False)
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.keys[: x.shape[0]] = x
        self.values[1:4].add_(x * 2)
        self.steps += 1
        return self.keys @ self.values.T * self.steps


def test_buffers_that_no_state_dict_has_are_kept_apart():
    module = Cache()
    x = floats(3, 4)
    written = port(module, x, dynamic_shapes={"x": None}).module
    for _ in range(2):
        expected = module(x)
        found = written(jnp.asarray(x.numpy()))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


class Twice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)
        self.loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.full((4,), 2.0))

    def forward(self, x):
        y = self.norm(self.norm(x))
        return self.norm(y), y, self.loss(y, torch.sigmoid(x))


def test_a_module_called_again_reads_the_statistics_it_left():
    module = Twice().train()
    x = floats(5, 4)
    written = port(module, x).module
    module(x)
    written(jnp.asarray(x.numpy()))
    assert written.norm.num_batches_tracked[...] == 3
    np.testing.assert_allclose(written.norm.running_var[...], module.norm.running_var.numpy(), rtol=1e-5)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient if gradient.isfinite().all() else None


class Binary(torch.nn.Module):
    def forward(self, x):
        return Straight.apply(x * 2)


def test_a_gradient_that_the_data_decide_is_refused():
    with pytest.raises(DivergenceError):
        port(Binary(), floats(3, 4))


class Once(Straight):
    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("only in training")


class Refusing(torch.nn.Module):
    def forward(self, x):
        return Once.apply(x * 2)


def test_a_gradient_that_the_model_itself_refuses_is_noted():
    written = port(Refusing(), floats(3, 4))
    assert "only in training" in written.notes[-1]


class Masked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)

    def forward(self, x):
        rows = x[:, 0] > 0
        y = torch.zeros_like(x)
        y[rows] = self.norm(self.linear(x[rows])).tanh()
        y[~rows] = y[~rows] + 1
        z = x.clone()
        z[x > 0.5] *= 3
        z[x < 0] = y[x < 0]
        return y, z


def test_entries_picked_by_a_mask_and_put_back_are_computed_in_their_places():
    assert "jnp.where(" in port(Masked(), floats(5, 4)).source


class Finite(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        y, known, large = torch.zeros_like(x), ~torch.isnan(x), x > 1
        y[known] = self.scale * x[known]
        y[large] += torch.log(self.scale * (x[large] - 1)) / x[large]
        return y


def test_entries_that_no_mask_picks_spoil_no_gradient():
    x = torch.tensor([[1.0, torch.nan, -1.0], [0.0, 2.0, 1000.0]])
    report = port(Finite(), x, verify=False).report
    assert [row.name for row in report.rows if not row.passed] == []


class Mixed(torch.nn.Module):
    def forward(self, x):
        y = x.clone()
        y[x > 0] = x[x > 0].softmax(0)
        return y


def test_entries_picked_by_a_mask_that_are_mixed_are_refused():
    with pytest.raises(PortError, match="boolean mask"):
        port(Mixed(), floats(5, 4))


class Lent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.make = torch.nn.Linear(4, 3), torch.nn.Linear(2, 15)

    def forward(self, z, x):
        made = self.make(z)
        lent = {"weight": made[:12].view(3, 4), "bias": made[12:]}
        return torch.func.functional_call(self.inner, lent, (x,)) - self.inner(x)


def test_a_layer_lent_other_weights_uses_them_and_its_own_where_it_is_not():
    port(Lent(), (floats(2), floats(5, 4)))


class Likelihood(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = torch.nn.TransformerDecoder(torch.nn.TransformerDecoderLayer(4, 2, 8, 0.0), 2)

    def forward(self, x):
        mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[0])
        y = self.decoder(x, x, tgt_mask=mask)
        return torch.distributions.Normal(y, torch.ones_like(y)).log_prob(x).sum(-1)


def test_looks_at_values_that_decide_nothing_are_not_in_the_way():
    validates = torch.distributions.Distribution._validate_args
    port(Likelihood(), floats(3, 2, 4))
    assert torch.distributions.Distribution._validate_args == validates


class Causal(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        mask = torch.triu(torch.full((5, 5), float("-inf")), 1)
        return self.encoder(x, mask=mask, is_causal=True)


def test_a_mask_that_a_hint_makes_needless_is_left_out():
    port(Causal(), floats(2, 5, 4))


class Counter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count.add_(1)
        return x * self.count


def read_before(counter, x):
    before = counter.count * 2.0
    return counter(x) + before


def called_before(counter, x):
    first, second = counter(x), counter(x.sin())
    return second - first


def read_after(counter, x):
    first = counter(x)
    return counter.count * 2 - first


class InOrder(torch.nn.Module):
    def __init__(self, order):
        super().__init__()
        self.counter, self.order = Counter(), order

    def forward(self, x):
        return self.order(self.counter, x)


@pytest.mark.parametrize("order", [read_before, called_before, read_after])
def test_what_a_call_changes_is_read_in_the_order_of_the_model(order):
    port(InOrder(order), floats(2, 3))


class WrittenWhole(torch.nn.Module):
    """Writes through views of all that they are views of."""

    def forward(self, x):
        y = torch.cat([x.sin(), x.cos()], 1)
        y[..., 4:] *= x[..., :1]
        y = y[..., :4]
        y[..., :4] += x
        z = y.detach()
        z[..., :4] += x
        return y, z[0]


def test_views_of_the_whole_are_written_into_and_read():
    assert not port(WrittenWhole(), floats(3, 4)).notes
