"""The model that a source text defines, with its weights."""

import itertools
import linecache
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from jaxnn import nn

_COUNT = itertools.count()


def loaded(source: str, name: str, arrays: dict[str, np.ndarray]) -> nnx.Module:
    """The model that ``source`` defines, with ``arrays`` in it."""
    title = f"parity_port_{next(_COUNT)}"
    file = f"<{title}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = types.ModuleType(title)
    sys.modules[title] = namespace
    exec(compile(source, file, "exec"), namespace.__dict__)
    kind = getattr(namespace, name)
    takes_rngs = "rngs" in kind.__init__.__code__.co_varnames if hasattr(kind.__init__, "__code__") else False
    # No array is made before the real ones come.
    module = nnx.eval_shape(lambda: kind(rngs=_rngs()) if takes_rngs else kind())
    nn.load_state_dict(module, arrays)
    for i, (_, variable) in enumerate(nnx.iter_graph(module)):
        if isinstance(variable, nnx.RngKey):
            variable.set_value(jax.random.fold_in(jax.random.key(0), i))
        elif isinstance(variable, nnx.RngCount):
            variable.set_value(jnp.zeros((), jnp.uint32))
    return module


def _rngs() -> nnx.Rngs:
    rngs = nnx.Rngs(0)
    rngs.default = _OneKey(0, tag="default")  # type: ignore[attr-defined]
    return rngs


class _OneKey(nnx.RngStream):
    """Always the same key: while a constructor is traced, to count takes time that grows with all that was counted."""

    def __call__(self) -> jax.Array:
        return self.key.get_value()

    def fork(self, *, split: Any = None) -> nnx.RngStream:
        return nnx.RngStream(self(), tag=self.tag)


def set_modes(original: torch.nn.Module, twin: nnx.Module) -> None:
    """Training or evaluation, layer by layer, as in the original."""
    twin.train() if original.training else twin.eval()
    for path, module in original.named_modules():
        at: Any = twin
        for name in path.split(".") if path else ():
            at = at[int(name)] if isinstance(at, nnx.List) else getattr(at, name, None)
        for attribute in ("deterministic", "use_running_average"):
            if hasattr(at, attribute):
                setattr(at, attribute, not module.training)
