import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn import functional as F

rng = np.random.default_rng(0)
NORMS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf")]


def both_gradients(theirs, ours, x):
    tensor = torch.tensor(x, requires_grad=True)
    output = theirs(tensor)
    cotangent = rng.normal(size=output.shape).astype(np.float32)
    (expected,) = torch.autograd.grad(output, tensor, torch.from_numpy(cotangent))
    found, pullback = jax.vjp(ours, jnp.asarray(x))
    return (output.detach().numpy(), expected.numpy()), (found, pullback(jnp.asarray(cotangent))[0])


@pytest.mark.parametrize("p", NORMS)
def test_pdist_is_torchs_with_gradient_at_coincident_rows_too(p):
    x = rng.normal(size=(5, 4)).astype(np.float32)
    x[3] = x[1]
    x[4, 2] = x[0, 2]
    theirs, ours = both_gradients(lambda x: torch.nn.functional.pdist(x, p), lambda x: F.pdist(x, p), x)
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", NORMS[1:])
def test_pairwise_distance_is_torchs_with_gradient(p):
    x, y = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    y[2] = x[2]
    theirs, ours = both_gradients(
        lambda x: torch.nn.functional.pairwise_distance(x, torch.from_numpy(y), p),
        lambda x: F.pairwise_distance(x, y, p),
        x,
    )
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4)


def test_cosine_similarity_of_a_zero_vector_is_torchs():
    x, y = np.array([[0.0, 0.0], [3.0, 4.0]], np.float32), np.array([[1.0, 2.0], [-3.0, -4.0]], np.float32)
    theirs, ours = both_gradients(
        lambda x: torch.nn.functional.cosine_similarity(x, torch.from_numpy(y)),
        lambda x: F.cosine_similarity(x, y),
        x,
    )
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: F.pdist(jnp.ones(3)), "two axes"),
        (lambda: F.pdist(jnp.ones((3, 2)), -1), "p cannot be negative, got -1"),
        (lambda: F.pairwise_distance(jnp.ones((3, 2)), jnp.ones((4, 2))), r"x1 \(3, 2\), x2 \(4, 2\)"),
        (lambda: F.cosine_similarity(jnp.ones((3, 2)), jnp.ones((3, 5))), "broadcast"),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
