"""What is handed to the diagnosis of a layer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass
class Suspicion:
    """A layer's call that is wrong, with all that is needed to find out why.

    Attributes:
        path: of the layer.
        torch_layer: as it was before the pass.
        jax_layer: its twin.
        arguments: torch's.
        draws: the random tensors torch drew in the call.
        jax_outputs: its outputs in torch's layout, where they have one, by the names of torch's.
        jax_buffers: its statistics behind the call.
        torch_outputs: torch's, by name.
        torch_buffers: its statistics behind the call.
        kind: what is wrong: ``output``, ``buffer``, ``draws``, ``raises`` or ``code`` (between its layers).
        detail: what is known already.
        twins: paths, within it, of the layers that both sides have.
        whole: the torch model that it is part of.
        rerun_named: runs it again on torch's inputs and gives its outputs by name, as ``jax_outputs``.
    """

    path: str
    torch_layer: torch.nn.Module
    jax_layer: Any
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    draws: list[torch.Tensor]
    jax_outputs: dict[str, np.ndarray]
    jax_buffers: dict[str, np.ndarray]
    torch_outputs: dict[str, np.ndarray]
    torch_buffers: dict[str, np.ndarray]
    kind: str
    detail: str
    twins: list[str]
    whole: torch.nn.Module
    rerun_named: Callable[[], dict[str, np.ndarray]]
