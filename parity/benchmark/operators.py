"""The ``op`` suite: cases for each function of ``jaxnn.functional`` worth timing, against torch eager."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax
import numpy as np
import torch

from jaxnn import functional
from parity.benchmark.calls import MODES, time_call
from parity.benchmark.contest import Result


@dataclass(frozen=True)
class Case:
    """One call, the same in both frameworks.

    Attributes:
        family: of operators, as the files of ``jaxnn.functional`` are named.
        function: its name in ``torch.nn.functional``.
        inputs: numpy arrays; those of floating point are differentiated.
        options: keyword arguments.
        label: what sets it apart from other cases of ``function``.
        constants: positions of floating-point inputs that have no gradient, such as targets.
        batched: the axis of each input that runs over the batch; by default the first, of inputs that are as long
            there as the first of them.
    """

    family: str
    function: str
    inputs: tuple[np.ndarray, ...]
    options: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    constants: tuple[int, ...] = ()
    batched: tuple[int | None, ...] = ()

    @property
    def name(self) -> str:
        """Function, label and batch."""
        return f"{self.function} {self.label}".strip() + f", batch {self.batch}"

    @property
    def batch(self) -> int:
        """Of the first input."""
        return self.inputs[0].shape[self._axes[0] or 0]

    @property
    def _axes(self) -> tuple[int | None, ...]:
        first = len(self.inputs[0])
        return self.batched or tuple(0 if len(x) == first else None for x in self.inputs)

    def of_batch(self, size: int) -> Self:
        """The same with another batch: cut off, or repeated."""
        inputs = zip(self.inputs, self._axes, strict=True)
        sized = tuple(x if axis is None else x.take(range(size), axis, mode="wrap") for x, axis in inputs)
        return replace(self, inputs=sized, batched=self._axes)


def run(case: Case, *, modes: Sequence[str] = MODES, seconds: float = 0.3, torch_compile: bool = False) -> list[Result]:
    """Time ``case`` forward, and forward plus backward where it has gradients."""
    torch_function, jax_function = getattr(torch.nn.functional, case.function), getattr(functional, case.function)
    random = "key" in inspect.signature(jax_function).parameters and case.options.get("training", False)
    key = {"key": jax.random.key(0)} if random else {}
    return time_call(
        ("op", case.family, case.name),
        lambda *x: torch_function(*x, **case.options),
        lambda *x: jax_function(*x, **case.options, **key),
        case.inputs,
        varied=[i for i, x in enumerate(case.inputs) if x.dtype == np.float32 and i not in case.constants],
        modes=modes,
        seconds=seconds,
        torch_compile=torch_compile,
        random=random,
    )


def cases(batch: int | None = None) -> Iterator[Case]:
    """Every case in three sizes: with its own batch, a quarter and a sixteenth; or with ``batch``."""
    for case in _cases():
        sizes = [batch] if batch else sorted({max(case.batch // part, 1) for part in (1, 4, 16)})
        for size in sizes:
            yield case.of_batch(size)


def _cases() -> Iterator[Case]:
    """Sizes of common networks, drawn from one seed."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(0.05, 0.95, shape).astype(np.float32)

    features, image = (32, 128, 768), (8, 64, 56, 56)
    for name in (
        "relu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "elu",
        "softplus",
        "logsigmoid",
        "sigmoid",
        "tanh",
        "glu",
    ):
        yield Case("activation", name, (normal(*features),))
    yield Case("activation", "gelu", (normal(*features),), {"approximate": "tanh"}, "tanh")
    for name in ("softmax", "log_softmax"):
        yield Case("activation", name, (normal(16, 12, 128, 128),), {"dim": -1})
    yield Case("activation", "prelu", (normal(*image), normal(64)))
    yield Case("normalization", "layer_norm", (normal(*features),), {"normalized_shape": (768,)})
    yield Case("normalization", "rms_norm", (normal(*features),), {"normalized_shape": (768,)})
    yield Case("normalization", "group_norm", (normal(*image),), {"num_groups": 8})
    yield Case("normalization", "instance_norm", (normal(*image),))
    yield Case("normalization", "normalize", (normal(4096, 768),))
    yield Case("normalization", "local_response_norm", (normal(4, 64, 28, 28),), {"size": 5})
    batch = (normal(*image), np.zeros(64, np.float32), np.ones(64, np.float32), normal(64), normal(64))
    yield Case("normalization", "batch_norm", batch, {"training": True}, "training", constants=(1, 2))
    yield Case("normalization", "batch_norm", batch, {"training": False}, "evaluation", constants=(1, 2))
    yield Case("linear", "linear", (normal(4096, 768), normal(768, 768), normal(768)))
    yield Case("linear", "bilinear", (normal(128, 64), normal(128, 64), normal(32, 64, 64)))
    yield Case("pooling", "max_pool2d", (normal(*image),), {"kernel_size": 3, "stride": 2, "padding": 1})
    yield Case("pooling", "max_pool1d", (normal(16, 64, 4096),), {"kernel_size": 2})
    yield Case("pooling", "avg_pool2d", (normal(*image),), {"kernel_size": 2})
    yield Case("pooling", "avg_pool2d", (normal(*image),), {"kernel_size": 3, "stride": 1, "padding": 1}, "3x3/1")
    yield Case("pooling", "adaptive_avg_pool2d", (normal(*image),), {"output_size": 7})
    yield Case("pooling", "adaptive_max_pool2d", (normal(*image),), {"output_size": 7})
    yield Case("pooling", "lp_pool2d", (uniform(*image),), {"norm_type": 2.0, "kernel_size": 2})
    indices = rng.integers(0, 30000, (32, 128))
    yield Case("sparse", "embedding", (indices, normal(30000, 256)))
    yield Case("sparse", "embedding_bag", (indices, normal(30000, 256)), {"mode": "mean"})
    yield Case("sparse", "one_hot", (rng.integers(0, 1000, (64, 128)),), {"num_classes": 1000})
    for name in ("dropout", "alpha_dropout"):
        yield Case("dropout", name, (normal(*features),), {"p": 0.1, "training": True})
    yield Case("dropout", "dropout2d", (normal(*image),), {"p": 0.1, "training": True})
    yield Case("distance", "pairwise_distance", (normal(4096, 256), normal(4096, 256)))
    yield Case("distance", "cosine_similarity", (normal(4096, 256), normal(4096, 256)))
    yield Case("distance", "pdist", (normal(256, 64),))
    classes = rng.integers(0, 1000, 512)
    yield Case("loss", "cross_entropy", (normal(512, 1000), classes))
    yield Case("loss", "cross_entropy", (normal(8, 21, 64, 64), rng.integers(0, 21, (8, 64, 64))), label="dense")
    yield Case("loss", "nll_loss", (normal(512, 1000), classes))
    for name in (
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
    ):
        yield Case("loss", name, (uniform(512, 1000), uniform(512, 1000)), constants=(1,))
    yield Case("loss", "kl_div", (normal(512, 1000), uniform(512, 1000)), {"reduction": "batchmean"}, constants=(1,))
    yield Case("loss", "triplet_margin_loss", (normal(512, 256), normal(512, 256), normal(512, 256)))
    yield Case("loss", "multi_margin_loss", (normal(512, 100), rng.integers(0, 100, 512)))
    steps, batch_size = 100, 16
    log_probs = torch.log_softmax(torch.from_numpy(normal(steps, batch_size, 40)), -1).numpy()
    lengths = np.full(batch_size, steps), np.full(batch_size, 20)
    targets = rng.integers(1, 40, (batch_size, 20))
    yield Case("loss", "ctc_loss", (log_probs, targets, *lengths), batched=(1, 0, 0, 0))
    yield Case("loss", "linear_cross_entropy", (normal(256, 256), normal(8192, 256), rng.integers(0, 8192, 256)))
    yield Case("vision", "interpolate", (normal(4, 32, 64, 64),), {"scale_factor": 2, "mode": "nearest"}, "nearest")
    yield Case("vision", "interpolate", (normal(4, 32, 64, 64),), {"scale_factor": 2, "mode": "bilinear"}, "bilinear")
    yield Case("vision", "interpolate", (normal(4, 8, 64, 64),), {"size": 100, "mode": "bicubic"}, "bicubic")
    yield Case("vision", "pixel_shuffle", (normal(4, 64, 56, 56),), {"upscale_factor": 2})
    yield Case("vision", "channel_shuffle", (normal(*image),), {"groups": 8})
    grid = rng.uniform(-1, 1, (4, 64, 64, 2)).astype(np.float32)
    yield Case("vision", "grid_sample", (normal(4, 16, 64, 64), grid), {"align_corners": False})
    yield Case("padding", "pad", (normal(*image),), {"pad": (1, 1, 1, 1)}, "constant")
    yield Case("padding", "pad", (normal(*image),), {"pad": (1, 1, 1, 1), "mode": "reflect"}, "reflect")
    yield Case("folding", "unfold", (normal(4, 32, 32, 32),), {"kernel_size": 3, "padding": 1})
    yield Case("folding", "fold", (normal(4, 32 * 9, 1024),), {"output_size": 32, "kernel_size": 3, "padding": 1})
    heads = (8, 8, 256, 64)
    for label, options in (("", {}), ("causal", {"is_causal": True})):
        yield Case(
            "attention",
            "scaled_dot_product_attention",
            (normal(*heads), normal(*heads), normal(*heads)),
            options,
            label,
        )
    long = tuple(normal(1, 4, 2048, 64) for _ in range(3))
    yield Case("attention", "scaled_dot_product_attention", long, label="of 2048")
    yield Case("convolution", "conv2d", (normal(8, 64, 28, 28), normal(64, 64, 3, 3)), {"padding": 1})
