"""One operator of the graph, as what writes it sees it."""

from collections.abc import Callable
from operator import getitem
from typing import Any

import jax
import jax.numpy as jnp
import torch

from parity.arrays import to_jax
from parity.porting.operators.expression import ATOM, PRODUCT, SUM, Expression, Several, binary, constant, several


class Tensor(Expression):
    """An expression of an array, with the shape and dtype that it has."""

    value: torch.Tensor

    def __init__(self, expression: Expression, value: torch.Tensor) -> None:
        super().__init__(expression.text, expression.strength, expression.names)
        object.__setattr__(self, "value", value)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The sizes, symbolic ones among them."""
        return tuple(self.value.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.value.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Torch's dtype."""
        return self.value.dtype


class Arguments(dict[str, Any]):
    """The arguments of one operator, which remember those that were looked at."""

    # What they ask for is in the dtype or the shape of the result, or changes nothing of it.
    _IDLE = frozenset({
        "dtype", "start_dim", "end_dim", "output_size", "copy", "sorted", "stable", "out_int32", "generator", "sparse",
        "assume_unique", "compute_mode", "scale_grad_by_freq", "requires_grad", "cudnn_enable", "cudnn_enabled",
        "unsafe",
    })  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.optional: dict[str, Any] = {}  # with their defaults
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict."""
        self.read.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        """As of a dict."""
        self.read.add(name)
        return super().pop(name, *default)

    def values(self) -> Any:
        """As of a dict."""
        self.read |= self.keys()
        return super().values()

    def items(self) -> Any:
        """As of a dict."""
        self.read |= self.keys()
        return super().items()

    def ignored(self) -> list[str]:
        """Those that are not the default, and nobody looked at."""
        given = self.optional.keys() - self.read - self._IDLE
        return sorted(
            name for name in given if name in self and differs(super(Arguments, self).get(name), self.optional[name])
        )


def differs(value: Any, default: Any) -> bool:
    """Whether an argument is not its default."""
    if isinstance(value, Expression) or default is None:
        return value is not default
    return bool(value != default)


class Operation:
    """The arguments of one operator by name, and the ways to write it.

    Attributes:
        output: what export says of the result: a fake tensor, or several.
        arguments: by the names of the schema; tensors as :class:`Tensor`, symbolic sizes as ``torch.SymInt``.
    """

    def __init__(
        self, name: str, arguments: Arguments, output: Any, size: Callable[[Any], Expression], host: Any = None
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.output = output
        self.host = host
        self._size = size

    def __getattr__(self, name: str) -> Any:
        try:
            return self.arguments[name]
        except KeyError:
            raise AttributeError(f"{self.name} has no argument {name}, only {list(self.arguments)}") from None

    def is_read(self, place: int) -> bool:
        """Whether somebody reads that one of several results."""
        users = [] if self.host is None else self.host.node.users
        return any(user.target is not getitem or user.args[1] == place for user in users)

    def expression(self, value: Any, hint: str = "") -> Expression:
        """Any argument as an expression."""
        if isinstance(value, Expression):
            return value
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            return self._size(value)
        if isinstance(value, list | tuple):
            parts = [self.expression(part, hint) for part in value]
            names = frozenset().union(*(part.names for part in parts))
            inner = ", ".join(part.text for part in parts) + ("," if len(parts) == 1 else "")
            return Expression(f"({inner})", ATOM, names)
        if isinstance(value, torch.dtype):
            return Expression(dtype_name(value))
        if isinstance(value, bool) or value is None or isinstance(value, str):
            return Expression(constant(value, hint) if isinstance(value, bool) else repr(value).replace("'", '"'))
        if isinstance(value, int | float):
            return number(value, hint)
        if isinstance(value, complex):
            return Expression(repr(value), ATOM)
        raise TypeError(f"{self.name}: cannot write {value!r}")

    def call(self, function: str, *args: Any, **kwargs: Any) -> Expression:
        """``function(*args, **kwargs)``; a keyword whose value is None is left out."""
        parts, names = [], frozenset[str]()
        for keyword, value in [("", value) for value in args] + list(kwargs.items()):
            if value is None and keyword:
                continue
            part = self.expression(value, keyword.rstrip("_"))
            parts.append(f"{keyword}={part.text}" if keyword else part.text)
            names |= part.names
        return Expression(f"{function}({', '.join(parts)})", ATOM, names)

    def method(self, value: Expression, name: str, *args: Any, **kwargs: Any) -> Expression:
        """``value.name(*args, **kwargs)``."""
        called = self.call(f"{value.within(ATOM)}.{name}", *args, **kwargs)
        return Expression(called.text, ATOM, called.names | value.names)

    def binary(self, operator: str, left: Any, right: Any, strength: int) -> Expression:
        """``left operator right``."""
        return binary(operator, self.expression(left), self.expression(right), strength)

    def promoted(self, expression: Expression, *operands: Any) -> Expression:
        """``expression``, cast where JAX would give another dtype to ``operands`` than torch gives the result."""
        predicted = jnp.result_type(*map(kind_of, operands))
        return self.cast(expression, self.output.dtype, str(predicted))

    def cast(self, expression: Expression, dtype: torch.dtype, now: str = "") -> Expression:
        """``expression.astype(dtype)`` unless it is ``now`` of that dtype."""
        wanted = narrowed(str(to_jax(dtype)))
        if now and narrowed(now) == wanted:
            return expression
        if isinstance(expression, Tensor) and narrowed(str(to_jax(expression.dtype))) == wanted:
            return expression
        return self.method(expression, "astype", Expression(dtype_name(dtype)))

    def same(self, expression: Expression) -> Tensor:
        """``expression`` with the shape and dtype of the result."""
        return Tensor(expression, self.output)


def only_first(op: Operation, found: Expression, others: str) -> Several:
    """The first of several results as ``found``; the others cannot be told."""
    if any(map(op.is_read, range(1, len(op.output)))):
        raise NotImplementedError(f"a result that tells {others}")
    return several(*[found] * len(op.output))


def kind_of(operand: Any) -> Any:
    """What JAX promotes ``operand`` by: the dtype of an array, the type of a number."""
    if isinstance(operand, Tensor):
        return jnp.dtype(narrowed(str(to_jax(operand.dtype))))
    return {torch.SymInt: int, torch.SymFloat: float}.get(type(operand), type(operand))


def number(value: float, hint: str = "") -> Expression:
    """A Python number; the infinite ones by name."""
    if value != value or value in (float("inf"), float("-inf")):
        return Expression("jnp.nan") if value != value else Expression("jnp.inf" if value > 0 else "-jnp.inf", SUM + 1)
    if isinstance(value, int) and value >= 2**63 - 1:
        raise TypeError(f"{value} is no size")
    return Expression(constant(value, hint), ATOM if value >= 0 else PRODUCT)


def narrowed(dtype: str) -> str:
    """The dtype that JAX uses for ``dtype``: of 32 bits in place of 64, unless ``jax_enable_x64`` is on."""
    return str(jax.dtypes.canonicalize_dtype(dtype))


def dtype_name(dtype: torch.dtype) -> str:
    """``jnp.float32`` and so on; 64 bits become what JAX makes of them."""
    name = narrowed(str(to_jax(dtype)))
    return "bool" if name == "bool" else f"jnp.{name}"
