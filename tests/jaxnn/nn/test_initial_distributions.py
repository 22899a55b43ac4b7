"""Every layer with parameters starts in torch's distribution; a layer that joins adds one line to ``LAYERS``."""

import inspect
import math

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from scipy import stats

from jaxnn import nn
from tests.jaxnn.nn.layer_table import LAZY_NAMES

DRAWS = 10_000
LAYERS = [
    ("Linear", (30, 500), {}),
    ("Bilinear", (6, 7, 500), {}),
    ("PReLU", (500,), {}),
    ("Conv1d", (8, 500, 3), {}),
    ("Conv2d", (8, 500, 3), {"groups": 2}),
    ("Conv3d", (4, 500, (2, 3, 1)), {}),
    ("ConvTranspose1d", (8, 500, 3), {}),
    ("ConvTranspose2d", (8, 500, 3), {"groups": 2}),
    ("ConvTranspose3d", (4, 500, (2, 3, 1)), {}),
    ("BatchNorm1d", (500,), {}),
    ("BatchNorm2d", (500,), {}),
    ("BatchNorm3d", (500,), {}),
    ("SyncBatchNorm", (500,), {}),
    ("InstanceNorm1d", (500,), {"affine": True, "track_running_stats": True}),
    ("InstanceNorm2d", (500,), {"affine": True, "track_running_stats": True}),
    ("InstanceNorm3d", (500,), {"affine": True, "track_running_stats": True}),
    ("GroupNorm", (5, 500), {}),
    ("LayerNorm", (500,), {}),
    ("RMSNorm", (500,), {}),
    ("Embedding", (100, 50), {"padding_idx": 3}),
    ("EmbeddingBag", (100, 50), {"padding_idx": 3}),
    ("AdaptiveLogSoftmaxWithLoss", (64, 600, [100, 300]), {"head_bias": True}),
    ("RNN", (20, 500), {}),
    ("LSTM", (20, 125), {"proj_size": 10, "bidirectional": True}),
    ("GRU", (20, 160), {"num_layers": 2}),
    ("RNNCell", (20, 500), {}),
    ("LSTMCell", (20, 125), {}),
    ("GRUCell", (20, 160), {}),
    ("MultiheadAttention", (100, 4), {"add_bias_kv": True}),
    ("MultiheadAttention", (100, 4), {"kdim": 60, "vdim": 80}),
    ("TransformerEncoderLayer", (100, 4, 200), {}),
    ("TransformerDecoderLayer", (100, 4, 200), {}),
    ("LinearCrossEntropyLoss", (30, 500), {"bias": True}),
    ("Transformer", (100, 4, 1, 1, 128), {}),
]


def made(name, args, kwargs, rngs):
    make = getattr(nn, name)
    return make(*args, **kwargs, **({"rngs": rngs} if "rngs" in inspect.signature(make.__init__).parameters else {}))


def torch_draws(name, args, kwargs, count):
    module = (getattr(torch.nn, name)(*args, **kwargs) for _ in range(count))
    drawn = [m.state_dict() for m in module]
    return {path: np.stack([d[path].numpy() for d in drawn]) for path in drawn[0]}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize(("name", "args", "kwargs"), LAYERS, ids=[f"{n}{i}" for i, (n, _, _) in enumerate(LAYERS)])
def test_parameters_start_as_torchs(name, args, kwargs):
    """Kolmogorov-Smirnov at a chance of 1e-4 where torch draws; the same constant where it does not."""
    torch.manual_seed(0)
    sizes = [tensor.numel() for tensor in getattr(torch.nn, name)(*args, **kwargs).state_dict().values()]
    count = min(100, math.ceil(DRAWS / min(size for size in sizes if size > 1)))
    theirs = torch_draws(name, args, kwargs, count)
    keys = jax.random.split(jax.random.key(7), count)
    ours = jax.jit(jax.vmap(lambda key: nn.state_dict(made(name, args, kwargs, nnx.Rngs(key)))))(keys)
    assert ours.keys() == theirs.keys()
    for path, expected in theirs.items():
        got = np.asarray(ours[path])
        assert got.shape == expected.shape
        if (expected == expected[0]).all():
            np.testing.assert_array_equal(got, expected, err_msg=path)
            continue
        assert got.size >= DRAWS
        test = stats.ks_2samp(got.ravel()[:: got.size // DRAWS], expected.ravel()[:: got.size // DRAWS])
        assert test.pvalue > 1e-4, (path, test)


def test_every_layer_with_parameters_is_listed():
    listed = {name for name, _, _ in LAYERS}
    own = {"TransformerEncoder", "TransformerDecoder"}  # made of given layers, copied
    layers = {
        name
        for name in dir(nn)
        if inspect.isclass(make := getattr(nn, name))
        and issubclass(make, nn.Module)
        and {"rngs", "device"} & set(inspect.signature(make.__init__).parameters)
    }
    without = {name for name in layers if "Dropout" in name or name.startswith("FractionalMax") or name == "RReLU"}
    assert layers - without - own - LAZY_NAMES <= listed
