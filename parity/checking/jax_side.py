"""One forward and backward pass of a port, on torch's inputs, cotangents and random draws."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from torch.utils import _pytree as torch_tree

from jaxnn.nn.state import split_arrays
from parity.arrays import to_jax
from parity.checking.evaluation import Call, Evaluation, Subject, TorchSide, is_key, named_inputs, same_numbers
from parity.checking.keeping import kept, left_as_it_was
from parity.checking.leaves import by_name, flattened, plain
from parity.checking.results import contained
from parity.checking.unread_draws import unread_draws
from parity.replay import ReplayError, replayed


def evaluate_jax(subject: Subject, side: TorchSide, options: dict[str, Any] | None = None) -> Evaluation:
    """The JAX subject on the torch side's inputs, cotangents and random draws; compiled, and left as it was.

    Args:
        subject: the JAX model.
        side: torch's.
        options: of the compiler.
    """
    return JaxSide(subject, side, options)()


class JaxSide:
    """The JAX subject, compiled once for the torch side's inputs, cotangents and random draws.

    Args:
        subject: the JAX model; every pass has the weights that stand in it then, and leaves them as they were.
        side: torch's.
        options: of the compiler.
        compiled: else it runs operator by operator: many layers take longer to compile than to run so once.
    """

    def __init__(
        self, subject: Subject, side: TorchSide, options: dict[str, Any] | None = None, *, compiled: bool = True
    ) -> None:
        self.subject = subject
        self.side = side
        leaves, self._spec = torch_tree.tree_flatten(side.call)
        self._inputs = side.varied_inputs()
        self._varied = [i for i, name in enumerate(named_inputs(side.call)) if name in self._inputs]
        self._values = [to_jax(x) for x in leaves]
        self._run: Callable[..., Any] | None = jax.jit(self._pass, compiler_options=options) if compiled else None

    def plainly(self) -> Evaluation:
        """The same pass, the whole of it not compiled."""
        compiled, self._run = self._run, self._pass
        try:
            return self()
        finally:
            self._run = compiled

    def __call__(self, call: Call | None = None) -> Evaluation:
        """One pass, on the torch side's inputs or others in their place, of which those that vary count."""
        values = self._values if call is None else [to_jax(x) for x in torch_tree.tree_leaves(call)]
        changed = [values[i] for i in self._varied]
        if self._run is None:
            if not isinstance(self.subject, nnx.Module):
                return self._evaluation((self._forward(None, changed)[1], ({}, [])))
            with left_as_it_was(self.subject) as module:
                return self._evaluation((self._forward(module, changed)[1], ({}, [])))
        parameters, rest = {}, {}
        if isinstance(self.subject, nnx.Module):
            self._graphdef, self._params, self._others = split_arrays(self.subject)
            parameters, rest = self._params.arrays, self._others.arrays
        # Where a number is complex, torch's gradient is the conjugate of JAX's.
        vectors = {name: to_jax(v.conj()) for name, v in self.side.cotangents.items()}
        with kept(self.subject):
            return self._evaluation(self._run(parameters, changed, rest, vectors))

    def _evaluation(self, results: Any) -> Evaluation:
        """What a pass gave, by name."""
        side = self.side
        (found, after), (by_parameter, by_input) = results
        names = list(side.single.outputs)
        names += [f"output {i}" for i in range(len(names), len(found))]
        return Evaluation(
            outputs=dict(zip(names, map(np.asarray, found), strict=False)),
            parameter_gradients={name: _conjugate(x) for name, x in by_parameter.items()},
            input_gradients={name: _conjugate(x) for name, x in zip(self._inputs, by_input, strict=False)},
            buffers={name: np.asarray(x) for name, x in after.items() if not is_key(x)},
        )

    def _pass(
        self, parameters: dict[str, jax.Array], changed: list[jax.Array], rest: dict[str, jax.Array], vectors: Any
    ) -> Any:
        try:
            return self._passed(parameters, changed, rest, vectors)
        except ReplayError:
            if self.side.spare or not (spare := unread_draws(self.side)):
                raise
            self.side.spare = spare
            return self._passed(parameters, changed, rest, vectors)

    def _passed(
        self, parameters: dict[str, jax.Array], changed: list[jax.Array], rest: dict[str, jax.Array], vectors: Any
    ) -> Any:
        def forward(parameters: dict[str, jax.Array], changed: list[jax.Array]) -> Any:
            if not isinstance(self.subject, nnx.Module):
                return self._forward(None, changed)
            return self._forward(
                nnx.merge(self._graphdef, self._params.state(parameters), self._others.state(rest)), changed
            )

        if not (self.side.gradients and self.side.cotangents):
            return forward(parameters, changed)[1], ({}, [])
        smooth, pullback, aux = jax.vjp(forward, parameters, changed, has_aux=True)
        return aux, pullback({name: vectors[name].astype(x.dtype) for name, x in smooth.items()})

    def _forward(self, module: nnx.Module | None, changed: list[jax.Array]) -> Any:
        """The outputs that torch differentiates, by name; all outputs, and the statistics behind the pass."""
        merged = list(self._values)
        for i, x in zip(self._varied, changed, strict=True):
            merged[i] = x
        args, kwargs = torch_tree.tree_unflatten(merged, self._spec)
        with same_numbers(self.side), replayed(self.side.common(self.side.draws)):
            output = (self.subject if module is None else module)(*args, **kwargs)
        found_names, found_leaves, _ = flattened(contained(output))
        wanted = [plain(name.removeprefix("output")) for name in self.side.single.outputs]
        leaves = [jnp.asarray(x) for x in by_name(found_names, found_leaves, wanted)]
        after = split_arrays(module)[2].arrays if module is not None and self.side.single.buffers else {}
        named = zip(self.side.single.outputs, leaves, strict=False)
        smooth = {name: x for name, x in named if name in self.side.cotangents and jnp.issubdtype(x.dtype, jnp.inexact)}
        return smooth, (leaves, after)


def _conjugate(x: jax.Array) -> np.ndarray:
    return np.conj(x) if jnp.iscomplexobj(x) else np.asarray(x)  # that of whole numbers has no numbers at all
