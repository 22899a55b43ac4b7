"""Attention: masks, blocks against the whole, memory, and multi-head attention's options against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn import functional as F
from jaxnn.functional import attention

T = torch.nn.functional


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def torches(options):
    return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


def assert_attends_as_torch(q, k, v, options):
    leaves = [torch.from_numpy(x.copy()).requires_grad_() for x in (q, k, v)]
    expected = T.scaled_dot_product_attention(*leaves, **torches(options))
    gradients = torch.autograd.grad(expected.sum(), leaves)
    found, pullback = jax.vjp(lambda *x: F.scaled_dot_product_attention(*x, **options), *map(jnp.asarray, (q, k, v)))
    for a, b in zip((found, *pullback(jnp.ones_like(found))), (expected, *gradients), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-4, atol=1e-5)


keep = np.random.default_rng(3).random((7, 5)) < 0.6
keep[2] = False
MASKS = {
    "none": {},
    "boolean with a query that sees nothing": {"attn_mask": keep},
    "additive with a query that sees nothing": {"attn_mask": np.where(keep, drawn(7, 5), -np.inf).astype(np.float32)},
    "for each head": {"attn_mask": drawn(3, 7, 5)},
    "for each image": {"attn_mask": drawn(2, 1, 1, 5)},
    "causal": {"is_causal": True},
    "scaled": {"scale": -2.0},
}


@pytest.fixture
def in_blocks(monkeypatch):
    """Blocks of two or so queries, whatever the length."""
    monkeypatch.setattr(attention, "BLOCKWISE_FROM", 1)
    monkeypatch.setattr(attention, "BLOCK_SCORES", 10)


@pytest.mark.parametrize("options", MASKS.values(), ids=MASKS.keys())
def test_every_mask_has_torchs_values_and_gradients(options):
    assert_attends_as_torch(drawn(2, 3, 7, 4), drawn(2, 3, 5, 4, seed=1), drawn(2, 3, 5, 6, seed=2), options)


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("options", MASKS.values(), ids=MASKS.keys())
def test_every_mask_has_torchs_values_and_gradients_in_blocks(options):
    assert_attends_as_torch(drawn(2, 3, 7, 4), drawn(2, 3, 5, 4, seed=1), drawn(2, 3, 5, 6, seed=2), options)


@pytest.mark.usefixtures("in_blocks")
def test_blocks_on_an_accelerator_compute_the_same(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    q, k, v = drawn(2, 3, 7, 4), drawn(2, 3, 5, 4, seed=1), drawn(2, 3, 5, 6, seed=2)
    assert_attends_as_torch(q, k, v, MASKS["for each head"])


@pytest.mark.parametrize("shapes", [((2, 7, 4), (3, 1, 5, 4)), ((1, 7, 4), (2, 5, 4)), ((7, 4), (2, 3, 5, 4))])
def test_leading_axes_broadcast(shapes):
    q, k = (drawn(*s, seed=i) for i, s in enumerate(shapes))
    assert_attends_as_torch(q, k, drawn(*k.shape, seed=2), {})


def test_causal_masks_align_at_the_first_key_where_lengths_differ():
    assert_attends_as_torch(drawn(3, 4), drawn(6, 4, seed=1), drawn(6, 4, seed=2), {"is_causal": True})
    assert_attends_as_torch(drawn(6, 4), drawn(3, 4, seed=1), drawn(3, 4, seed=2), {"is_causal": True})


def test_grouped_queries_share_the_heads_of_keys_and_values():
    q, k, v = drawn(2, 6, 7, 4), drawn(2, 2, 5, 4, seed=1), drawn(2, 3, 5, 4, seed=2)
    assert_attends_as_torch(q, k, v, {"enable_gqa": True})


def test_a_nan_in_a_masked_key_comes_through_as_in_torch():
    k = drawn(5, 4, seed=1)
    k[0] = np.nan
    assert jnp.isnan(F.scaled_dot_product_attention(drawn(7, 4), k, drawn(5, 4), keep & (np.arange(5) > 0))).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("length", [32, 320])
def test_half_precision_is_as_exact_as_torchs(dtype, length):
    arrays = [jax.random.normal(jax.random.key(i), (2, length, 16)).astype(dtype) for i in range(3)]
    tensors = [torch.from_numpy(np.asarray(x, np.float32)).to(getattr(torch, dtype.__name__)) for x in arrays]
    truth = T.scaled_dot_product_attention(*(x.double() for x in tensors)).numpy()
    torch_error = np.abs(T.scaled_dot_product_attention(*tensors).double().numpy() - truth).max()
    found = F.scaled_dot_product_attention(*arrays)
    assert found.dtype == dtype
    assert np.abs(np.asarray(found, np.float64) - truth).max() <= 3 * torch_error
    gradients = jax.grad(lambda *x: F.scaled_dot_product_attention(*x).astype(jnp.float32).sum(), (0, 1, 2))(*arrays)
    assert all(g.dtype == dtype and jnp.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("is_causal", [False, True])
def test_memory_grows_linearly_with_length_forward_and_backward(is_causal):
    def temporaries(length):
        x = jax.ShapeDtypeStruct((1, 2, length, 64), jnp.float32)
        gradient = jax.grad(lambda *x: F.scaled_dot_product_attention(*x, is_causal=is_causal).sum(), (0, 1, 2))
        return jax.jit(gradient).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    at_4096, at_8192 = temporaries(4096), temporaries(8192)
    assert at_8192 < 2.1 * at_4096
    # The scores of one head alone would be 64 MiB.
    assert at_4096 < 40 * 2**20


@pytest.mark.usefixtures("in_blocks")
def test_blocks_map_differentiate_twice_and_go_forward():
    q, k, v = jnp.asarray(drawn(3, 7, 4)), drawn(5, 4, seed=1), drawn(5, 4, seed=2)

    def whole(q):
        scores = q @ k.T / 2
        return jnp.sum((jax.nn.softmax(scores, axis=-1) @ v) ** 3)

    def blockwise(q):
        return jnp.sum(F.scaled_dot_product_attention(q, k, v) ** 3)

    def curvature(f):
        return jax.grad(lambda q: jnp.sum(jax.grad(f)(q) ** 2))

    for transform in (jax.grad, curvature, lambda f: lambda q: jax.jvp(f, (q,), (q,))[1]):
        found, expected = (jax.jit(jax.vmap(transform(f)))(q) for f in (blockwise, whole))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_dropout_keeps_the_mean_and_needs_a_key():
    q, v = np.zeros((64, 1), np.float32), np.ones((512, 1), np.float32)
    with pytest.raises(F.ArgumentError, match="key"):
        F.scaled_dot_product_attention(q, v, v, dropout_p=0.5)
    dropped = F.scaled_dot_product_attention(q, v, v, dropout_p=0.5, dropout_key=jax.random.key(0))
    assert 0.01 < jnp.std(dropped) < 0.1
    np.testing.assert_allclose(jnp.mean(dropped), 1.0, atol=0.02)


q, k, v = drawn(2, 3, 4), drawn(2, 5, 4), drawn(2, 5, 4)
REFUSED = [
    ((q[0, 0], k, v), {}, RuntimeError, "expected query"),
    ((q, k[..., :3], v), {}, RuntimeError, "expected query"),
    ((q, k, v[:, :4]), {}, RuntimeError, "expected query"),
    ((q, k[[0, 0, 0]], v), {}, RuntimeError, "broadcast"),
    ((q, k.astype(np.float16), v), {}, RuntimeError, "one dtype"),
    ((q.astype(int), k.astype(int), v.astype(int)), {}, RuntimeError, "floating"),
    ((q + 0j, k + 0j, v + 0j), {}, NotImplementedError, "complex"),
    ((q, k, v), {"attn_mask": np.ones((3, 5), bool), "is_causal": True}, RuntimeError, "is_causal"),
    ((q, k, v), {"attn_mask": np.ones((3, 4), bool)}, RuntimeError, "attn_mask must broadcast"),
    ((q, k, v), {"attn_mask": np.ones((7, 2, 3, 5), bool)}, RuntimeError, "attn_mask must broadcast"),
    ((q, k, v), {"attn_mask": np.ones((3, 5), np.int32)}, RuntimeError, "attn_mask must be bool"),
    ((q, k, v), {"attn_mask": np.ones((3, 5), np.float16)}, RuntimeError, "attn_mask must be bool"),
    ((q, k, v), {"dropout_p": 1.5}, RuntimeError, "p is a probability"),
    ((q[0], k[0], v[0]), {"enable_gqa": True}, IndexError, "axis of heads"),
    ((q[[0, 0, 0]], k, v), {"enable_gqa": True}, RuntimeError, "divide"),
]


@pytest.mark.parametrize(("arrays", "options", "error", "why"), REFUSED)
def test_what_torch_refuses_is_refused_with_the_reason(arrays, options, error, why):
    with pytest.raises(error, match=why):
        F.scaled_dot_product_attention(*arrays, **options)
    with pytest.raises(error):
        T.scaled_dot_product_attention(*map(torch.from_numpy, arrays), **torches(options))


L, S, N, E, H = 3, 5, 2, 4, 2


def multi_head(**changes):
    """Arguments of multi_head_attention_forward, some of them changed."""
    packed = {"in_proj_weight": drawn(3 * E, E, seed=3), "in_proj_bias": drawn(3 * E, seed=4)}
    sequences = {"query": drawn(L, N, E), "key": drawn(S, N, E, seed=1), "value": drawn(S, N, E, seed=2)}
    extras = {"bias_k": None, "bias_v": None, "add_zero_attn": False, "dropout_p": 0.0}
    out = {"out_proj_weight": drawn(E, E, seed=5), "out_proj_bias": drawn(E, seed=6)}
    return {**sequences, "embed_dim_to_check": E, "num_heads": H, **packed, **extras, **out, **changes}


hidden = np.array([[False, True, False, False, True], [True, False, False, False, False]])
causal = np.where(np.tri(L, S, dtype=bool), 0, -np.inf).astype(np.float32)
SEPARATE = {
    "use_separate_proj_weight": True,
    "in_proj_weight": None,
    "q_proj_weight": drawn(E, E),
    "k_proj_weight": drawn(E, 3),
    "v_proj_weight": drawn(E, 6),
    "key": drawn(S, N, 3),
    "value": drawn(S, N, 6),
}
OPTIONS = {
    "plain": {},
    "unbatched": {"query": drawn(L, E), "key": drawn(S, E), "value": drawn(S, E), "key_padding_mask": hidden[0]},
    "hidden keys": {"key_padding_mask": hidden},
    "hidden keys and a float mask": {"key_padding_mask": hidden, "attn_mask": drawn(L, S)},
    "mask for each head": {"attn_mask": drawn(N * H, L, S) > 1},
    "causal hint": {"attn_mask": causal, "is_causal": True},
    "causal hint with hidden keys": {"attn_mask": causal, "is_causal": True, "key_padding_mask": ~hidden},
    "attached keys": {
        "bias_k": drawn(1, 1, E),
        "bias_v": drawn(1, 1, E),
        "add_zero_attn": True,
        "attn_mask": drawn(L, S),
    },
    "static keys": {"static_k": drawn(N * H, 6, E // H), "static_v": drawn(N * H, 6, E // H), "add_zero_attn": True},
    "separate projections": SEPARATE,
    "without biases": {"in_proj_bias": None, "out_proj_bias": None, "average_attn_weights": False},
}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
def test_multi_head_attention_has_torchs_output_and_weights(changes, need_weights):
    arguments = multi_head(**changes, need_weights=need_weights, training=False)
    expected = T.multi_head_attention_forward(**torches(arguments))
    for a, b in zip(F.multi_head_attention_forward(**arguments), expected, strict=True):
        if b is None:
            assert a is None
        else:
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", ["all", "memory"])
def test_multi_head_attention_projects_shared_sequences_at_once_and_equally(shared):
    x, memory = jnp.asarray(drawn(S, N, E)), jnp.asarray(drawn(S, N, E, seed=1))
    same = {"query": x, "key": x, "value": x} if shared == "all" else {"query": x, "key": memory, "value": memory}
    apart = {name: jnp.copy(array) for name, array in same.items()}
    found, expected = (F.multi_head_attention_forward(**multi_head(**s))[0] for s in (same, apart))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_query_whose_keys_are_all_hidden_is_nan_with_weights_and_not_without():
    everything = np.ones((N, S), bool)
    with_weights, weights = F.multi_head_attention_forward(**multi_head(key_padding_mask=everything))
    without, _ = F.multi_head_attention_forward(**multi_head(key_padding_mask=everything, need_weights=False))
    assert jnp.isnan(with_weights).all()
    assert jnp.isnan(weights).all()
    np.testing.assert_allclose(without, np.broadcast_to(drawn(E, seed=6), without.shape), rtol=1e-6)


WRONG = [
    ({"query": drawn(L)}, "axes"),
    ({"key": drawn(S, E)}, "axes"),
    ({"embed_dim_to_check": 5}, "features"),
    ({"num_heads": 3}, "num_heads"),
    ({"value": drawn(4, N, E)}, "key and value"),
    ({"in_proj_weight": None}, "in_proj_weight"),
    ({"in_proj_bias": drawn(11)}, "in_proj_bias"),
    ({"bias_k": drawn(1, 1, E)}, "together"),
    ({"attn_mask": drawn(L, 4)}, "attn_mask"),
    ({"attn_mask": np.ones((L, S), np.int32)}, "attn_mask"),
    ({"key_padding_mask": np.ones((N, 4), bool)}, "key_padding_mask"),
    ({"key_padding_mask": np.ones(S, bool)}, "key_padding_mask"),
    ({"is_causal": True}, "attn_mask=None"),
    ({"static_k": drawn(3, S, 2)}, "static_k"),
    ({"use_separate_proj_weight": True}, "q_proj_weight"),
    ({"out_proj_weight": drawn(E, 5)}, "in_features"),
]


@pytest.mark.parametrize(("changes", "why"), WRONG)
def test_multi_head_attention_refuses_as_torch_does(changes, why):
    arguments = multi_head(**changes)
    with pytest.raises((AssertionError, RuntimeError)) as refusal:
        T.multi_head_attention_forward(**torches(arguments))
    with pytest.raises(refusal.type, match=why):
        F.multi_head_attention_forward(**arguments)
