"""What every layer shares: torch's way to print, and variables that are neither parameters nor statistics."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jaxnn import init


class Buffer(nnx.Variable):
    """An array that belongs to a layer's ``state_dict`` and is not trained, such as a loss's class weights."""


class Module(nnx.Module):
    """An ``nnx.Module`` that prints as torch prints it."""

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


def children(module: object) -> Iterator[tuple[str, object]]:
    """The modules and containers of modules directly under ``module``, by name, in the order they were assigned."""
    for name, value in _members(module):
        if isinstance(value, nnx.Module | nnx.List | nnx.Dict) and not isinstance(value, nnx.Rngs):
            yield name, value


def variables(module: object) -> Iterator[tuple[str, nnx.Variable]]:
    """The variables directly under ``module``, by name, in the order they were assigned."""
    for name, value in _members(module):
        if isinstance(value, nnx.Variable):
            yield name, value


def _members(module: object) -> Iterator[tuple[str, object]]:
    if isinstance(module, nnx.List):
        yield from ((str(i), value) for i, value in enumerate(module))
    else:
        yield from ((name, value) for name, value in vars(module).items() if not name.startswith("_pytree__"))


def uniform_parameter(
    rngs: nnx.Rngs, shape: tuple[int, ...], bound: float, device: jax.Device | None, dtype: DTypeLike | None
) -> nnx.Param:
    """A parameter uniform on ``[-bound, bound)``, float32 unless ``dtype`` says otherwise."""
    return nnx.Param(jax.device_put(init.uniform(rngs.params(), shape, -bound, bound, dtype or jnp.float32), device))
