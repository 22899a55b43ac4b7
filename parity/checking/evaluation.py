"""One forward and backward pass of either side: outputs, gradients and buffers by name."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as torch_tree

from jaxnn.nn.state import split_arrays
from parity.arrays import to_jax, to_numpy, to_tensor
from parity.checking.leaves import by_name, flattened, plain
from parity.comparison import FAR
from parity.replay import Draws, replayed

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
    """

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
        with seeded(seed):
            self._generator = torch.Generator().manual_seed(seed)
            with Draws() as draws:
                self.single = self._evaluate(subject, self.call)
            self.draws = draws.recorded

    def varied_inputs(self) -> list[str]:
        """The names of the inputs that are differentiated: those that ask for it, or all where none does."""
        smooth = {name: x for name, x in named_inputs(self.call).items() if is_smooth(x)}
        return [name for name, x in smooth.items() if x.requires_grad] or list(smooth)

    def again(self, subject: Subject) -> Any:
        """``subject``, a model with hooks say, on the same inputs and draws, without gradients."""
        kept = _state(subject)
        args, kwargs = torch_tree.tree_map(as_tensor, self.call)
        with torch.no_grad(), Draws(self.draws):
            output = subject(*args, **kwargs)
        if isinstance(subject, torch.nn.Module):
            subject.load_state_dict(kept)
        return output

    def exact(self) -> Evaluation:
        """The truth: the same pass in float64."""
        return self._in_double(doubled(self.subject), torch_tree.tree_map(doubled, self.call))

    def neighbours(self) -> tuple[Evaluation, Evaluation]:
        """The truth with inputs and weights moved by half a unit in the last place, and ``FAR`` times as far."""
        near, far = (self._neighbour(distance) for distance in (1.0, FAR))
        return near, far

    def _neighbour(self, distance: float, *, inward: bool = False) -> Evaluation:
        generator = torch.Generator().manual_seed(0)
        subject = perturbed(self.subject, distance, generator, inward=inward)
        call = torch_tree.tree_map(lambda x: perturbed(x, distance, generator, inward=inward), self.call)
        try:
            return self._in_double(subject, call)
        except (RuntimeError, ValueError):
            # A probability of 1 must not be moved up.
            if inward:
                raise
            return self._neighbour(distance, inward=True)

    def _in_double(self, subject: Subject, call: Call) -> Evaluation:
        try:
            with Draws(self.draws):
                return self._evaluate(subject, call)
        except RuntimeError:
            usual = torch.get_default_dtype()
            torch.set_default_dtype(torch.float64)
            try:
                with Draws(self.draws), DoubleWherePossible():
                    return self._evaluate(subject, call)
            finally:
                torch.set_default_dtype(usual)

    def _evaluate(self, subject: Subject, call: Call) -> Evaluation:
        if isinstance(subject, torch.nn.Module):
            subject = copy.deepcopy(subject)
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
    leaves, spec = torch_tree.tree_flatten(side.call)
    inputs = side.varied_inputs()
    varied = [i for i, name in enumerate(named_inputs(side.call)) if name in inputs]
    values = [to_jax(x) for x in leaves]
    if isinstance(subject, nnx.Module):
        graphdef, params, others = split_arrays(subject)
        parameters, rest = params.arrays, others.arrays
    else:
        parameters, rest = {}, {}

    def forward(parameters: dict[str, jax.Array], changed: list[jax.Array], rest: dict[str, jax.Array]) -> Any:
        merged = list(values)
        for i, x in zip(varied, changed, strict=True):
            merged[i] = x
        args, kwargs = torch_tree.tree_unflatten(merged, spec)
        module = (
            nnx.merge(graphdef, params.state(parameters), others.state(rest))
            if isinstance(subject, nnx.Module)
            else None
        )
        output = (module or subject)(*args, **kwargs)
        found_names, found_leaves, _ = flattened(output)
        wanted = [plain(name.removeprefix("output")) for name in side.single.outputs]
        leaves = [jnp.asarray(x) for x in by_name(found_names, found_leaves, wanted)]
        after = split_arrays(module)[2].arrays if module is not None else {}
        return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)], (leaves, after)

    def evaluate(
        parameters: dict[str, jax.Array], changed: list[jax.Array], rest: dict[str, jax.Array], vectors: Any
    ) -> Any:
        if not (side.gradients and side.cotangents):
            return forward(parameters, changed, rest)[1], ({}, [])
        smooth, pullback, aux = jax.vjp(lambda p, c: forward(p, c, rest), parameters, changed, has_aux=True)
        return aux, pullback([v.astype(x.dtype) for v, x in zip(vectors, smooth, strict=True)])

    with replayed(side.draws):
        vectors = [to_jax(v) for v in side.cotangents]
        changed = [values[i] for i in varied]
        (found, after), (by_parameter, by_input) = jax.jit(evaluate, compiler_options=options)(
            parameters, changed, rest, vectors
        )
    names = list(side.single.outputs)
    names += [f"output {i}" for i in range(len(names), len(found))]
    return Evaluation(
        outputs=dict(zip(names, map(np.asarray, found), strict=False)),
        parameter_gradients={name: np.asarray(x) for name, x in by_parameter.items()},
        input_gradients=dict(zip(inputs, map(np.asarray, by_input), strict=False)),
        buffers={name: np.asarray(x) for name, x in after.items() if not is_key(x)},
    )


