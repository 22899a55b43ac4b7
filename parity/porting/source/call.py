"""One call of one module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from parity.porting.graph.nodes import in_place, written
from parity.porting.graph.recording import Record


@dataclass(eq=False)
class Call:
    """One call of one module.

    Attributes:
        path: of the module; empty for the model itself.
        index: which call of the module it is, from 0.
        items: what happens within, in order.
        leaf: whether the module stays the layer of ``torch.nn`` that it is.
        inputs: values from outside it that are used within, in the order of ``forward``'s parameters.
        outputs: values made within that are used outside.
    """

    path: str
    index: int
    module: torch.nn.Module
    record: Record | None
    items: list[Node | Call] = field(default_factory=list)
    leaf: bool = False
    inputs: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)

    def nodes(self) -> Iterator[Node]:
        """Every operator within, in order."""
        for item in self.items:
            if isinstance(item, Call):
                yield from item.nodes()
            else:
                yield item

    def calls(self) -> Iterator[Call]:
        """The calls directly within."""
        return (item for item in self.items if isinstance(item, Call))


def array(node: Node) -> Any:
    """The parameter or buffer that ``node`` is, before or after something was written into it."""
    return (written(node) if in_place(node) else node).meta.get("tensor")
