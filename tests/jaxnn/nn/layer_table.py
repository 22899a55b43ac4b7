"""One small instance of every kind of layer, with inputs for it, for the tests that ask the same of all."""

import inspect

import numpy as np
import torch

from jaxnn import nn


def floats(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def positive(*shape):
    return np.abs(floats(*shape)) + 0.1


def chances(*shape):
    return 1 / (1 + np.exp(-floats(*shape)))


def integers(*shape, below=4):
    return np.random.default_rng(1).integers(0, below, shape).astype(np.int32)


def signs(*shape):
    return np.sign(floats(*shape)).astype(np.float32)


X, IMAGE = floats(2, 4), floats(2, 4, 6, 6)
LINE, VOLUME = floats(2, 4, 6), floats(2, 4, 4, 4, 4)
LINEAR_HEADS = {"dropout": 0.1, "batch_first": True}

# name, arguments, keyword arguments, inputs
LAYERS = [
    *(
        (name, (), {}, (X,))
        for name in ("CELU", "ELU", "GELU", "GLU", "SELU", "Hardshrink", "Hardsigmoid", "Hardswish")
    ),
    *(
        (name, (), {}, (X,))
        for name in ("Hardtanh", "LeakyReLU", "LogSigmoid", "Mish", "PReLU", "ReLU", "ReLU6", "RReLU")
    ),
    *((name, (), {}, (X,)) for name in ("Sigmoid", "SiLU", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink")),
    *((name, (), {"dim": -1}, (X,)) for name in ("LogSoftmax", "Softmax", "Softmin")),
    ("Softmax2d", (), {}, (IMAGE,)),
    ("Threshold", (0.1, 2.0), {}, (X,)),
    ("Linear", (4, 3), {}, (X,)),
    ("Bilinear", (4, 4, 3), {}, (X, X)),
    ("Identity", (), {}, (X,)),
    ("Flatten", (), {}, (IMAGE,)),
    ("Unflatten", (1, (2, 2)), {}, (X,)),
    ("Conv1d", (4, 2, 3), {"padding_mode": "circular", "padding": 1}, (LINE,)),
    ("Conv2d", (4, 2, 3), {"stride": 2}, (IMAGE,)),
    ("Conv3d", (4, 2, 3), {"groups": 2}, (VOLUME,)),
    ("ConvTranspose1d", (4, 2, 3), {}, (LINE,)),
    ("ConvTranspose2d", (4, 2, 3), {"stride": 2, "output_padding": 1}, (IMAGE,)),
    ("ConvTranspose3d", (4, 2, 3), {}, (VOLUME,)),
    ("BatchNorm1d", (4,), {}, (X,)),
    ("BatchNorm2d", (4,), {"momentum": None}, (IMAGE,)),
    ("BatchNorm3d", (4,), {"track_running_stats": False}, (VOLUME,)),
    ("SyncBatchNorm", (4,), {}, (LINE,)),
    ("InstanceNorm1d", (4,), {}, (LINE,)),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, (IMAGE,)),
    ("InstanceNorm3d", (4,), {"affine": True}, (VOLUME,)),
    ("GroupNorm", (2, 4), {}, (LINE,)),
    ("LayerNorm", (4,), {}, (X,)),
    ("RMSNorm", (4,), {}, (X,)),
    ("LocalResponseNorm", (2,), {}, (IMAGE,)),
    ("CrossMapLRN2d", (2,), {}, (IMAGE,)),
    ("CosineSimilarity", (), {}, (X, X + 1)),
    ("PairwiseDistance", (), {}, (X, X + 1)),
    *((name, (0.5,), {}, (X,)) for name in ("Dropout", "AlphaDropout")),
    ("Dropout1d", (0.5,), {}, (LINE,)),
    *((name, (0.5,), {}, (IMAGE,)) for name in ("Dropout2d", "FeatureAlphaDropout")),
    ("Dropout3d", (0.5,), {}, (VOLUME,)),
    ("Embedding", (5, 3), {"padding_idx": 1, "max_norm": 1.0}, (integers(2, 3),)),
    ("EmbeddingBag", (5, 3), {}, (integers(2, 3),)),
    *(
        (f"{kind}Pad{n}d", (1, 0.5) if kind == "Constant" else (1,), {}, ((LINE, IMAGE, VOLUME)[n - 1],))
        for kind in ("Constant", "Zero", "Reflection", "Replication", "Circular")
        for n in (1, 2, 3)
    ),
    *(
        (f"{kind}{n}d", (2,), {}, ((LINE, IMAGE, VOLUME)[n - 1],))
        for kind in ("AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool", "MaxPool")
        for n in (1, 2, 3)
    ),
    *((f"LPPool{n}d", (2, 2), {}, ((LINE, IMAGE, VOLUME)[n - 1],)) for n in (1, 2, 3)),
    *((f"FractionalMaxPool{n}d", (2,), {"output_size": 2}, ((LINE, IMAGE, VOLUME)[n - 1],)) for n in (2, 3)),
    ("MaxUnpool1d", (2,), {}, (floats(1, 1, 2), np.array([[[0, 3]]]))),
    ("MaxUnpool2d", (2,), {}, (floats(1, 1, 1, 2), np.array([[[[0, 3]]]]))),
    ("MaxUnpool3d", (2,), {}, (floats(1, 1, 1, 1, 2), np.array([[[[[0, 3]]]]]))),
    ("ChannelShuffle", (2,), {}, (IMAGE,)),
    ("PixelShuffle", (2,), {}, (IMAGE,)),
    ("PixelUnshuffle", (2,), {}, (IMAGE,)),
    ("Fold", ((3, 3), 2), {}, (floats(1, 4, 4),)),
    ("Unfold", (2,), {}, (IMAGE,)),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear", "align_corners": True}, (IMAGE,)),
    ("UpsamplingBilinear2d", (), {"size": (8, 8)}, (IMAGE,)),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, (IMAGE,)),
    ("BCELoss", (), {}, (chances(2, 4), chances(2, 4))),
    ("BCEWithLogitsLoss", (), {}, (X, chances(2, 4))),
    ("CosineEmbeddingLoss", (), {}, (X, X + 1, signs(2))),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.1}, (X, integers(2))),
    ("CTCLoss", (), {}, (np.log(chances(6, 2, 4)), 1 + integers(2, 3, below=3), np.array([6, 5]), np.array([2, 3]))),
    ("GaussianNLLLoss", (), {}, (X, X + 1, positive(2, 4))),
    ("HingeEmbeddingLoss", (), {}, (X, signs(2, 4))),
    *((name, (), {}, (X, X + 1)) for name in ("HuberLoss", "L1Loss", "MSELoss", "PoissonNLLLoss", "SmoothL1Loss")),
    ("KLDivLoss", (), {"reduction": "batchmean"}, (X, chances(2, 4))),
    ("MarginRankingLoss", (), {}, (floats(3), floats(3) + 1, signs(3))),
    ("MultiLabelMarginLoss", (), {}, (X, np.array([[0, 2, -1, 1], [3, -1, 0, 0]]))),
    ("MultiLabelSoftMarginLoss", (), {}, (X, integers(2, 4, below=2).astype(np.float32))),
    ("MultiMarginLoss", (), {}, (X, integers(2))),
    ("NLLLoss", (), {}, (X, integers(2))),
    ("SoftMarginLoss", (), {}, (X, signs(2, 4))),
    ("TripletMarginLoss", (), {}, (X, X + 1, X - 2)),
    ("TripletMarginWithDistanceLoss", (), {}, (X, X + 1, X - 2)),
    ("AdaptiveLogSoftmaxWithLoss", (4, 6, [2, 4]), {"div_value": 2.0}, (X, integers(2))),
    ("LinearCrossEntropyLoss", (4, 5), {}, (X, integers(2))),
    ("RNN", (4, 3), {"num_layers": 2, "dropout": 0.5}, (floats(3, 2, 4),)),
    ("LSTM", (4, 3), {"bidirectional": True, "proj_size": 2}, (floats(3, 2, 4),)),
    ("GRU", (4, 3), {"batch_first": True}, (floats(2, 3, 4),)),
    ("RNNCell", (4, 3), {}, (X,)),
    ("LSTMCell", (4, 3), {}, (X,)),
    ("GRUCell", (4, 3), {}, (X,)),
    ("MultiheadAttention", (4, 2), LINEAR_HEADS, (floats(2, 3, 4),) * 3),
    ("TransformerEncoderLayer", (4, 2, 5), LINEAR_HEADS, (floats(2, 3, 4),)),
    ("TransformerDecoderLayer", (4, 2, 5), LINEAR_HEADS, (floats(2, 3, 4),) * 2),
    ("Transformer", (4, 2, 1, 1, 5), LINEAR_HEADS, (floats(2, 3, 4),) * 2),
]
NAMES = [name for name, *_ in LAYERS]
CONTAINERS = {"Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Module"}
STACKS = {"TransformerEncoder", "TransformerDecoder"}  # made of layers; Transformer has both
LAZY = [  # (name, args, shape of the first input): they become other layers
    ("LazyLinear", (5,), (2, 3)),
    ("LazyConv1d", (4, [3]), (3, 6)),
    ("LazyConv2d", (4, 3, 2, "valid"), (2, 3, 6, 6)),
    ("LazyConv3d", (4, 2), (2, 3, 3, 3, 4)),
    ("LazyConvTranspose1d", (4, 3), (2, 3, 4)),
    ("LazyConvTranspose2d", (4, 3, 2), (2, 3, 4, 4)),
    ("LazyConvTranspose3d", (4, 2), (3, 3, 3, 4)),
    ("LazyBatchNorm1d", (), (4, 3)),
    ("LazyBatchNorm2d", (), (2, 3, 4, 4)),
    ("LazyBatchNorm3d", (), (2, 3, 2, 3, 4)),
    ("LazyInstanceNorm1d", (), (2, 3, 5)),
    ("LazyInstanceNorm2d", (), (2, 3, 4, 4)),
    ("LazyInstanceNorm3d", (), (2, 3, 2, 3, 4)),
]
LAZY_NAMES = {name for name, *_ in LAZY}


def ours(name, args, kwargs, rngs):
    make = getattr(nn, name)
    return make(*args, **kwargs, **({"rngs": rngs} if "rngs" in inspect.signature(make.__init__).parameters else {}))


def theirs(name, args, kwargs):
    return getattr(torch.nn, name)(*args, **kwargs)
