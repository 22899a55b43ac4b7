"""One forward and backward pass: outputs, gradients and buffers by name; torch's."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as torch_tree

from parity.arrays import to_numpy, to_tensor
from parity.checking import generators
from parity.checking.branching import branches_taken
from parity.checking.leaves import with_paths
from parity.checking.perturbation import DoubleWherePossible, copied, doubled, is_smooth, nudged, own, perturbed
from parity.checking.results import contained
from parity.checking.rounding import RoundedByChance
from parity.replay import Draws, Written
from parity.standing_in import gradients_by

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


REFUSED = "is not differentiable with respect to argument"
"""What torch says where an operator has no gradient of an argument."""


class TorchSide:
    """The torch subject, evaluated on a copy: in its own dtype, in float64, or in float64 near its inputs and weights.

    The first evaluation notes torch's random draws and makes the cotangents; the others reuse them. Where it has been
    made already, ``known`` are what it gave and what it drew.

    Attributes:
        fixed: the inputs that are not differentiated because torch refuses.
        writes: whether the subject writes into its parameters as it runs, by any of torch's operators. A write that
            torch does not see, through the array that ``p.detach().numpy()`` gives, shows only where it has been done:
            to keep it from the caller's model would take a copy of every parameter, for all models.
        differentiates: whether the subject needs gradients to run, of its own inputs say.
        plays: whether it draws numbers by the generators of Python or NumPy; every pass is given the same.
    """

    writes = True
    differentiates = False
    plays = False

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
        self.cotangents: dict[str, torch.Tensor] = {}
        self.fixed: set[str] = set()
        self.spare: set[int] = set()
        if known is not None:
            self.single, self.draws = known
            return
        self.writes = False
        try:
            self._guarded()
        except RuntimeError as error:
            if REFUSED not in str(error):
                raise
            self._fix()
            self._guarded()

    def _guarded(self) -> None:
        try:
            self._first()
        except Written:
            self.writes = True
            self._first()
        except RuntimeError:
            if self.gradients or not self.differentiates:
                raise
            self._first()  # the subject has been seen to need gradients of its own

    def _fix(self) -> None:
        """Note the inputs that torch gives no gradient, such as the weights of classes in a loss."""
        names, refused = self.varied_inputs(), set()
        for name in names:
            self.fixed = {*names} - {name}
            try:
                self._guarded()
            except RuntimeError as error:
                if REFUSED in str(error):
                    refused.add(name)
            self.cotangents = {}
        self.fixed = refused

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
        smooth = {name: x for name, x in named_inputs(self.call).items() if is_smooth(x) and name not in self.fixed}
        return [name for name, x in smooth.items() if x.requires_grad] or list(smooth)

    def common(self, draws: list[torch.Tensor]) -> list[torch.Tensor]:
        """Those of ``draws`` that the port makes, too."""
        return [x for x in draws if id(x) not in self.spare]

    def again(self, subject: Subject) -> Any:
        """``subject``, a model with hooks say, on the same inputs and draws, without gradients."""
        kept = _state(subject)
        args, kwargs = torch_tree.tree_map(as_tensor, self.call)
        with torch.set_grad_enabled(self.differentiates), same_numbers(self), self._drawing():
            try:
                return subject(*args, **kwargs)
            finally:
                if isinstance(subject, torch.nn.Module):
                    subject.load_state_dict(kept)

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

    def rounded(self, seed: int) -> Evaluation:
        """The same pass in its own dtype, every operator's result rounded up or down by chance."""
        call = torch_tree.tree_map(as_tensor, self.call)
        with self._drawing(), RoundedByChance(seed):
            return self._evaluate(_copied(self.subject), call)

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
        args, kwargs = torch_tree.tree_map(own, call)
        chosen = self.varied_inputs()
        varied = {name: x.requires_grad_() for name, x in named_inputs((args, kwargs)).items() if name in chosen}
        enabled = self.gradients or self.differentiates
        with torch.set_grad_enabled(enabled), branches_taken(), same_numbers(self), _noticed(self):
            output = subject(*args, **kwargs)
        outputs = named_outputs(output)
        result = Evaluation(outputs={name: to_numpy(x) for name, x in outputs.items()})
        if isinstance(subject, torch.nn.Module):
            result.buffers = {name: to_numpy(x) for name, x in subject.named_buffers()}
        smooth = {name: x for name, x in outputs.items() if x.requires_grad}
        sources = {name: x for name, x in (parameters | varied).items() if x.requires_grad}
        if not (self.gradients and smooth and sources):
            return result
        if not self.cotangents:
            # Drawn in single precision: the same numbers in either.
            kinds = {name: torch.complex64 if x.is_complex() else torch.float32 for name, x in smooth.items()}
            self.cotangents = {
                name: torch.randn(x.shape, generator=self._generator, dtype=kinds[name]) for name, x in smooth.items()
            }
        vectors = [self.cotangents[name].to(x.dtype) for name, x in smooth.items()]
        found = torch.autograd.grad(list(smooth.values()), list(sources.values()), vectors, allow_unused=True)
        for (name, x), gradient in zip(sources.items(), found, strict=True):
            target = result.input_gradients if name in varied else result.parameter_gradients
            target[name] = to_numpy(torch.zeros_like(x) if gradient is None else gradient)
        return result


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
    leaves = with_paths(contained(output))
    return {f"output{torch_tree.keystr(path)}": x for path, x in leaves if isinstance(x, torch.Tensor)}


@contextmanager
def _noticed(side: TorchSide) -> Iterator[None]:
    """Notes whether ``torch.autograd.grad`` is called."""

    def differentiated(*given: Any) -> Any:
        side.differentiates = True
        return original(*given)

    with gradients_by(differentiated) as original:
        yield


@contextmanager
def same_numbers(side: TorchSide) -> Iterator[None]:
    """The generators of Python and NumPy seeded within, as they were afterwards; notes whether they were used."""
    before = generators.numbers()
    generators.seed_numbers(side.seed)
    drawn = generators.comparable(generators.numbers())
    try:
        yield
    finally:
        side.plays |= generators.comparable(generators.numbers()) != drawn
        generators.set_numbers(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator at ``seed`` within, as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
