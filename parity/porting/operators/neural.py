"""Operators that torch.nn.functional has under a name of its own."""

import inspect
import math
from typing import Any

from jaxnn import functional
from parity.porting.operators.expression import ATOM, COMPARISON, POWER, PRODUCT, Expression, Several
from parity.porting.operators.operation import Operation, Tensor, only_first
from parity.porting.operators.registry import Builder, register_operator
from parity.porting.source.layers import single

# The parameters of the ATen schema that torch.nn.functional calls otherwise.
_RENAMED = {"self": "input", "indices": "input", "negative_slope": "negative_slope"}


def _functional(name: str, *, dropped: tuple[str, ...] = (), **renamed: str) -> Builder:
    """Write ``F.name``, the arguments that differ from its defaults by keyword behind the first two."""
    parameters = inspect.signature(getattr(functional, name)).parameters

    def write(op: Operation) -> Expression:
        given: dict[str, Any] = {}
        for key, value in op.arguments.items():
            key = renamed.get(key, _RENAMED.get(key, key))
            if key in dropped or (key not in parameters and value in (None, False)):
                continue
            if key not in parameters:
                raise NotImplementedError(f"{op.name} with {key}={value!r}")
            given[key] = value
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for key, parameter in parameters.items():
            if key not in given:
                continue
            value = given[key]
            if _equal(value, parameter.default):
                continue
            value = single(value)
            needed = parameter.default is parameter.empty or isinstance(value, Tensor)
            if needed and not keywords and len(positional) == list(parameters).index(key):
                positional.append(value)
            else:
                keywords[key] = value
        return op.call(f"F.{name}", *positional, **keywords)

    return write


def _equal(value: Any, default: Any) -> bool:
    if isinstance(value, Tensor):
        return False
    if isinstance(value, list | tuple) and not isinstance(default, list | tuple):
        return (default is None and not value) or (
            len(value) > 0 and all(type(v) is type(default) and v == default for v in value)
        )
    return (type(value) is type(default) and value == default) or (value is None and default is None)


for _name in (
    "linear", "relu", "relu6", "selu", "celu", "gelu", "leaky_relu", "prelu", "hardtanh", "hardswish",
    "hardsigmoid", "hardshrink", "softshrink", "silu", "mish", "softplus", "glu", "threshold", "conv1d", "conv2d",
    "conv3d",
    "conv_transpose1d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "bilinear", "cosine_similarity", "pairwise_distance",
    "grid_sampler", "one_hot", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "embedding",
    "group_norm", "layer_norm", "rms_norm",
):  # fmt: skip
    if hasattr(functional, _name):
        register_operator(f"aten.{_name}")(
            _functional(_name, dropped=("cudnn_enable", "cudnn_enabled", "scale_grad_by_freq", "sparse"))
        )
register_operator("aten.log_sigmoid")(_functional("logsigmoid"))
register_operator("aten.conv_transpose2d.input")(_functional("conv_transpose2d"))
register_operator("aten.conv_transpose3d.input")(_functional("conv_transpose3d"))
register_operator("aten.im2col")(_functional("unfold"))
register_operator("aten.col2im")(_functional("fold"))


def _pooled(name: str, **renamed: str) -> Builder:
    """Write ``F.name``, or ``F.name_with_indices`` where the indices are used."""

    def write(op: Operation) -> Expression:
        both = _functional(f"{name}_with_indices", **renamed)(op)
        values, indices = _functional(name, **renamed)(op), Expression(f"{both.text}[1]", ATOM, both.names)
        return Several(both.text, ATOM, both.names, (values, indices))

    return write


for _rank in (1, 2, 3):
    register_operator(f"aten.max_pool{_rank}d_with_indices")(_pooled(f"max_pool{_rank}d"))
    register_operator(f"aten.adaptive_max_pool{_rank}d")(_pooled(f"adaptive_max_pool{_rank}d"))
    if _rank > 1:
        _fractional = _pooled(f"fractional_max_pool{_rank}d", random_samples="_random_samples")
        register_operator(f"aten.fractional_max_pool{_rank}d")(_fractional)


