import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import functional as F

KEY = jax.random.key(0)
EVERY = [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout]


def shape_for(dropout):
    return {F.dropout1d: (4, 8, 5), F.dropout3d: (4, 8, 2, 2, 2)}.get(dropout, (4, 8, 3, 3))


@pytest.mark.parametrize("dropout", EVERY)
@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_outside_0_and_1_is_refused(dropout, p):
    with pytest.raises(ValueError, match=r"p is a probability and must lie in \[0, 1\]"):
        dropout(jnp.ones(shape_for(dropout)), p, False)


@pytest.mark.parametrize("dropout", EVERY)
def test_training_without_a_key_is_refused_and_evaluation_needs_none(dropout):
    x = jnp.ones(shape_for(dropout))
    with pytest.raises(ValueError, match=r"key=None; pass key=jax\.random\.key"):
        dropout(x, 0.5, True)
    np.testing.assert_array_equal(dropout(x, 0.5, False), x)
    np.testing.assert_array_equal(dropout(x, 0.0, True), x)
    np.testing.assert_array_equal(dropout(x, 1.0, True), 0)


@pytest.mark.parametrize("dropout", [F.dropout1d, F.dropout2d, F.dropout3d, F.feature_alpha_dropout])
def test_whole_channels_are_dropped(dropout):
    shape = shape_for(dropout)
    y = np.asarray(dropout(jnp.ones(shape), 0.5, True, key=KEY)).reshape(*shape[:2], -1)
    np.testing.assert_array_equal(y, np.broadcast_to(y[..., :1], y.shape))
    assert len(np.unique(y)) == 2


def test_an_image_without_a_batch_loses_whole_channels():
    y = np.asarray(F.dropout3d(jnp.ones((64, 2, 2, 2)), 0.5, key=KEY)).reshape(64, -1)
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    assert len(np.unique(y)) == 2


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_kept_fraction_and_the_mean_are_as_promised(p):
    n = 200_000
    y = np.asarray(F.dropout(jnp.ones(n), p, key=KEY))
    assert abs((y != 0).mean() - (1 - p)) < 4.5 * np.sqrt(p * (1 - p) / n)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - p), rtol=1e-6)


def test_alpha_dropout_keeps_mean_and_variance():
    x = jax.random.normal(jax.random.key(1), (400_000,))
    y = F.alpha_dropout(x, 0.3, True, key=KEY)
    assert abs(float(jnp.mean(y))) < 0.01
    assert abs(float(jnp.var(y)) - 1) < 0.02


def test_nan_is_not_dropped():
    assert jnp.isnan(F.dropout(jnp.full(8, jnp.nan), 0.5, key=KEY)).all()


def test_one_key_gives_one_mask_under_jit_too():
    x = jnp.ones((16, 16))
    np.testing.assert_array_equal(F.dropout(x, 0.5, key=KEY), jax.jit(lambda x, k: F.dropout(x, 0.5, key=k))(x, KEY))


def test_the_gradient_is_the_mask():
    x = jnp.ones(32)
    y, pullback = jax.vjp(lambda x: F.dropout(x, 0.25, key=KEY), x)
    np.testing.assert_array_equal(pullback(jnp.ones(32))[0], y)


@pytest.mark.filterwarnings("default")
def test_other_ranks_are_warned_of_or_refused_as_in_torch():
    with pytest.raises(RuntimeError, match=r"\(N, C, L\)"):
        F.dropout1d(jnp.ones(4), key=KEY)
    with pytest.warns(UserWarning, match="dropout1d"):
        F.dropout2d(jnp.ones((2, 3, 4)), key=KEY)
    with pytest.warns(UserWarning, match=r"\(N, C, D, H, W\)"):
        F.dropout3d(jnp.ones((2, 3)), key=KEY)
