import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import nn


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["conv", "transposed", "linear"])
def test_a_layer_with_its_batch_norm_fused_in_gives_what_both_give(kind, bias):
    layer, bn, fuse, shape = {
        "conv": (
            nn.Conv2d(4, 6, 3, groups=2, bias=bias, rngs=nnx.Rngs(0)),
            nn.BatchNorm2d(6),
            nn.utils.fuse_conv_bn_eval,
            (2, 4, 5, 5),
        ),
        "transposed": (
            nn.ConvTranspose1d(4, 6, 3, bias=bias, rngs=nnx.Rngs(0)),
            nn.BatchNorm1d(6),
            lambda conv, bn: nn.utils.fuse_conv_bn_eval(conv, bn, transpose=True),
            (2, 4, 5),
        ),
        "linear": (
            nn.Linear(4, 6, bias=bias, rngs=nnx.Rngs(0)),
            nn.BatchNorm1d(6),
            nn.utils.fuse_linear_bn_eval,
            (2, 4),
        ),
    }[kind]
    for i, variable in enumerate((bn.weight, bn.bias, bn.running_mean, bn.running_var)):
        variable.set_value(jax.random.uniform(jax.random.key(i), (6,)) + 0.5)
    with pytest.raises(AssertionError, match="evaluation mode"):
        fuse(layer, bn)
    bn.eval()
    x = jax.random.normal(jax.random.key(9), shape)
    expected = bn(layer(x))
    np.testing.assert_allclose(fuse(layer, bn)(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(bn(layer(x)), expected)  # the layer itself is as it was


def test_parameters_are_a_vector_and_back_in_torchs_order():
    model = nn.Sequential(nn.Linear(2, 3, rngs=nnx.Rngs(0)), nn.BatchNorm1d(3))
    parameters = [parameter for _, parameter in nn.named_parameters(model)]
    vector = nn.utils.parameters_to_vector(parameters)
    assert vector.tolist() == [x for p in parameters for x in np.ravel(p.get_value()).tolist()]
    nn.utils.vector_to_parameters(jnp.arange(15.0), parameters)
    assert nn.utils.parameters_to_vector(parameters).tolist() == list(range(15))
    with pytest.raises(RuntimeError, match=r"15 entries, got \(14,\)"):
        nn.utils.vector_to_parameters(vector[:14], parameters)
