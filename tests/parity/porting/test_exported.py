"""What export alone would refuse, and what an operator's writer does not know."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jaxnn import nn
from parity.porting import PortError, port
from parity.porting.lines import is_of_model
from parity.porting.source.formatting import wrapped


class Does(torch.nn.Module):
    """Does ``forward(self, x)``; the buffer ``count`` is 3."""

    def __init__(self, forward):
        super().__init__()
        self.register_buffer("count", torch.tensor(3))
        self.does = forward

    def forward(self, x):
        return self.does(self, x)


X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def test_a_number_kept_in_a_buffer_is_read_where_nothing_writes_it():
    def steps(self, x):
        for _ in range(int(self.count)):
            x = torch.tanh(x)
        return x

    np.testing.assert_allclose(port(Does(steps), (X,)).module(jnp.asarray(X.numpy())), X.tanh().tanh().tanh(), 1e-6)


def test_a_number_is_not_read_from_a_buffer_that_the_model_writes():
    def counted(self, x):
        self.count.add_(1)
        return x * int(self.count)

    with pytest.raises(PortError):
        port(Does(counted), (X,))


def test_sizes_of_what_forward_takes_by_double_star_are_free():
    class Passes(torch.nn.Module):
        def forward(self, x, **kwargs):
            return torch.lerp(x, **kwargs)

    end, weight = X + 1, torch.rand(4, 1)
    ported = port(Passes(), (X,), {"end": end, "weight": weight})
    rows = [jnp.asarray(x[:3].numpy()) for x in (X, end, weight)]
    expected = torch.lerp(X, end, weight)[:3]
    np.testing.assert_allclose(ported.module(rows[0], end=rows[1], weight=rows[2]), expected, 1e-5)
    assert not ported.notes


def test_a_size_that_was_asked_to_be_free_and_cannot_be_is_refused_in_exports_words():
    def doubled(self, x):
        return 2 * x if x.shape[1] == 3 else x

    with pytest.raises(PortError, match="Suggested fixes:\n  width = 3"):
        port(Does(doubled), X, dynamic_shapes={"x": {1: torch.export.Dim("width")}})


def test_64_bits_stay_64_where_jax_has_them_and_are_named_where_not():
    def mixed(self, x):
        steps = torch.arange(x.shape[1], dtype=torch.float64).exp()
        return (x.float() * steps.float()).double().cumsum(0) / 3 + x * torch.full((1,), 0.1, dtype=torch.float64)

    x = X.double()
    with pytest.raises(PortError, match="result is float64, and JAX's is float32 while"):
        port(Does(mixed), (x,))
    with jax.enable_x64(True):
        ported = port(Does(mixed), (x,)).module(jnp.asarray(x[:2].numpy()))
    assert ported.dtype == np.float64
    np.testing.assert_allclose(ported, mixed(None, x[:2]), 1e-14)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cdist(x, x),
        lambda x: x.clamp(0, 1).square() + x.clamp_min(0),
        lambda x: (x[:, :1] * 0).std(0) + x.std(1),
        lambda x: x.abs() + (x * 0).norm(dim=(0, 1), keepdim=True),
        lambda x: torch.fmax(x, x.flip(1)) + torch.fmin(x, x * x),
        lambda x: torch.copysign(x, x + 1) + torch.xlogy(x * 0, x.abs()) + x.abs() ** (x * 0),
    ],
    ids=["cdist", "clamp", "std", "norm", "fmax", "pow"],
)
def test_gradients_are_torchs_where_jaxs_own_functions_have_another(function):
    x = torch.tensor([[0.0, 1.0, -1.0], [0.0, 0.0, 0.0], [2.0, 2.0, 0.5]], requires_grad=True)
    (expected,) = torch.autograd.grad(function(x).sum(), x)
    module = port(Does(lambda self, x: function(x)), (X,)).module
    gradient = jax.grad(lambda x: module(x).sum())(jnp.asarray(x.detach().numpy()))
    np.testing.assert_allclose(gradient, expected, 1e-6)


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("how", ["sum", "mean", "prod", "amax", "amin"])
def test_what_is_reduced_into_equal_places_has_torchs_gradient(how, own):
    places = torch.tensor([[0, 0, 1], [2, 2, 2], [1, 0, 1]])

    def reduced(x):
        found = x.flip(0).scatter_reduce(1, places, x, how, include_self=own)
        rows = torch.ones_like(x).index_reduce(1, places[0], x, how, include_self=own) if how != "sum" else 0
        return (found + rows) * torch.arange(1.0, 10).reshape(3, 3)

    x = torch.tensor([[0.0, 1.0, -1.0], [0.0, 0.0, 0.0], [2.0, 2.0, 1.0]], requires_grad=True)
    (expected,) = torch.autograd.grad(reduced(x).sum(), x)
    module = port(Does(lambda self, x: reduced(x)), (X[:3, :3],)).module
    np.testing.assert_allclose(jax.grad(lambda x: module(x).sum())(jnp.asarray(x.detach().numpy())), expected, 1e-6)


SQUARES = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1)) + 2 * torch.eye(3)


def by_rows(x):
    places = torch.tensor([0, 0, 2])
    return (
        torch.pdist(x) + torch.histc(x.tanh(), 6, -1, 1) + torch.histc(x.round(decimals=1), 20, -1, 1)[:6],
        x.sqrt().nanmedian(1),
        [x.index_reduce(1, places, 2 * x, how, include_self=how == "mean") for how in ("mean", "prod", "amin")],
        torch.gradient(x[:, 0])[0] + torch.gradient(x, spacing=2.0, dim=(0, 1))[1][:, 0],
        torch.meshgrid(x[:, 0], x[0, 0], indexing="ij"),
    )


def diagonals(x):
    return x.diag_embed(-1, 2, 0), x[0].diag_embed(1), x.diagonal_scatter(2 * x[:3, 0], -1), torch.diagonal_copy(x, -1)


def as_torch_takes_apart_otherwise(x):
    target = torch.tensor([[0, -1, 2], [1, 2, 0], [-1, 0, 0], [2, 1, -1]])
    bags = F.embedding_bag(torch.tensor([3, 1, 2, 0]), x, torch.tensor([0, 1]), mode="mean", padding_idx=2)
    volume = F.interpolate(x.reshape(1, 1, 2, 3, 2), scale_factor=2, mode="nearest-exact")
    unpooled = F.max_unpool2d(x[None], torch.arange(12).reshape(1, 4, 3) // 2, 2, output_size=(9, 6))
    return F.multilabel_margin_loss(x, target), F.multi_margin_loss(x, target[:, 2].abs()), bags, volume, unpooled


def solved(x):
    rows, factors = torch.ones(2, 2, 3) * torch.arange(3.0), torch.linalg.lu_factor(x)
    return (
        torch.linalg.solve(x, rows, left=False),
        torch.linalg.solve(x, rows[:, 0]),
        torch.linalg.solve_ex(x, rows, left=False),
        torch.linalg.solve_ex(x, torch.ones(3)).result,
        torch.linalg.lu_solve(*factors, rows, left=False),
        torch.linalg.lu_solve(*factors, torch.ones(3, 1), adjoint=True),
        torch.linalg.inv_ex(x),
        torch.linalg.inv_ex(x[:, :2, :2]).inverse,
    )


def factored(x):
    both = torch.linalg.lu_factor_ex(x)
    positive, marks = torch.linalg.cholesky_ex(torch.stack([x.mT @ x, x.diagonal(0, 1, 2).diag_embed()]))
    return (
        *both,
        *torch.lu_unpack(*both[:2]),
        *torch.lu_unpack(*torch.linalg.lu_factor(x[:, :2]), unpack_pivots=False)[1:],
        torch.linalg.qr(x[:, :2], mode="r").R,
        torch.linalg.qr(x[..., :2], mode="complete"),
        torch.where((marks == 0)[..., None, None], positive, 0.0),
        marks,
        torch.linalg.householder_product(x, torch.ones(2, 3)),
        torch.linalg.tensorsolve(x[0] + 3 * torch.eye(3), torch.ones(3)),
        torch.linalg.tensorinv(x[0] + 3 * torch.eye(3), ind=1),
    )


def unevenly(x):
    places, others = torch.tensor([0.0, 1.0, 1.5, 4.0]), torch.tensor([-1.0, 1.0, 2.0])
    return (
        torch.gradient(x, spacing=(places, others)),
        torch.gradient(x, spacing=(others,), dim=1, edge_order=2),
        torch.gradient(x, spacing=2.0, edge_order=2),
        torch.vander(x[:, 0], 5, increasing=True),
        torch.as_strided_scatter(x, 2 * x[:2, :2], (2, 2), (3, 1), 1),
    )


def together(x):
    twice, weights = torch.tensor([1, 2, 1]), torch.tensor([0.1, 0.2, 0.5])
    counts = (x > 0).sum(1)
    return (
        torch.cov(x, fweights=twice, aweights=weights),
        x.cov(correction=0, aweights=weights),
        x.corrcoef() - x.cov() + x[0].cov(),
        torch.corrcoef(x[0]),
        counts.bincount(minlength=5),
        torch.bincount(counts, x[:, 0], minlength=4),
    )


def at_random_steps(x):
    steps = torch.tensor([[[0.1, 0.7], [0.5, 0.2]]])
    image = x[:, :2].reshape(1, 2, 2, 2).repeat(1, 1, 3, 3)
    return F.fractional_max_pool2d(image, 2, (3, 4), _random_samples=steps, return_indices=True)


WINDOW = torch.hann_window(6)
ONES = torch.ones(2, 3, 1)
OPERATORS = {
    "block_diag": (lambda x: torch.block_diag(x, x[:1]), X),
    "cholesky_inverse": (lambda x: torch.cholesky_inverse(x.tril()), SQUARES),
    "cholesky_solve": (lambda x: torch.cholesky_solve(ONES, x.tril()), SQUARES),
    "diagonals": (diagonals, X),
    "einsum with a path": (lambda x: torch.ops.aten.einsum("ij,kj,kl->il", [x, x, x], path=[1, 2, 0, 1]), X),
    "eigvals": (lambda x: torch.linalg.eigvals(x).abs().sum(), SQUARES),
    "exponential": (lambda x: torch.empty_like(x).exponential_(3.0) + x, X),
    "normal": (lambda x: torch.distributions.Normal(x, x.exp()).rsample() + torch.normal(x, x.exp()), X),
    "normal of no deviation": (lambda x: torch.normal(x, torch.zeros_like(x)), X),
    "free size as a float": (lambda x: torch.full((x.shape[0],), 1 / x.shape[0]) * x.shape[0] ** 0.5 + x[:, 0], X),
    "fmax": (lambda x: torch.fmax(x, torch.zeros(())) - torch.fmin(x, x.flip(1)), X),
    "at random steps": (at_random_steps, X),
    "by rows": (by_rows, X),
    "factored": (factored, SQUARES),
    "solved": (solved, SQUARES),
    "together": (together, X),
    "unevenly": (unevenly, X),
    "taken apart otherwise": (as_torch_takes_apart_otherwise, X),
    "uniform": (lambda x: torch.empty_like(x).uniform_(1, 3) + x, X),
    "hermitian": (lambda x: (torch.fft.ihfft2(x, norm="forward"), torch.fft.hfftn(torch.fft.ihfftn(x), s=(4, 3))), X),
    "gradient": (lambda x: torch.gradient(x, dim=1)[0], X),
    "istft": (
        lambda x: torch.istft(torch.stft(x, 8, 2, 6, WINDOW, return_complex=True), 8, 2, 6, WINDOW),
        X.reshape(1, 12),
    ),
    "lu": (lambda x: torch.linalg.lu(x)[2], SQUARES),
    "masked_scatter": (lambda x: x.masked_scatter(x > 0, x.flip(0) * 2), X),
    "matrix_exp": (lambda x: torch.linalg.matrix_exp(x), SQUARES),
    "mode": (lambda x: torch.mode(x.round(), 0)[0], X),
    "multinomial": (lambda x: torch.multinomial(x.softmax(-1), 2), X),
    "multinomial with replacement": (lambda x: torch.multinomial(x.softmax(-1), 5, replacement=True), X),
    "put": (lambda x: x.put(torch.tensor([0, 7]), torch.ones(2)), X),
    "randint": (lambda x: x + torch.randint(3, 9, (3,)).float(), X),
    "randperm": (lambda x: x[:, torch.randperm(3)], X),
    "searchsorted": (lambda x: torch.searchsorted(x.sort(1)[0], x, right=True), X),
    "squeeze of a number": (lambda x: x.sum().squeeze() + x, X),
    "solve_triangular": (lambda x: torch.linalg.solve_triangular(x.triu(), ONES.mT, upper=True, left=False), SQUARES),
}


def test_what_looks_at_values_in_torch_is_written_with_torchs_results_and_gradients():
    targets, lengths = torch.tensor([[1, 2], [2, 2], [1, 3], [3, 0]]), torch.tensor([2, 2, 2, 1])

    def looked(x):
        steps = torch.stack([x, x.flip(1), 2 * x, x * x, x.cos(), -x])
        steps = torch.cat([steps, steps[..., :1] - 1], -1).log_softmax(-1)
        loss = F.ctc_loss(steps, targets, lengths + 4, lengths, reduction="none")
        means = F.ctc_loss(steps, targets, [6, 6, 5, 6], [2, 2, 2, 1])
        return loss, means, torch.linalg.lstsq(x, x[:, :2] + 1).solution, torch.combinations(x[:, 0])

    given = X.clone().requires_grad_()
    results = looked(given)
    (expected,) = torch.autograd.grad(sum(x.square().sum() for x in results), given)
    module = port(Does(lambda self, x: looked(x)), (X,)).module
    x = jnp.asarray(X.numpy())
    for ours, theirs in zip(module(x), results, strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), 1e-4, 1e-5)
    gradient = jax.grad(lambda x: sum(jnp.square(y).sum() for y in module(x)))(x)
    np.testing.assert_allclose(gradient, expected, 1e-3, 1e-4)


def test_a_batch_norm_may_average_over_all_batches():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3, momentum=None)).train()
    module = port(model, (X,)).module
    for batch in (X, 2 * X + 1, X.square()):
        np.testing.assert_allclose(module(jnp.asarray(batch.numpy())), model(batch).detach(), 1e-4, 1e-5)
    for name, held in model.state_dict().items():
        np.testing.assert_allclose(nn.state_dict(module)[name], held, 1e-5, 1e-6)


class _Derived(torch.nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x + 1) * 2


def test_such_an_average_that_no_layer_keeps_is_refused():
    with pytest.raises(PortError, match="statistics of all batches, in what does not stay a layer"):
        port(torch.nn.Sequential(_Derived(3, momentum=None)).train(), (X,))


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("name", list(OPERATORS))
def test_an_operator_is_written_and_proven(name):
    function, x = OPERATORS[name]
    port(Does(lambda self, x: function(x)), x)


def test_of_a_batch_that_has_no_factor_the_factor_is_not_compared():
    positive = SQUARES @ SQUARES.mT + torch.eye(3)
    (said,) = port(Does(lambda self, x: torch.linalg.cholesky_ex(x).L), positive).notes
    assert "not compared on another batch: port: cholesky_ex is given a matrix that is not positive" in said


def test_of_what_is_counted_the_number_of_kinds_is_fixed():
    (said,) = port(Does(lambda self, x: x.bincount(minlength=4)), torch.tensor([3, 1, 1])).notes
    assert "bincount gives as many entries as its minlength" in said
    with pytest.raises(PortError, match="bincount without a minlength"):
        port(Does(lambda self, x: x.bincount()), torch.tensor([3, 1, 1]))


def test_nan_and_infinity_stay_where_they_are():
    def told(x):
        return x.sign(), x.sgn(), torch.heaviside(x, x.flip(1)), x.diag_embed()

    x = torch.tensor([[torch.nan, 1.0, -2.0], [0.0, torch.inf, torch.nan], [-torch.inf, 0.5, 0.0]])
    found = port(Does(lambda self, x: told(x)), (X,)).module(jnp.asarray(x.numpy()))
    for ours, theirs in zip(found, told(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_of_equal_places_each_has_the_gradient_of_what_it_is_put_to():
    places = torch.zeros(1, 2, 3, dtype=torch.long)
    module = port(Does(lambda self, x: F.max_unpool2d(x, places, 2).square().sum() / 2), (X[None, :2],)).module
    x = X[None, :2].clone().requires_grad_()
    (F.max_unpool2d(x, places, 2).square().sum() / 2).backward()
    np.testing.assert_allclose(jax.grad(module)(jnp.asarray(X[None, :2].numpy())), x.grad, 1e-6)


def test_an_argument_that_the_writer_would_drop_stops_the_port():
    with pytest.raises(PortError, match="input_scale"):
        port(Does(lambda self, x: torch.ops.aten.elu(x, 1.0, 1.0, 2.0)), (X,))


def test_a_result_that_is_no_array_stops_the_port():
    with pytest.raises(PortError, match="depends on the data"):
        port(Does(lambda self, x: x.sum().item()), (X,))


def test_what_an_in_place_write_decides_is_not_taken_for_known():
    def filled(self, x):
        made = torch.zeros(3)
        made[0] = x.sum()
        return x * 2 if made.sum() > 1 else x

    with pytest.raises(PortError, match="refuses the model"):
        port(Does(filled), (X,))


def test_a_model_that_fails_only_where_it_is_told_of_compilation_is_told_of_none():
    def asking(self, x):
        scale = None if torch.compiler.is_compiling() or torch.compiler.is_exporting() else 2.0
        return x * torch.tensor([scale, 1.0, 1.0])

    module = port(Does(asking), (X,)).module
    np.testing.assert_allclose(module(jnp.asarray(X.numpy())), X * torch.tensor([2.0, 1.0, 1.0]))


def test_another_batch_that_the_model_refuses_is_noted():
    def choosy(self, x):
        if not torch.compiler.is_exporting() and x.shape != X.shape:
            raise ValueError
        return x * 2

    written = port(Does(choosy), (X,))
    assert any("not compared on another batch" in note for note in written.notes)


def test_a_model_that_refuses_drawn_numbers_is_compared_on_the_rows_of_the_example():
    class Bags(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bags = torch.nn.EmbeddingBag(5, 3)

        def forward(self, entries, offsets):
            return self.bags(entries, offsets)

    assert not port(Bags(), (torch.arange(5), torch.tensor([0, 2, 4, 5]))).notes


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (lambda x: x.max(-1)[0], "F.max(x, -1)[0]"),
        (lambda x: x.max(-1).indices.float(), ".argmax(axis=-1)"),
        (lambda x: x.sort(-1, descending=True)[0], "jnp.take_along_axis("),
        (lambda x: x.sort(-1).indices.float(), "jnp.argsort("),
    ],
)
def test_of_several_results_only_the_ones_that_are_read_are_computed(part, written):
    source = port(Does(lambda self, x: part(x)), (X,)).source
    assert written in source
    assert sum(source.count(name) for name in ("max(", "sort(")) == 1


def test_results_that_are_all_read_come_from_one_call():
    def both(self, x):
        values, indices = torch.tanh(x).max(-1)
        return values * indices.float()

    source = port(Does(both), (X,)).source
    assert " = F.max(jnp.tanh(x), -1)\n" in source
    assert "argmax" not in source


def test_sizes_given_as_numpy_integers_are_written_as_numbers():
    stride = tuple(np.array([2, 1]))
    layer = torch.nn.Conv2d(1, 2, np.int64(3), stride=stride)
    result = port(torch.nn.Sequential(layer), (torch.zeros(2, 1, 9, 9),))
    assert "nn.Conv2d(1, 2, 3, stride=(2, 1), rngs=rngs)" in result.source
    assert result.module(jnp.zeros((2, 1, 9, 9))).shape == (2, 2, 4, 7)


def test_a_layer_with_two_names_that_nothing_calls_is_left_out():
    class Idle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = torch.nn.Identity()
            self.linear = torch.nn.Linear(3, 2)

        def forward(self, x):
            return self.linear(x)

    assert "second" not in port(Idle(), (X,)).source


def test_what_is_logged_stays_as_it_was():
    logging.disable(logging.INFO)
    try:
        port(torch.nn.Linear(3, 2), (X,), verify=False)
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)


def test_files_beside_torchs_are_the_models():
    inside = Path(torch.__file__).parent
    assert not is_of_model(str(inside / "nn" / "modules" / "linear.py"))
    assert is_of_model(str(inside.with_name("torchvision") / "models" / "resnet.py"))
    assert is_of_model(__file__)


def test_an_integer_too_large_for_a_fraction_is_divided_exactly():
    class Halved(torch.nn.Module):
        def forward(self, x):
            return x.div(-2, rounding_mode="trunc")

    x = np.array([2**24 + 3, -(2**24) - 3], np.int32)
    twin = port(Halved(), torch.tensor([5, -5]))
    np.testing.assert_array_equal(twin.module(jnp.asarray(x)), Halved()(torch.from_numpy(x)).numpy())


def test_a_long_row_of_results_is_broken_at_its_commas():
    text = wrapped("return " + ", ".join(f"states_of_layer_{i}" for i in range(9)), 8)
    assert text.startswith("        return (\n")
    assert max(map(len, text.splitlines())) <= 120