@register_operator("aten.max_unpool2d", "aten.max_unpool3d")
def _unpooled(op: Operation) -> Expression:
    """With a kernel that leads to the size, which is all that is left of it."""
    rank = len(op.output_size)
    sizes = list(zip(op.arguments["self"].shape[-rank:], op.output_size, strict=True))
    strides = [full // size if (full % size) == 0 else 1 for size, full in sizes]
    kernels = [full - (size - 1) * step for (size, full), step in zip(sizes, strides, strict=True)]
    name = f"F.max_unpool{rank}d"
    stride = None if kernels == strides else strides
    [op.arguments.get(key) for key in ("stride", "padding")]  # they are in the size
    return op.call(name, op.arguments["self"], op.arguments["indices"], single(kernels), stride=stride)


@register_operator("aten.embedding_bag")
def _embedding_bag(op: Operation) -> Expression:
    weights = op.arguments.get("per_sample_weights")
    found = op.call(
        "F.embedding_bag", op.indices, op.weight, op.offsets, mode=("sum", "mean", "max")[op.mode],
        scale_grad_by_freq=op.scale_grad_by_freq or None, per_sample_weights=weights,
        include_last_offset=op.include_last_offset or None, padding_idx=op.arguments.get("padding_idx"),
    )  # fmt: skip
    return only_first(op, found, "how the bags lie")


@register_operator("aten.elu")
def _elu(op: Operation) -> Expression:
    if op.scale != 1 or op.input_scale != 1:
        raise NotImplementedError(f"elu with scale={op.scale} and input_scale={op.input_scale}")
    return op.call("F.elu", op.arguments["self"], alpha=None if op.alpha == 1 else op.alpha)


@register_operator("aten.embedding")
def _embedding(op: Operation) -> Expression:
    padding = op.arguments.get("padding_idx", -1)
    return op.call("F.embedding", op.indices, op.weight, padding_idx=None if padding == -1 else padding)


@register_operator("aten.layer_norm")
def _layer_norm(op: Operation) -> Expression:
    eps = None if op.eps == 1e-5 else op.eps
    return op.call("F.layer_norm", op.input, list(op.normalized_shape), op.weight, op.bias, eps=eps)


@register_operator(
    "aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d", "aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d"
)
def _pool(op: Operation) -> Expression:
    name = op.name.split(".")[1]
    size, stride = single(op.kernel_size), single(list(op.stride))
    keywords = {}
    for key, default in (
        ("padding", 0),
        ("dilation", 1),
        ("ceil_mode", False),
        ("count_include_pad", True),
        ("divisor_override", None),
    ):
        value = single(op.arguments.get(key, default))
        if value != default:
            keywords[key] = value
    positional = [size] if not stride or stride == size else [size, stride]
    return op.call(f"F.{name}", op.arguments["self"], *positional, **keywords)


@register_operator("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax")
def _softmax(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if op.output.dtype != operand.dtype:
        operand = op.cast(operand, op.output.dtype)
    return op.call(
        "jax.nn.log_softmax" if "log" in op.name else "jax.nn.softmax",
        operand,
        **({} if op.dim in (-1, op.output.ndim - 1) else {"axis": op.dim}),
    )


@register_operator("aten._safe_softmax")
def _safe_softmax(op: Operation) -> Expression:
    """Zero, no NaN, where all that a softmax is taken of is minus infinity."""
    operand = op.arguments["self"]
    some = Expression(f"{operand.within(COMPARISON + 1)} != -jnp.inf", COMPARISON, operand.names)
    return op.call("jax.nn.softmax", operand, **({} if op.dim == -1 else {"axis": op.dim}), where=some)


@register_operator("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding")
def _conv_padded(op: Operation) -> Expression:
    return _functional(op.name.split(".")[1])(op)


@register_operator("aten.conv_transpose1d", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def _conv_transpose(op: Operation) -> Expression:
    return _functional(op.name.split(".")[1])(op)


@register_operator("aten.convolution")
def _convolution(op: Operation) -> Expression:
    rank = op.input.ndim - 2
    op.arguments.pop("output_padding") if not op.transposed else None
    name = f"conv_transpose{rank}d" if op.arguments.pop("transposed") else f"conv{rank}d"
    return _functional(name)(op)


@register_operator("aten.batch_norm", "aten._native_batch_norm_legit_no_training")
def _batch_norm(op: Operation) -> Expression:
    training = True if op.arguments.get("training") else None
    return op.call(
        "F.batch_norm", op.input, op.running_mean, op.running_var, op.weight, op.bias, training=training,
        eps=None if op.eps == 1e-5 else op.eps,
    )  # fmt: skip


@register_operator("aten.instance_norm")
def _instance_norm(op: Operation) -> Expression:
    return op.call(
        "F.instance_norm", op.input, running_mean=op.running_mean, running_var=op.running_var, weight=op.weight,
        bias=op.bias, use_input_stats=None if op.use_input_stats else False, eps=None if op.eps == 1e-5 else op.eps,
    )  # fmt: skip


@register_operator("parity.batch_norm", "parity.instance_norm")
def _with_stats(op: Operation) -> Expression:
    name = op.name.split(".")[1]
    if math.isnan(op.momentum):
        raise NotImplementedError("an average of the statistics of all batches, in what does not stay a layer")
    batch = name == "batch_norm"
    training = op.host.in_training() if not op.always else True if batch else None  # of an instance it is the default
    return op.call(
        f"F.{name}_with_stats", op.input, op.running_mean, op.running_var, op.weight, op.bias,
        **{"training" if batch else "use_input_stats": training},
        momentum=None if op.momentum == 0.1 else op.momentum, eps=None if op.eps == 1e-5 else op.eps,
    )  # fmt: skip


@register_operator("aten.rms_norm")
def _rms_norm(op: Operation) -> Expression:
    return op.call("F.rms_norm", op.input, list(op.normalized_shape), op.weight, eps=op.eps)


@register_operator("aten.group_norm")
def _group_norm(op: Operation) -> Expression:
    return op.call("F.group_norm", op.input, op.num_groups, op.weight, op.bias, eps=None if op.eps == 1e-5 else op.eps)


@register_operator("aten.scaled_dot_product_attention")
def _attention(op: Operation) -> Expression:
    keywords = {"attn_mask": op.attn_mask, "scale": op.scale}
    training, evaluation = op.host.rates(op.dropout_p, True)
    if training:
        rate = op.expression(training)
        keywords["dropout_p"] = rate if evaluation else op.host.while_training(rate)
        keywords["dropout_key"] = op.host.random_key()
    if op.is_causal:
        keywords["is_causal"] = True
    if op.enable_gqa:
        keywords["enable_gqa"] = True
    return op.call("F.scaled_dot_product_attention", op.query, op.key, op.value, **keywords)


@register_operator(
    "aten.pad",
    "aten.constant_pad_nd",
    "aten.reflection_pad1d",
    "aten.reflection_pad2d",
    "aten.reflection_pad3d",
    "aten.replication_pad1d",
    "aten.replication_pad2d",
    "aten.replication_pad3d",
)
def _pad(op: Operation) -> Expression:
    name = op.name.split(".")[1]
    mode = op.arguments.get("mode", "constant")
    mode = (
        name.split("_pad")[0].replace("replication", "replicate").replace("reflection", "reflect")
        if "_pad" in name
        else mode
    )
    value = op.arguments.get("value") or None
    padding = op.arguments.get("pad", op.arguments.get("padding"))
    if all(isinstance(size, int) and size == 0 for size in padding):
        return op.arguments["self"]
    return op.call("F.pad", op.arguments["self"], list(padding), mode=None if mode == "constant" else mode, value=value)


def _resized(mode: str) -> Builder:
    def write(op: Operation) -> Expression:
        size = op.arguments.get("output_size", op.arguments.get("size"))
        operand = op.arguments.get("self", op.arguments.get("input"))
        keywords: dict[str, Any] = {"mode": None if mode == "nearest" else mode}
        if op.arguments.get("align_corners"):
            keywords["align_corners"] = True
        if "_aa" in op.name:
            keywords["antialias"] = True
        scales = op.arguments.get("scale_factors") or [
            op.arguments.get(k)
            for k in ("scales", "scales_d", "scales_h", "scales_w")
            if op.arguments.get(k) is not None
        ]
        if scales:
            whole = [int(s) if s == int(s) else s for s in scales]
            return op.call("F.interpolate", operand, scale_factor=single(whole), **keywords)
        return op.call(
            "F.interpolate", operand, size=list(op.output.shape[2:]) if size is None else list(size), **keywords
        )

    return write


for _name, _mode in {
    "upsample_nearest1d": "nearest", "upsample_nearest2d": "nearest", "upsample_nearest3d": "nearest",
    "_upsample_nearest_exact1d": "nearest-exact", "_upsample_nearest_exact2d": "nearest-exact",
    "_upsample_nearest_exact3d": "nearest-exact",
    "upsample_linear1d": "linear", "upsample_bilinear2d": "bilinear", "_upsample_bilinear2d_aa": "bilinear",
    "upsample_bicubic2d": "bicubic", "_upsample_bicubic2d_aa": "bicubic", "upsample_trilinear3d": "trilinear",
}.items():  # fmt: skip
    register_operator(f"aten.{_name}")(_resized(_mode))


@register_operator("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")
def _grid_sample(op: Operation) -> Expression:
    mode = ("bilinear", "nearest", "bicubic")[op.interpolation_mode]
    padding = ("zeros", "border", "reflection")[op.padding_mode]
    return op.call(
        "F.grid_sample", op.input, op.grid, mode=None if mode == "bilinear" else mode,
        padding_mode=None if padding == "zeros" else padding, align_corners=op.align_corners,
    )  # fmt: skip


@register_operator("aten.affine_grid_generator")
def _affine_grid(op: Operation) -> Expression:
    return op.call("F.affine_grid", op.theta, list(op.size), align_corners=op.align_corners)


@register_operator("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.feature_alpha_dropout")
def _dropout(op: Operation) -> Expression:
    operand = op.arguments["self" if "self" in op.arguments else "input"]  # in place it is the former
    kind = {
        "dropout": "Dropout",
        "feature_dropout": "Dropout2d",
        "alpha_dropout": "AlphaDropout",
        "feature_alpha_dropout": "FeatureAlphaDropout",
    }[op.name.split(".")[1].rstrip("_")]
    if kind == "Dropout2d":
        kind = {3: "Dropout1d", 4: "Dropout2d", 5: "Dropout3d"}.get(operand.ndim, kind)
    training, evaluation = op.host.rates(op.p, op.train)
    if not training:
        return operand
    if not evaluation:
        return op.call(op.host.dropout_layer(kind, training), operand)
    function = {"AlphaDropout": "alpha_dropout", "FeatureAlphaDropout": "feature_alpha_dropout"}.get(kind, kind.lower())
    return op.call(f"F.{function}", operand, training, key=op.host.random_key())


@register_operator("aten.rrelu")
def _rrelu(op: Operation) -> Expression:
    training, evaluation = op.host.rates(1.0, op.training)
    if not training:
        return op.call("F.rrelu", op.self, op.lower, op.upper)
    mode = True if evaluation else op.host.in_training()
    return op.call("F.rrelu", op.self, op.lower, op.upper, training=mode, key=op.host.random_key())


@register_operator("parity.rnn", "parity.lstm", "parity.gru")
def _recurrent(op: Operation) -> Expression:
    """A recurrent layer that does not stay one: a subclass's own call of it, or weights that are computed."""
    states, keywords = list(op.hx), {}
    for keyword, value in (("bidirectional", op.directions == 2), ("batch_first", op.batch_first)):
        if value:
            keywords[keyword] = True
    if op.dropout and op.num_layers > 1:
        keywords["dropout"] = op.host.while_training(op.expression(op.dropout))
        keywords["key"] = op.host.random_key()
    before = (states if op.name.startswith("parity.lstm") else states[0]) if states else None
    layers = [op.num_layers] if op.num_layers > 1 else []
    function = f"F.{op.mode.lower()}"
    return op.call(function, op.input, before, list(op.weights), *layers, lengths=op.lengths, **keywords)


@register_operator("aten._weight_norm")
def _weight_norm(op: Operation) -> Expression:
    axes = [axis for axis in range(op.v.ndim) if axis != op.dim]
    squares = op.method(op.binary("**", op.v, 2, POWER), "sum", axis=axes, keepdims=True)
    return op.binary("*", op.v, op.binary("/", op.g, op.call("jnp.sqrt", squares), PRODUCT), PRODUCT)


@register_operator("aten._grouped_mm", "transformers.grouped_mm_fallback")
def _grouped_mm(op: Operation) -> Expression:
    left, right, *_ = op.arguments.values()
    return op.call("F.grouped_mm", left, right, offs=op.offs)


_REDUCTIONS = ("none", "mean", "sum")


@register_operator("parity.ctc_loss")
def _ctc_loss(op: Operation) -> Expression:
    return _functional("ctc_loss")(op)


@register_operator(
    "aten.mse_loss",
    "aten.l1_loss",
    "aten.smooth_l1_loss",
    "aten.huber_loss",
    "aten.binary_cross_entropy",
    "aten.binary_cross_entropy_with_logits",
    "aten.cross_entropy_loss",
    "aten.nll_loss_nd",
    "aten.kl_div",
    "aten.multi_margin_loss",
    "aten.multilabel_margin_loss",
)
def _loss(op: Operation) -> Expression:
    name = op.name.split(".")[1]
    name = {"cross_entropy_loss": "cross_entropy", "nll_loss_nd": "nll_loss"}.get(name, name)
    op.arguments["reduction"] = _REDUCTIONS[op.reduction]
    return _functional(name)(op)
