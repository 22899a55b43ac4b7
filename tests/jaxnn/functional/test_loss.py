import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.experimental import checkify

from jaxnn import functional as F

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("target", [4, -1, 100])
def test_a_class_out_of_range_is_an_index_error_and_nan_under_jit(target):
    logits, targets = normal(3, 4), np.array([0, target, 2])
    for loss in (F.cross_entropy, F.nll_loss):
        with pytest.raises(IndexError, match=f"target {target} is not a class: there are 4"):
            loss(logits, targets)
        assert np.isnan(jax.jit(loss)(logits, targets))
        each = jax.jit(lambda x, y, loss=loss: loss(x, y, reduction="none"))(logits, targets)
        np.testing.assert_array_equal(np.isnan(each), [False, True, False])


def test_checkify_turns_the_nan_into_an_error():
    checked = checkify.checkify(jax.jit(F.cross_entropy), errors=checkify.nan_checks)
    error, _ = checked(normal(2, 3), np.array([0, 7]))
    with pytest.raises(Exception, match="nan"):
        error.throw()


def test_targets_known_under_jit_are_checked_while_tracing():
    targets = jnp.array([0, 9])
    with pytest.raises(IndexError, match="target 9"):
        jax.jit(lambda x: F.cross_entropy(x, targets))(normal(2, 3))
    ok = jnp.array([0, 1])
    assert np.isfinite(jax.jit(lambda x: F.cross_entropy(x, ok))(normal(2, 3)))


