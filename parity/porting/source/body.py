"""What is written of one method, and what it needs of its class."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node


@dataclass
class Body:
    """One method: its parameters and statements, and what it needs of its class."""

    parameters: list[str]
    lines: list[str]
    sizes: list[Any] = field(default_factory=list)


@dataclass
class Extras:
    """What the statements of a class use beyond torch's own attributes.

    Attributes:
        layers: attribute name to the constructor of a layer for what torch has as a function.
        arrays: attribute name to a constant captured by the graph.
        changing: names of those that are written into: two that begin equal are two.
        random: whether keys are drawn.
        switched: whether something differs between training and evaluation.
    """

    layers: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, torch.Tensor] = field(default_factory=dict)
    changing: set[str] = field(default_factory=set)
    random: bool = False
    switched: bool = False
    written: dict[Node, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unsupported:
    """An operator nobody said how to write."""

    operator: str
    path: str
    line: str
    reason: str = ""
