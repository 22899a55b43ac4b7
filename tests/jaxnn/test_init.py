import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn import init

KEY = jax.random.key(7)


def assert_same_distribution(ours, theirs):
    """Two samples' Kolmogorov-Smirnov distance is under the critical value at a chance of 1e-4."""
    ours, theirs = np.sort(np.asarray(ours).ravel()), np.sort(theirs.numpy().ravel())
    points = np.concatenate([ours, theirs])
    distance = np.abs(
        np.searchsorted(ours, points, "right") / ours.size - np.searchsorted(theirs, points, "right") / theirs.size
    ).max()
    assert distance < 2.23 * np.sqrt(1 / ours.size + 1 / theirs.size)


@pytest.mark.filterwarnings("ignore:mean is more than 2 std")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uniform", {"a": -2.0, "b": 3.0}),
        ("normal", {"mean": 1.0, "std": 0.5}),
        ("trunc_normal", {}),
        ("trunc_normal", {"mean": 0.5, "std": 0.02, "a": 0.48, "b": 0.55}),
        ("trunc_normal", {"a": 3.0, "b": 5.0}),
        ("xavier_uniform", {"gain": 2.0}),
        ("xavier_normal", {"gain": 0.5}),
        ("kaiming_uniform", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("kaiming_uniform", {"a": 0.3}),
        ("kaiming_normal", {"nonlinearity": "tanh"}),
        ("kaiming_normal", {"mode": "fan_out"}),
        ("orthogonal", {"gain": 3.0}),
        ("sparse", {"sparsity": 0.3, "std": 2.0}),
    ],
)
def test_draws_follow_torchs_distribution(name, options):
    shape = (50, 200) if name == "sparse" else (20, 100, 5)
    torch.manual_seed(3)
    theirs = getattr(torch.nn.init, f"{name}_")(torch.empty(shape), **options)
    assert_same_distribution(getattr(init, name)(KEY, shape, **options), theirs)


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("constant", (2, 3), {"val": 1.5}),
        ("ones", (4,), {}),
        ("zeros", (2, 2), {}),
        ("eye", (3, 5), {}),
        ("dirac", (6, 2, 3), {"groups": 2}),
        ("dirac", (4, 5, 4, 3), {}),
        ("dirac", (2, 4, 1, 2, 3), {"groups": 2}),
    ],
)
def test_constants_are_torchs(name, shape, options):
    theirs = getattr(torch.nn.init, f"{name}_")(torch.empty(shape), **options)
    np.testing.assert_array_equal(getattr(init, name)(shape, **options), theirs.numpy())


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    matrix = init.orthogonal(KEY, shape, gain=2.0).reshape(shape[0], -1)
    product = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4.0 * np.eye(len(product)), atol=1e-5)


def test_orthogonal_is_uniform_over_rotations_and_not_biased_by_the_factorization():
    matrices = jax.vmap(lambda key: init.orthogonal(key, (3, 3)))(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(matrices.mean(0), np.zeros((3, 3)), atol=0.06)


def test_sparse_zeroes_as_many_in_every_column_in_different_places():
    array = np.asarray(init.sparse(KEY, (10, 40), sparsity=0.25))
    assert ((array == 0).sum(0) == 3).all()
    assert len({tuple(column) for column in (array == 0).T}) > 20


@pytest.mark.parametrize(("a", "b"), [(5.0, 6.0), (-6.0, -5.0)])
def test_truncation_far_in_a_tail_keeps_its_digits(a, b):
    draws = np.asarray(init.trunc_normal(KEY, (2000,), a=a, b=b))
    assert ((draws >= a) & (draws <= b)).all()
    assert len(np.unique(draws)) > 1500
    # The mean of a normal beyond 5 is phi(5) / Q(5) = 5.1865; what lies beyond 6 moves it by 0.003.
    assert abs(abs(draws.mean()) - 5.183) < 0.02


def test_truncation_without_probability_is_refused():
    with pytest.raises(ValueError, match=r"\[50.0, 51.0\] has no probability"):
        init.trunc_normal(KEY, (2,), a=50.0, b=51.0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize(
    "name", ["uniform", "normal", "trunc_normal", "xavier_normal", "kaiming_uniform", "orthogonal"]
)
def test_half_precision_is_drawn_under_jit(name, dtype):
    array = jax.jit(lambda key: getattr(init, name)(key, (8, 8), dtype=dtype))(KEY)
    assert array.dtype == dtype
    assert jnp.isfinite(array).all()


@pytest.mark.parametrize("name", ["kaiming_uniform", "kaiming_normal", "orthogonal"])
def test_an_empty_weight_is_filled_with_nothing(name):
    assert getattr(init, name)(KEY, (3, 0)).shape == (3, 0)


@pytest.mark.parametrize("nonlinearity", [*init.GAINS, "leaky_relu"])
def test_gains_are_torchs(nonlinearity):
    assert init.calculate_gain(nonlinearity) == torch.nn.init.calculate_gain(nonlinearity)
    assert init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)


@pytest.mark.parametrize(
    ("ours", "theirs", "match"),
    [
        (lambda: init.eye((2, 2, 2)), lambda: torch.nn.init.eye_(torch.empty(2, 2, 2)), "two axes"),
        (lambda: init.dirac((2, 2)), lambda: torch.nn.init.dirac_(torch.empty(2, 2)), "three to five axes"),
        (
            lambda: init.dirac((3, 2, 2), groups=2),
            lambda: torch.nn.init.dirac_(torch.empty(3, 2, 2), groups=2),
            "divisible by groups=2, got 3",
        ),
        (lambda: init.xavier_normal(KEY, (3,)), lambda: torch.nn.init.xavier_normal_(torch.empty(3)), "two axes"),
        (
            lambda: init.kaiming_normal(KEY, (3, 3), mode="fan"),
            lambda: torch.nn.init.kaiming_normal_(torch.empty(3, 3), mode="fan"),
            "mode must be",
        ),
        (lambda: init.calculate_gain("gelu"), lambda: torch.nn.init.calculate_gain("gelu"), "got 'gelu'"),
        (
            lambda: init.calculate_gain("leaky_relu", True),
            lambda: torch.nn.init.calculate_gain("leaky_relu", True),
            "a number, got True",
        ),
        (lambda: init.orthogonal(KEY, (3,)), lambda: torch.nn.init.orthogonal_(torch.empty(3)), "two axes"),
        (
            lambda: init.sparse(KEY, (3,), 0.5),
            lambda: torch.nn.init.sparse_(torch.empty(3), 0.5),
            "two axes",
        ),
        (
            lambda: init.uniform(KEY, (3,), 1.0, 0.0),
            lambda: torch.nn.init.uniform_(torch.empty(3), 1.0, 0.0),
            "must not exceed",
        ),
        (lambda: init.normal(KEY, (3,), 0.0, -1.0), lambda: torch.nn.init.normal_(torch.empty(3), 0, -1.0), "negative"),
    ],
)
def test_what_torch_refuses_is_refused(ours, theirs, match):
    with pytest.raises(Exception) as error:  # noqa: PT011 - whatever torch raises
        theirs()
    with pytest.raises(type(error.value), match=match):
        ours()