def test_ignored_targets_count_nothing_and_a_mean_of_none_is_nan():
    logits, targets = normal(4, 3), np.array([0, -100, 2, -100])
    kept = F.cross_entropy(logits[[0, 2]], targets[[0, 2]])
    np.testing.assert_allclose(F.cross_entropy(logits, targets), kept, rtol=1e-6)
    assert np.isnan(F.cross_entropy(logits, np.full(4, -100)))
    gradient = jax.grad(lambda x: F.cross_entropy(x, targets))(jnp.asarray(logits))
    np.testing.assert_array_equal(gradient[1], 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_cross_entropy_with_every_option_is_torchs(smoothing, reduction):
    x, y, w = normal(5, 4, 3), rng.integers(0, 4, (5, 3)), rng.uniform(0.5, 2, 4).astype(np.float32)
    y[0, 0] = 2
    options = {"ignore_index": 2, "reduction": reduction, "label_smoothing": smoothing}
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(x), torch.from_numpy(y), weight=torch.from_numpy(w), **options
    )
    np.testing.assert_allclose(F.cross_entropy(x, y, weight=w, **options), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_saturated_logits_stay_finite_in_value_and_gradient():
    x = jnp.array([[1e4, -1e4, 0.0]])
    value, gradient = jax.value_and_grad(lambda x: F.cross_entropy(x, jnp.array([1])))(x)
    assert value == 2e4
    np.testing.assert_allclose(gradient, [[1.0, -1.0, 0.0]], atol=1e-6)
    y = jnp.array([1.0, 0.0])
    value, gradient = jax.value_and_grad(lambda x: F.binary_cross_entropy_with_logits(x, y, reduction="sum"))(
        jnp.array([-1e4, 1e4])
    )
    assert value == 2e4
    np.testing.assert_array_equal(gradient, [-1.0, 1.0])


def test_weighted_bce_of_bfloat16_logits_rounds_no_more_than_torchs():
    generator = torch.Generator().manual_seed(0)
    x, y, p = (
        (torch.rand(1024, generator=generator) * scale).bfloat16() - shift for scale, shift in ((8, 4), (1, 0), (4, 0))
    )
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    truth = loss(x.double(), y.double(), reduction="none", pos_weight=p.double()).numpy()
    theirs = loss(x, y, reduction="none", pos_weight=p).double().numpy()
    x, y, p = (jnp.asarray(v.float().numpy(), jnp.bfloat16) for v in (x, y, p))
    ours = np.asarray(F.binary_cross_entropy_with_logits(x, y, reduction="none", pos_weight=p), np.float64)
    assert np.std(ours - truth) <= 1.05 * np.std(theirs - truth)


def test_bce_at_certainty_has_torchs_bounded_loss_and_slope():
    x, y = [0.0, 1.0, 0.5], [1.0, 0.0, 0.2]
    theirs = torch.tensor(x, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy(theirs, torch.tensor(y), reduction="sum")
    loss.backward()
    value, gradient = jax.value_and_grad(lambda x: F.binary_cross_entropy(x, jnp.array(y), reduction="sum"))(
        jnp.array(x)
    )
    np.testing.assert_allclose(value, loss.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("wrong", [1.5, -0.1, np.nan])
def test_bce_of_what_is_no_probability_is_refused_and_nan_under_jit(wrong):
    x, y = np.array([0.5, wrong], np.float32), np.array([1.0, 1.0], np.float32)
    with pytest.raises(RuntimeError, match=r"input must lie in \[0, 1\]"):
        F.binary_cross_entropy(x, y)
    assert np.isnan(jax.jit(F.binary_cross_entropy)(x, y))


def test_the_gradient_of_absolute_errors_is_zero_at_zero():
    for loss in (F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        np.testing.assert_array_equal(jax.grad(lambda x, loss=loss: loss(x, jnp.zeros(3)))(jnp.zeros(3)), 0)


def test_hinges_have_torchs_gradient_at_the_kink_and_of_nan():
    def theirs(f, *xs):
        xs = [torch.tensor(x, requires_grad=True) for x in xs]
        return [g.numpy() for g in torch.autograd.grad(f(*xs), xs)]

    one, zero = [1.0, torch.nan], [0.0, 0.0]
    y = torch.ones(2)
    expected = theirs(lambda a, b: torch.nn.functional.margin_ranking_loss(a, b, y, 1.0, reduction="sum"), one, zero)
    found = jax.grad(lambda a, b: F.margin_ranking_loss(a, b, jnp.ones(2), 1.0, reduction="sum"), (0, 1))(
        jnp.array(one), jnp.array(zero)
    )
    np.testing.assert_array_equal(found, expected)
    expected = theirs(lambda a: torch.nn.functional.hinge_embedding_loss(a, -y, reduction="sum"), one)
    found = jax.grad(lambda a: F.hinge_embedding_loss(a, -jnp.ones(2), reduction="sum"))(jnp.array(one))
    np.testing.assert_array_equal(found, expected[0])


@pytest.mark.filterwarnings("default")
def test_another_shape_is_broadcast_with_a_warning_or_refused():
    with pytest.warns(UserWarning, match=r"target has shape \(3,\), input \(2, 3\)"):
        F.mse_loss(normal(2, 3), normal(3))
    with pytest.raises(RuntimeError, match=r"input \(2, 3\), target \(2,\)"):
        F.mse_loss(normal(2, 3), normal(2))


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.mse_loss(normal(3), normal(3), reduction="average"),
        lambda: F.cross_entropy(normal(3, 4), np.zeros(3, int), reduction="average"),
        lambda: F.ctc_loss(normal(4, 1, 3), np.ones((1, 2), int), [4], [2], reduction="average"),
        lambda: F.triplet_margin_loss(normal(3, 4), normal(3, 4), normal(3, 4), reduction="average"),
    ],
)
def test_an_unknown_reduction_is_refused(call):
    with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'average'"):
        call()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: F.cross_entropy(normal(3, 4), np.zeros(2, int)), r"target must have shape \(3,\)"),
        (lambda: F.cross_entropy(normal(3, 4), np.zeros(3, int), weight=normal(3)), r"weight must have shape \(4,\)"),
        (lambda: F.cross_entropy(normal(3, 4), np.zeros(3, int), label_smoothing=1.5), r"\[0, 1\], got 1.5"),
        (lambda: F.cross_entropy(normal(3, 4), normal(3, 4), ignore_index=1), "ignore_index=1"),
        (lambda: F.huber_loss(normal(3), normal(3), delta=0), "delta must be positive, got 0"),
        (lambda: F.smooth_l1_loss(normal(3), normal(3), beta=-1), "beta cannot be negative, got -1"),
        (lambda: F.gaussian_nll_loss(normal(3), normal(3), -np.ones(3, np.float32)), "var cannot be negative, got -1"),
        (lambda: F.multi_margin_loss(normal(3, 4), np.zeros(3, int), p=3), "p must be 1 or 2, got 3"),
        (lambda: F.multi_margin_loss(normal(3, 4), np.full(3, 4)), "target 4 is not a class"),
        (lambda: F.ctc_loss(normal(4, 1, 3), np.ones((1, 2), int), [5], [2]), r"input_lengths must lie in \[0, 4\]"),
        (lambda: F.ctc_loss(normal(4, 1, 3), np.full((1, 2), 3), [4], [2]), "target 3 is not one of 3 classes"),
        (lambda: F.ctc_loss(normal(4, 1, 3), np.ones((1, 2), int), [4], [2], blank=3), "blank must be one of 3"),
        (lambda: F.linear_cross_entropy(normal(3, 4), normal(5, 3), np.zeros(3, int)), "in_features=3"),
    ],
)
def test_bad_input_is_refused_with_its_name_and_value(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def ctc_pair(steps, lengths, targets, target_lengths, **options):
    x = torch.log_softmax(torch.from_numpy(normal(steps, len(lengths), 5)), -1).requires_grad_()
    theirs = torch.nn.functional.ctc_loss(x, targets, lengths, target_lengths, reduction="none", **options)
    (gradient,) = torch.autograd.grad(theirs.sum(), x)

    def ours(x):
        return F.ctc_loss(x, targets.numpy(), lengths, target_lengths, reduction="none", **options)

    array = jnp.asarray(x.detach().numpy())
    found = jax.grad(lambda x: ours(x).sum())(array)
    return (theirs.detach().numpy(), gradient.numpy()), (ours(array), found)


def test_ctc_of_repeats_empty_targets_and_short_inputs_is_torchs():
    targets = torch.tensor([[1, 1, 2], [3, 0, 0], [1, 2, 3], [4, 4, 4]])
    theirs, ours = ctc_pair(9, [9, 4, 7, 9], targets, [3, 0, 2, 3])
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_ctc_of_an_impossible_target_is_infinite_or_nothing():
    targets = torch.tensor([[1, 1, 1], [1, 2, 3]])
    theirs, ours = ctc_pair(4, [4, 4], targets, [3, 3])
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(ours[1]), np.isnan(theirs[1]))
    assert np.isposinf(ours[0][0])
    theirs, ours = ctc_pair(4, [4, 4], targets, [3, 3], zero_infinity=True)
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    assert np.isfinite(ours[1]).all()


