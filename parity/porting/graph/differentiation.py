"""``torch.autograd.grad`` as one operator: export sees nothing of a backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from parity.porting.graph.known import traced_node
from parity.porting.graph.transforms import is_transforming
from parity.standing_in import gradients_by

_LIBRARY = torch.library.Library("parity", "FRAGMENT")
_LIBRARY.define("grad(Tensor[] outputs, Tensor[] inputs, Tensor[] weights) -> Tensor[]")


@torch.library.register_fake("parity::grad")
def _shapes(outputs: list[Tensor], inputs: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    return [torch.empty_like(x) for x in inputs]


@contextmanager
def differentiable() -> Iterator[None]:
    """``torch.autograd.grad`` is one operator within."""

    def gradients(*arguments: Any) -> Any:
        return original(*arguments) if is_transforming() else _traced(*arguments)

    with gradients_by(gradients) as original:
        yield


def _traced(
    outputs: Any,
    inputs: Any,
    weights: Any,
    retain_graph: bool | None,
    create_graph: bool,
    only_inputs: bool,
    unused: bool | None,
    batched: bool,
    zeros: bool,
) -> tuple[Tensor | None, ...]:
    if batched:
        raise NotImplementedError("torch.autograd.grad of a batch of gradients")
    outputs, inputs, weights = map(_listed, (outputs, inputs, weights))
    given = [
        torch.ones_like(x) if w is None else w for x, w in zip(outputs, weights or [None] * len(outputs), strict=True)
    ]
    behind = ancestors([traced_node(x) for x in outputs])
    reached = [x for x in inputs if traced_node(x) in behind]
    if len(reached) < len(inputs) and not (unused or zeros):
        raise RuntimeError("One of the differentiated Tensors appears to not have been used in the graph")
    found = iter(torch.ops.parity.grad(outputs, reached, given))
    gradients = [next(found) if traced_node(x) in behind else torch.zeros_like(x) if zeros else None for x in inputs]
    return tuple(x if create_graph or x is None else x.detach() for x in gradients)


def _listed(x: Any) -> list[Any]:
    return [] if x is None else [x] if isinstance(x, Tensor) else list(x)


def ancestors(nodes: list[Node]) -> set[Node]:
    """``nodes``, and all that they are made of."""
    found: set[Node] = set()
    while nodes:
        node = nodes.pop()
        if node not in found:
            found.add(node)
            nodes += node.all_input_nodes
    return found


def is_derivative(node: Any) -> bool:
    """Whether ``node`` is a ``torch.autograd.grad``."""
    return isinstance(node, Node) and str(node.target) == "parity.grad.default"