class DoubleWherePossible(TorchFunctionMode):
    """Lets a model made for float32 run in float64.

    An operator that torch does not have in float64 is computed in float32; one that is given both, because the model
    makes a float32 tensor of its own, in float64.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            dtypes = {x.dtype for x in torch_tree.tree_leaves((args, kwargs)) if is_smooth(x)}
            if dtypes and dtypes <= set(_SINGLE):
                args, kwargs = torch_tree.tree_map(_as_single, (args, kwargs))
                return torch_tree.tree_map(_as_double, func(*args, **kwargs))
            if not dtypes & set(_SINGLE):
                raise
            kept = 1 if func.__name__.endswith("_") else 0  # what is written into remains the tensor that it is
            narrow = kept and isinstance(args[0], torch.Tensor) and args[0].dtype in _SINGLE.values()
            changed, kwargs = torch_tree.tree_map(_as_single if narrow else _as_double, (args[kept:], kwargs))
            return func(*args[:kept], *changed, **kwargs)


_SINGLE = {torch.float64: torch.float32, torch.complex128: torch.complex64}
_DOUBLE = {single: double for double, single in _SINGLE.items()}


def _as_single(x: Any) -> Any:
    return x.to(_SINGLE[x.dtype]) if isinstance(x, torch.Tensor) and x.dtype in _SINGLE else x


def _as_double(x: Any) -> Any:
    return x.to(_DOUBLE[x.dtype]) if isinstance(x, torch.Tensor) and x.dtype in _DOUBLE else x


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


def is_smooth(x: Any) -> bool:
    """Whether ``x`` is a tensor that has gradients."""
    return isinstance(x, torch.Tensor) and (x.is_floating_point() or x.is_complex())


def doubled(x: Any) -> Any:
    """A copy in float64 (complex128); what is neither smooth tensor nor module is returned as it is."""
    if isinstance(x, torch.nn.Module):
        return copy.deepcopy(x).double()
    if is_smooth(x):
        return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)
    return x


def perturbed(x: Any, distance: float, generator: torch.Generator, *, inward: bool = False) -> Any:
    """A copy in float64, every smooth number moved by ``distance`` half units in the last place of its dtype.

    Up or down, by the generator (one seed gives one direction, whatever the distance); toward zero if ``inward``.
    """
    if isinstance(x, torch.nn.Module):
        moved = doubled(x)
        with torch.no_grad():
            for original, target in zip(x.parameters(), moved.parameters(), strict=True):
                target.copy_(perturbed(original, distance, generator, inward=inward))
        return moved
    if not is_smooth(x):
        return x
    signs = -1 if inward else torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
    return doubled(x) * (1.0 + distance * 0.5 * torch.finfo(x.dtype).eps * signs)


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
