"""What an operator may ask of the class it is written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.fx import Node

from parity.porting.operators.expression import NOT, Expression, constant
from parity.porting.source.loops.lists import joined, spread

if TYPE_CHECKING:
    from parity.porting.source.statements import Writer


class Host:
    """What an operator may ask of the class it is written in."""

    def __init__(self, writer: Writer, node: Node) -> None:
        self.writer, self.node = writer, node

    def is_alone(self) -> bool:
        """Whether no other module is of the class."""
        kind = type(self.writer.call.module)
        return sum(type(module) is kind for module in self.writer.modules.values()) == 1

    def listed(self, parts: list[Expression]) -> Expression:
        """What the operator joins; lists that have a name by theirs."""
        return spread(self.writer.lists, joined(self.node), parts)

    def random_key(self) -> Expression:
        """A fresh random key."""
        self.writer.extras.random = True
        return Expression("self.rngs()")

    def while_training(self, probability: Expression, *, always: bool = False) -> Expression:
        """``probability`` while the module trains, zero in evaluation.

        Args:
            probability: of dropout.
            always: whether the operator is given it in evaluation, too, where it means nothing.
        """
        if not (always or self.writer.call.module.training):
            raise NotImplementedError("dropout that is active in evaluation too")
        self.writer.extras.switched = True
        return Expression(f"0.0 if self.deterministic else {probability.text}", 0)

    def in_training(self) -> Expression:
        """Whether the module trains."""
        self.writer.extras.switched = True
        return Expression("not self.deterministic", NOT)

    def dropout_layer(self, kind: str, p: float, train: bool) -> str | None:
        """The layer that does what the function did; None where it does nothing in any mode."""
        extras = self.writer.extras
        training = self.writer.call.module.training
        if train != training and not train:
            return None
        if train and not training:
            raise NotImplementedError("dropout that is active in evaluation too")
        if self.node not in extras.written:
            name, count = "dropout", 1
            while name in extras.layers or hasattr(self.writer.call.module, name):
                count += 1
                name = f"dropout_{count}"
            extras.written[self.node] = name
            extras.layers[name] = f"nn.{kind}({constant(p, 'p')}, rngs=rngs)"
        return f"self.{extras.written[self.node]}"
