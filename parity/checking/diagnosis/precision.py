"""Too few bits: a layer computed, or fed, in less than float32."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as torch_tree

from parity.arrays import to_numpy
from parity.checking.diagnosis.calls import Experiment
from parity.checking.diagnosis.weights import rounded_to_tf32

Trial = tuple[str, str, Callable[[], dict[str, Any]]]


def mutations(experiment: Experiment) -> Iterator[Trial]:
    """The layer in bfloat16, float16 and tf32: throughout, or only what goes in or comes out."""
    for dtype in (torch.bfloat16, torch.float16):
        word = str(dtype).removeprefix("torch.")
        said = f"what goes into the layer (weights too) is rounded to {word}"
        yield "precision", said, lambda d=dtype: _rounded(experiment, lambda x: x.to(d).to(x.dtype), True)
        said = f"the layer's input is rounded to {word}"
        yield "precision", said, lambda d=dtype: _rounded(experiment, lambda x: x.to(d).to(x.dtype), False)
        said = f"the layer's output is rounded to {word}"
        yield "precision", said, lambda d=dtype: _output(experiment, d)
        said = f"the layer is computed in {word}"
        yield "precision", said, lambda d=dtype: _throughout(experiment, d)
    said = "products are taken in tf32 (jax.default_matmul_precision), torch's in float32"
    yield "precision", said, lambda: _rounded(experiment, _tf32, True)


def _rounded(experiment: Experiment, rounding: Callable[[torch.Tensor], torch.Tensor], weights: bool) -> dict[str, Any]:
    def change(layer: torch.nn.Module) -> None:
        for parameter in layer.parameters() if weights else ():
            parameter.copy_(rounding(parameter))

    own = torch_tree.tree_map(
        lambda x: rounding(x) if isinstance(x, torch.Tensor) and x.is_floating_point() else x, experiment.arguments
    )
    return Experiment(experiment.layer, own, experiment.draws).outputs(change=change)


def _output(experiment: Experiment, dtype: torch.dtype) -> dict[str, Any]:
    return {
        name: to_numpy(torch.from_numpy(x).to(dtype).to(torch.from_numpy(x).dtype)) if x.dtype.kind == "f" else x
        for name, x in experiment.outputs().items()
    }


def _throughout(experiment: Experiment, dtype: torch.dtype) -> dict[str, Any]:
    return {name: x.astype("float32") for name, x in experiment.outputs(dtype=dtype).items()}


def _tf32(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(rounded_to_tf32(to_numpy(x)).astype("float32")).to(x.dtype)
