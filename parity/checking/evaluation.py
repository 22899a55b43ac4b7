"""One forward and backward pass of either side: outputs, gradients and buffers by name."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.utils import _pytree as torch_tree

from jaxnn.nn.state import split_arrays
from parity.arrays import to_jax, to_numpy, to_tensor
from parity.checking.leaves import by_name, flattened, plain
from parity.checking.perturbation import DoubleWherePossible, copied, doubled, is_smooth, nudged, perturbed
from parity.replay import Draws, Written, replayed

Subject = Callable[..., Any]
Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments, arrays anywhere in them."""


@dataclass
class Evaluation:
    """What one pass gives, as numpy arrays by name."""

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    parameter_gradients: dict[str, np.ndarray] = field(default_factory=dict)
    input_gradients: dict[str, np.ndarray] = field(default_factory=dict)
    buffers: dict[str, np.ndarray] = field(default_factory=dict)


class TorchSide:
    """The torch subject, evaluated on a copy: in its own dtype, in float64, or in float64 near its inputs and weights.

    The first evaluation notes torch's random draws and makes the cotangents; the others reuse them. Where it has been
    made already, ``known`` are what it gave and what it drew.

    Attributes:
        writes: whether the subject writes into its parameters as it runs.
    """

    writes = True

    def __init__(
        self,
        subject: Subject,
        call: Call,
        *,
        gradients: bool = True,
        seed: int = 0,
        known: tuple[Evaluation, list[torch.Tensor]] | None = None,
    ) -> None:
        self.subject = subject
        self.call: Call = torch_tree.tree_map(as_tensor, call)
        self.gradients = gradients
        self.seed = seed
        self.draws: list[torch.Tensor] = []
        self.cotangents: list[torch.Tensor] = []
        if known is not None:
            self.single, self.draws = known
            return
        self.writes = False
        try:
            self._first()
        except Written:
            self.writes = True
            self._first()

    def _first(self) -> None:
        """One pass on a copy, with the parameters themselves if it does not write into them."""
        parameters = self.subject.parameters() if isinstance(self.subject, torch.nn.Module) else ()
        guarded = [parameter for parameter in parameters if type(parameter) is torch.nn.Parameter]
        with seeded(self.seed):
            self._generator = torch.Generator().manual_seed(self.seed)
            with Draws(guarded=() if self.writes else guarded) as draws:
                self.single = self._evaluate(_copied(self.subject, shared=not self.writes), self.call)
            self.draws = draws.recorded

    def varied_inputs(self) -> list[str]:
        """The names of the inputs that are differentiated: those that ask for it, or all where none does."""
        smooth = {name: x for name, x in named_inputs(self.call).items() if is_smooth(x)}
        return [name for name, x in smooth.items() if x.requires_grad] or list(smooth)

    def again(self, subject: Subject) -> Any:
        """``subject``, a model with hooks say, on the same inputs and draws, without gradients."""
        kept = _state(subject)
        args, kwargs = torch_tree.tree_map(as_tensor, self.call)
        with torch.no_grad(), self._drawing():
            output = subject(*args, **kwargs)
        if isinstance(subject, torch.nn.Module):
            subject.load_state_dict(kept)
        return output

    def exact(self) -> Evaluation:
        """The truth: the same pass in float64."""
        return self._in_double(doubled(self.subject), torch_tree.tree_map(doubled, self.call))

    def witness(self) -> Evaluation:
        """The same pass in its own dtype, from inputs and weights a unit in the last place away."""
        generator = torch.Generator().manual_seed(0)
        subject = nudged(self.subject, generator) if isinstance(self.subject, torch.nn.Module) else self.subject
        call = torch_tree.tree_map(lambda x: nudged(x, generator), self.call)
        with self._drawing():
            return self._evaluate(subject, call)

    def near(self, subject: Subject, call: Call) -> tuple[Evaluation, Evaluation]:
        """The same pass of another subject on other inputs, in its own dtype and in float64."""
        with self._drawing():
            single = self._evaluate(_copied(subject), call)
        return single, self._in_double(doubled(subject), torch_tree.tree_map(doubled, call))

    def neighbour(self, distance: float, *, inward: bool = False) -> Evaluation:
        """The truth with inputs and weights moved by ``distance`` half units in the last place."""
        generator = torch.Generator().manual_seed(0)
        subject = perturbed(self.subject, distance, generator, inward=inward)
        call = torch_tree.tree_map(lambda x: perturbed(x, distance, generator, inward=inward), self.call)
        try:
            return self._in_double(subject, call)
        except (RuntimeError, ValueError):
            # A probability of 1 must not be moved up.
            if inward:
                raise
            return self.neighbour(distance, inward=True)

    def _in_double(self, subject: Subject, call: Call) -> Evaluation:
        try:
            with self._drawing():
                return self._evaluate(subject, call)
        except RuntimeError:
            usual = torch.get_default_dtype()
            torch.set_default_dtype(torch.float64)
            try:
                with self._drawing(), DoubleWherePossible():
                    return self._evaluate(subject, call)
            finally:
                torch.set_default_dtype(usual)

    def _drawing(self) -> AbstractContextManager[Any]:
        # Watching every operator for a draw takes as long as a small one does.
        return Draws(self.draws) if self.draws else nullcontext()

    def _evaluate(self, subject: Subject, call: Call) -> Evaluation:
        """One pass of ``subject``, which is the caller's to spoil."""
        parameters = dict(subject.named_parameters()) if isinstance(subject, torch.nn.Module) else {}
        leaves, spec = torch_tree.tree_flatten(call)
        leaves = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in leaves]
        args, kwargs = torch_tree.tree_unflatten(leaves, spec)
        chosen = self.varied_inputs()
        varied = {name: x.requires_grad_() for name, x in named_inputs((args, kwargs)).items() if name in chosen}
        with torch.set_grad_enabled(self.gradients):
            output = subject(*args, **kwargs)
        outputs = named_outputs(output)
        result = Evaluation(outputs={name: to_numpy(x) for name, x in outputs.items()})
        if isinstance(subject, torch.nn.Module):
            result.buffers = {name: to_numpy(x) for name, x in subject.named_buffers()}
        smooth = [x for x in outputs.values() if x.requires_grad]
        sources = {name: x for name, x in (parameters | varied).items() if x.requires_grad}
        if not (self.gradients and smooth and sources):
            return result
        if not self.cotangents:
            # Drawn in float32: the same numbers in either precision.
            self.cotangents = [torch.randn(x.shape, generator=self._generator, dtype=torch.float32) for x in smooth]
        vectors = [v.to(x.dtype) for v, x in zip(self.cotangents, smooth, strict=True)]
        found = torch.autograd.grad(smooth, list(sources.values()), vectors, allow_unused=True)
        for (name, x), gradient in zip(sources.items(), found, strict=True):
            target = result.input_gradients if name in varied else result.parameter_gradients
            target[name] = to_numpy(torch.zeros_like(x) if gradient is None else gradient)
        return result


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

    def __call__(self, call: Call | None = None) -> Evaluation:
        """One pass, on the torch side's inputs or others in their place, of which those that vary count."""
        side = self.side
        values = self._values if call is None else [to_jax(x) for x in torch_tree.tree_leaves(call)]
        changed = [values[i] for i in self._varied]
        by_parameter: dict[str, jax.Array] = {}
        by_input: list[jax.Array] = []
        if self._run is None:
            module = nnx.clone(self.subject) if isinstance(self.subject, nnx.Module) else None
            found, after = self._forward(module, changed)[1]
        else:
            parameters, rest = {}, {}
            if isinstance(self.subject, nnx.Module):
                self._graphdef, self._params, self._others = split_arrays(self.subject)
                parameters, rest = self._params.arrays, self._others.arrays
            vectors = [to_jax(v) for v in side.cotangents]
            (found, after), (by_parameter, by_input) = self._run(parameters, changed, rest, vectors)
        names = list(side.single.outputs)
        names += [f"output {i}" for i in range(len(names), len(found))]
        return Evaluation(
            outputs=dict(zip(names, map(np.asarray, found), strict=False)),
            parameter_gradients={name: np.asarray(x) for name, x in by_parameter.items()},
            input_gradients=dict(zip(self._inputs, map(np.asarray, by_input), strict=False)),
            buffers={name: np.asarray(x) for name, x in after.items() if not is_key(x)},
        )

    def _pass(
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
        return aux, pullback([v.astype(x.dtype) for v, x in zip(vectors, smooth, strict=True)])

    def _forward(self, module: nnx.Module | None, changed: list[jax.Array]) -> Any:
        """The smooth outputs; all outputs, and the statistics behind the pass."""
        merged = list(self._values)
        for i, x in zip(self._varied, changed, strict=True):
            merged[i] = x
        args, kwargs = torch_tree.tree_unflatten(merged, self._spec)
        with replayed(self.side.draws):
            output = (self.subject if module is None else module)(*args, **kwargs)
        found_names, found_leaves, _ = flattened(output)
        wanted = [plain(name.removeprefix("output")) for name in self.side.single.outputs]
        leaves = [jnp.asarray(x) for x in by_name(found_names, found_leaves, wanted)]
        after = split_arrays(module)[2].arrays if module is not None and self.side.single.buffers else {}
        return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)], (leaves, after)