def test_ctc_takes_targets_in_a_line_under_jit():
    x = jax.nn.log_softmax(jnp.asarray(normal(8, 2, 5)))
    padded, line = np.array([[1, 2, 3], [4, 1, 0]]), np.array([1, 2, 3, 4, 1])
    lengths, target_lengths = jnp.array([8, 7]), jnp.array([3, 2])
    expected = F.ctc_loss(x, padded, lengths, target_lengths)
    np.testing.assert_allclose(jax.jit(F.ctc_loss)(x, line, lengths, target_lengths), expected, rtol=1e-6)


def test_ctc_does_not_unroll_over_time():
    def program(steps):
        x, y = jnp.zeros((steps, 2, 5)), jnp.ones((2, 3), int)
        return len(str(jax.make_jaxpr(jax.grad(lambda x: F.ctc_loss(x, y, [steps] * 2, [3, 3])))(x)))

    assert program(200) < 1.2 * program(20)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("rows", [1, 4, 5, 100])
def test_chunks_of_linear_cross_entropy_change_nothing(rows, reduction):
    x, w, b = normal(17, 6), normal(9, 6), normal(9)
    y = rng.integers(0, 9, 17)
    y[3] = -100
    options = F.LinearCrossEntropyOptions(batch_chunk_size=rows)

    def loss(x, w, b, options):
        return jnp.sum(F.linear_cross_entropy(x, w, y, linear_bias=b, reduction=reduction, options=options))

    arrays = [jnp.asarray(a) for a in (x, w, b)]
    whole = jax.value_and_grad(loss, (0, 1, 2))(*arrays, None)
    parts = jax.value_and_grad(loss, (0, 1, 2))(*arrays, options)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), parts, whole)


