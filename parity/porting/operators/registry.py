"""The table of operators: the name of an ATen overload, and what writes it in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from parity.porting.operators.expression import Expression
    from parity.porting.operators.operation import Operation

Builder = Callable[["Operation"], "Expression"]

TABLE: dict[str, Builder] = {}


def register_operator(*names: str) -> Callable[[Builder], Builder]:
    """Say how ``parity.port`` writes an operator.

    The decorated function is given the operation: its arguments by the names of the ATen schema, ``op.call`` and
    ``op.method`` to write calls, ``op.output`` with the shape and dtype of the result.

    Args:
        names: of ATen overloads, ``"aten.add.Tensor"``, or of all overloads of an operator, ``"aten.add"``.

    Example:
        @register_operator("aten.erf")
        def erf(op):
            return op.call("jax.scipy.special.erf", op.self)
    """

    def registered(builder: Builder) -> Builder:
        for name in names:
            TABLE[name] = builder
        return builder

    return registered


def found(target: object) -> Builder | None:
    """What writes ``target``; an operator in place is written as the one it is named for."""
    name = str(target)
    packet, _, overload = name.rpartition(".") if isinstance(target, torch._ops.OpOverload) else (name, "", "")
    pure = packet.removesuffix("_")
    for candidate in (name, packet, f"{pure}.{overload}", pure):
        if candidate in TABLE:
            return TABLE[candidate]
    return None