def _copied(subject: Subject, *, shared: bool = False) -> Subject:
    return copied(subject, shared=shared) if isinstance(subject, torch.nn.Module) else subject


def _state(subject: Subject) -> dict[str, Any]:
    return copy.deepcopy(subject.state_dict()) if isinstance(subject, torch.nn.Module) else {}


def as_tensor(x: Any) -> Any:
    """An array of any library as a tensor of its own; anything else as it is."""
    if isinstance(x, torch.Tensor):
        return x.detach().clone().requires_grad_(x.requires_grad)
    return to_tensor(x) if isinstance(x, np.ndarray | jax.Array) else x


def is_key(x: jax.Array) -> bool:
    """Whether ``x`` is a random key, which has no numbers to compare."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def named_inputs(call: Call) -> dict[str, Any]:
    """Every leaf of the arguments by where it stands: ``input 0``, ``input 1[0]``, ``input mask``."""
    args, kwargs = call
    named = [(f"input {i}", x) for i, x in enumerate(args)] + [(f"input {key}", x) for key, x in kwargs.items()]
    return {
        name + torch_tree.keystr(path): leaf
        for name, x in named
        for path, leaf in torch_tree.tree_flatten_with_path(x)[0]
    }


def named_outputs(output: Any) -> dict[str, torch.Tensor]:
    """The tensors of an output by where they stand in it: ``output``, ``output[0]``, ``output['logits']``."""
    leaves, _ = torch_tree.tree_flatten_with_path(output)
    return {f"output{torch_tree.keystr(path)}": x for path, x in leaves if isinstance(x, torch.Tensor)}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator at ``seed`` within, as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
