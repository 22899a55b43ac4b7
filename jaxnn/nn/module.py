"""What every layer shares: torch's way to print, and variables that are neither parameters nor statistics."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Key

from jaxnn import init

Parameter = nnx.Param


class Buffer(nnx.Variable):
    """An array that belongs to a layer's ``state_dict`` and is not trained, such as a loss's class weights."""


class Module(nnx.Module):
    """An ``nnx.Module`` that prints as torch prints it, its attributes in the order they were assigned.

    ``nnx.merge`` sets attributes by the alphabet; torch's order of parameters and of printing is that of assignment.
    """

    _order: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name not in self._order and name != "_order":
            order = (*self._order, name)
            if "_order" in vars(self):
                object.__setattr__(self, "_order", order)  # nnx would look through all the names again
            else:
                super().__setattr__("_order", order)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        super().__setattr__("_order", tuple(kept for kept in self._order if kept != name))

    def extra_repr(self) -> str:
        """The hyperparameters, as they stand between the parentheses of the printed layer."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in children(self)]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        body = "".join(f"\n  {line}" for line in ([extra] if extra else []) + lines)
        return f"{type(self).__name__}({body}\n)"

    def __str__(self) -> str:
        return repr(self)  # nnx has a form of its own for printing


class RandomModule(Module):
    """A layer that draws at random in training.

    Attributes:
        deterministic: true in evaluation; ``train()`` and ``eval()`` set it. It starts in training, as in torch.
        rngs: the layer's own stream of keys, or None; then each call in training needs a ``key``.
    """

    def __init__(self, rngs: nnx.Rngs | None) -> None:
        self.deterministic = False
        self.rngs = None if rngs is None else rngs["dropout"].fork()

    @property
    def training(self) -> bool:
        """Whether the layer draws."""
        return not self.deterministic

    def drawn(self, key: Key[Array, ""] | None) -> Key[Array, ""] | None:
        """``key``, else the next of the layer's stream; None in evaluation and where there is no stream."""
        if key is not None or self.deterministic or self.rngs is None:
            return key
        return self.rngs()


def optional_buffer(array: ArrayLike | None) -> Buffer | None:
    """A buffer, or a None that may become one."""
    return None if array is None else Buffer(jnp.asarray(array))


def value(variable: nnx.Variable | Array | None) -> Array | None:
    """What an optional variable holds; a parametrized one is read as an array."""
    return variable.get_value() if isinstance(variable, nnx.Variable) else variable


def static(size: Any) -> Any:
    """A sequence as a tuple: nnx would take a list for data."""
    return tuple(size) if isinstance(size, Sequence) else size


def children(module: object) -> Iterator[tuple[str, object]]:
    """The modules and containers of modules directly under ``module``, by name, in the order they were assigned."""
    for name, value in _members(module):
        kind: Any = type(value)
        if _is_kind_of_child(kind):
            yield name, value


@functools.lru_cache(maxsize=1024)
def _is_kind_of_child(kind: Any) -> bool:
    return issubclass(kind, nnx.Module | nnx.List | nnx.Dict) and not issubclass(kind, nnx.Rngs)


def variables(module: object) -> Iterator[tuple[str, nnx.Variable]]:
    """The variables directly under ``module``, by name, in the order they were assigned."""
    for name, value in _members(module):
        if isinstance(value, nnx.Variable):
            yield name, value


def _members(module: object) -> Iterator[tuple[str, object]]:
    if isinstance(module, nnx.List):
        yield from ((str(i), value) for i, value in enumerate(module))
    else:
        members = vars(module)
        # Modules that are not of this package keep no order but that of their attributes.
        order = dict.fromkeys([*members.get("_order", ()), *members])
        yield from ((name, members[name]) for name in order if name in members and not name.startswith("_pytree__"))


def uniform_parameter(
    rngs: nnx.Rngs, shape: tuple[int, ...], bound: float, device: jax.Device | None, dtype: DTypeLike | None
) -> nnx.Param:
    """A parameter uniform on ``[-bound, bound)``, float32 unless ``dtype`` says otherwise."""
    return nnx.Param(jax.device_put(init.uniform(rngs.params(), shape, -bound, bound, dtype or jnp.float32), device))
