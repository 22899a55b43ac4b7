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

    def rates(self, rate: float, active: bool) -> tuple[float, float]:
        """With which rates the operator drops out in training and in evaluation.

        Args:
            rate: that it was given.
            active: whether it dropped out while it was exported.
        """
        training = self.writer.call.module.training
        alone = (rate if active else 0.0, 0.0) if training else (rate, rate if active else 0.0)
        rates: tuple[float, float] = self.node.meta.get("rates", alone)
        if rates[1] not in (0, rates[0]):
            raise NotImplementedError("dropout whose rate in evaluation is another than in training")
        return rates

    def while_training(self, probability: Expression) -> Expression:
        """``probability`` while the module trains, zero in evaluation."""
        self.writer.extras.switched = True
        return Expression(f"0.0 if self.deterministic else {probability.text}", 0)

    def in_training(self) -> Expression:
        """Whether the module trains."""
        self.writer.extras.switched = True
        return Expression("not self.deterministic", NOT)

    def dropout_layer(self, kind: str, p: float) -> str:
        """The layer that does while it trains what the function did."""
        extras = self.writer.extras
        if self.node not in extras.written:
            name, count = "dropout", 1
            while name in extras.layers or hasattr(self.writer.call.module, name):
                count += 1
                name = f"dropout_{count}"
            extras.written[self.node] = name
            extras.layers[name] = f"nn.{kind}({constant(p, 'p')}, rngs=rngs)"
        return f"self.{extras.written[self.node]}"