def test_linear_cross_entropy_never_holds_the_logits():
    rows, width, classes = 1024, 64, 32768
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((rows, width), (classes, width))]
    target = jax.ShapeDtypeStruct((rows,), jnp.int32)

    def memory(loss):
        return jax.jit(jax.grad(loss, (0, 1))).lower(*shapes, target).compile().memory_analysis().temp_size_in_bytes

    chunked = memory(lambda x, w, y: F.linear_cross_entropy(x, w, y))
    plain = memory(lambda x, w, y: F.cross_entropy(F.linear(x, w), y))
    assert plain >= rows * classes * 4
    assert chunked < plain / 2


@pytest.mark.parametrize("name", ["l1_loss", "smooth_l1_loss", "huber_loss"])
def test_slopes_at_zero_at_the_bend_at_infinity_and_of_nan_are_torchs(name):
    x = torch.tensor([0.0, 0.3, -0.3, 1.0, -1.0, 2.5, -2.5, torch.inf, -torch.inf, torch.nan], requires_grad=True)
    loss = getattr(torch.nn.functional, name)(x, torch.zeros_like(x), reduction="none")
    (slope,) = torch.autograd.grad(loss.sum(), x)
    ours = jnp.asarray(x.detach().numpy())
    found, pullback = jax.vjp(lambda x: getattr(F, name)(x, jnp.zeros_like(x), reduction="none"), ours)
    np.testing.assert_array_equal(found, loss.detach())
    np.testing.assert_array_equal(pullback(jnp.ones_like(found))[0], slope)


@pytest.mark.parametrize(
    ("name", "dtypes", "kwargs"),
    [
        ("binary_cross_entropy_with_logits", ("float64", "float32"), {}),
        ("binary_cross_entropy_with_logits", ("float32", "bfloat16"), {}),
        ("binary_cross_entropy", ("bfloat16", "bfloat16", "float32"), {}),
        ("hinge_embedding_loss", ("bfloat16", "float32"), {}),
        ("poisson_nll_loss", ("int32", "int32"), {}),
        ("poisson_nll_loss", ("int32", "int32"), {"log_input": False}),
        ("margin_ranking_loss", ("uint8", "uint8", "uint8"), {}),
    ],
)
def test_a_loss_of_mixed_dtypes_has_torchs(name, dtypes, kwargs):
    arrays = [np.array([[1.0, 0.0, 1.0]]), np.array([[1.0, 1.0, 1.0]]), np.array([[0.0, 1.0, 1.0]])]
    tensors = [torch.tensor(x).to(getattr(torch, dtype)) for x, dtype in zip(arrays, dtypes, strict=False)]
    theirs = getattr(torch.nn.functional, name)(*tensors, **kwargs)
    with jax.enable_x64(True):
        ours = getattr(F, name)(*(jnp.asarray(x, dtype) for x, dtype in zip(arrays, dtypes, strict=False)), **kwargs)
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(ours, theirs.double(), rtol=2**-7)


@pytest.mark.parametrize("name", ["binary_cross_entropy_with_logits", "soft_margin_loss"])
def test_labels_that_are_no_floats_are_refused_where_torch_refuses_them(name):
    x = np.array([1, 0]) if name == "soft_margin_loss" else np.array([1.0, 0.0], np.float32)
    with pytest.raises(RuntimeError):
        getattr(torch.nn.functional, name)(torch.tensor(x), torch.tensor([1, 0]))
    with pytest.raises(NotImplementedError, match="floating point, got int"):
        getattr(F, name)(x, np.array([1, 0]))


def test_absolute_errors_of_integers_are_torchs_and_have_no_mean():
    x, y = np.array([1, 250], np.uint8), np.array([3, 5], np.uint8)
    for call in ({"reduction": "none"}, {"reduction": "sum"}, {"weight": np.array([2, 3], np.uint8)}):
        theirs = torch.nn.functional.l1_loss(
            torch.tensor(x),
            torch.tensor(y),
            **{key: torch.tensor(v) if key == "weight" else v for key, v in call.items()},
        )
        np.testing.assert_allclose(F.l1_loss(x, y, **call), theirs, rtol=1e-6)
    with pytest.raises(RuntimeError, match=r"mean.*uint8"):
        F.smooth_l1_loss(x, y, beta=0)
    with pytest.raises(RuntimeError, match="booleans"):
        F.l1_loss(x > 2, y)
