"""One mistake at a time in a faithful port: it is found, in its layer, and named."""

import jax.numpy as jnp
import pytest

import parity
from jaxnn import functional as F
from tests.parity.checking.networks import pair

FAULTS = []


def fault(network, layer, suspect, mode="train"):
    """Register a mistake; the test's name is its function's."""

    def register(plant):
        FAULTS.append(pytest.param(network, layer, suspect, mode, plant, id=f"{network}-{plant.__name__}"))
        return plant

    return register


def replaced(layer, call):
    """Make ``call`` what the layer computes."""
    layer.__class__ = type(type(layer).__name__, (type(layer),), {"__call__": call})


@fault("convnet", "bn1", "epsilon", mode="eval")
def epsilon_of_batch_norm(model):
    model.bn1.eps = 1e-3


@fault("convnet", "bn2", "epsilon")
def epsilon_of_batch_norm_whose_statistics_move(model):
    model.bn2.eps = 1e-1


@fault("convnet", "bn2", "momentum")
def momentum_the_other_way_round(model):
    model.bn2.momentum = 0.9


@fault("convnet", "act", "gelu approximate")
def gelu_with_tanh(model):
    model.act.approximate = "tanh"


@fault("convnet", "conv1", "transposed weight")
def kernel_with_height_and_width_swapped(model):
    model.conv1.weight[...] = jnp.swapaxes(model.conv1.weight[...], -1, -2)


@fault("convnet", "conv2", "flipped weight")
def kernel_flipped(model):
    model.conv2.weight[...] = model.conv2.weight[...][:, :, ::-1, ::-1]


@fault("convnet", "conv2", "padding")
def padding_on_one_side(model):
    def call(self, x):
        return F.conv2d(jnp.pad(x, ((0, 0), (0, 0), (0, 2), (0, 2))), self.weight[...], self.bias[...], 2)

    replaced(model.conv2, call)


@fault("convnet", "conv1", "padding")
def padding_missing_on_one_side(model):
    def call(self, x):
        x = jnp.pad(x, ((0, 0), (0, 0), (2, 0), (2, 0)))
        return F.conv2d(x, self.weight[...], self.bias[...])

    replaced(model.conv1, call)


@fault("convnet", "pool", "count_include_pad")
def padding_not_counted(model):
    model.pool.count_include_pad = False


@fault("convnet", "head", "scaled bias")
def bias_scaled_by_a_thousandth(model):
    model.head.bias[...] = model.head.bias[...] * 1.001


@fault("convnet", "bn1", "train for eval mode")
def batch_norm_in_evaluation(model):
    model.bn1.use_running_average = True


@fault("convnet", "drop", "train for eval mode")
def dropout_in_evaluation(model):
    model.drop.deterministic = True


@fault("tagger", "lstm", "gate order")
def gates_in_another_order(model):
    model.lstm.order = (0, 1, 3, 2)


@fault("tagger", "lstm", "missing bias")
def second_bias_left_out(model):
    model.lstm.bias_hh_l0[...] = jnp.zeros(28)


@fault("tagger", "norm", "swapped gamma and beta")
def gamma_for_beta(model):
    norm = model.norm
    norm.weight[...], norm.bias[...] = norm.bias[...], norm.weight[...]


@fault("tagger", "norm", "epsilon")
def epsilon_of_layer_norm(model):
    model.norm.eps = 1e-6


@fault("encoder", "blocks.1", "softmax axis")
def softmax_over_queries(model):
    model.blocks[1].fault = "softmax axis"


@fault("encoder", "blocks.2", "masked value")
def masked_scores_not_low_enough(model):
    model.blocks[2].fault = "masked value"


@fault("encoder", "blocks.0", "missing residual")
def residual_left_out(model):
    model.blocks[0].fault = "residual"


@fault("encoder", "blocks.1.norm1", "biased or unbiased variance")
def unbiased_variance(model):
    def call(self, x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / jnp.sqrt(x.var(-1, keepdims=True, ddof=1) + self.eps) * self.weight[...] + self.bias[...]

    replaced(model.blocks[1].norm1, call)


@fault("unet", "resize", "align_corners")
def corners_not_aligned(model):
    model.resize.align_corners = False


@fault("unet", "act", "negative slope")
def slope_of_leaky_relu(model):
    model.act.negative_slope = 0.01


@fault("unet", "", "order")
def skip_joined_behind(model):
    model.reverse = True


@fault("unet", "out", "precision")
def half_precision(model):
    def call(self, x):
        x, weight, bias = (a.astype(jnp.bfloat16) for a in (x, self.weight[...], self.bias[...]))
        return F.conv2d(x, weight, bias).astype(jnp.float32)

    replaced(model.out, call)


@fault("unet", "down2", "dtype promotion")
def half_precision_that_stays(model):
    def call(self, x):
        x, weight, bias = (a.astype(jnp.float16) for a in (x, self.weight[...], self.bias[...]))
        return F.conv2d(x, weight, bias, 1, 1)

    replaced(model.down2, call)


@pytest.mark.parametrize(("network", "layer", "suspect", "mode", "plant"), FAULTS)
def test_a_planted_fault_is_found_and_named(network, layer, suspect, mode, plant):
    theirs, ours, inputs = pair(network)
    for model in (theirs, ours):
        getattr(model, mode)()
    plant(ours)
    report = parity.check(theirs, ours, inputs, gradients=False)
    assert not report.passed
    assert {fault.path for fault in report.faults} == {layer}
    assert report.faults[0].suspect == suspect, report.faults
    assert report.first_divergence == (layer or "output")


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("network", ["convnet", "tagger", "encoder", "unet"])
def test_a_faithful_port_passes_without_tolerances(network, mode):
    theirs, ours, inputs = pair(network)
    for model in (theirs, ours):
        getattr(model, mode)()
    report = parity.check(theirs, ours, inputs)
    assert report.passed, report
    assert not report.only_torch
    assert not report.only_jax
    assert {record.path for record in report.layers} >= {
        name for name, _ in theirs.named_children() if name != "blocks"
    }


def test_every_wrong_layer_is_reported_in_order_and_no_other():
    theirs, ours, inputs = pair("encoder")
    ours.blocks[2].norm2.eps = 1e-3
    ours.blocks[0].qkv.bias[...] = ours.blocks[0].qkv.bias[...] + 0.1
    ours.head.bias[...] = -ours.head.bias[...]
    report = parity.check(theirs, ours, inputs, gradients=False)
    assert [fault.path for fault in report.faults] == ["blocks.0.qkv", "blocks.2.norm2", "head"]
    assert [fault.suspect for fault in report.faults] == ["shifted weight", "epsilon", "sign"]


def test_the_reason_is_a_sentence_with_the_number_in_it():
    theirs, ours, inputs = pair("convnet")
    ours.head.bias[...] = ours.head.bias[...] * 1.001
    said = str(parity.check(theirs, ours, inputs, gradients=False).faults[0])
    assert said == (
        "head: bias differs from the checkpoint by a factor of 1.001; with the checkpoint's bias the layer matches"
    )
