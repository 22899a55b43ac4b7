"""Torch's random draws, recorded and carried over, so that random operators compare exactly."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax.numpy as jnp
import torch
from jax import Array
from jax.typing import DTypeLike
from torch.utils._python_dispatch import TorchDispatchMode

from parity.arrays import to_jax


class ReplayError(RuntimeError):
    """The two sides do not draw the same random tensors in the same order."""


class Written(BaseException):
    """A model writes into a parameter as it runs."""


_DRAWN = {
    "aten::bernoulli", "aten::multinomial", "aten::rand", "aten::rand_like", "aten::randint", "aten::randint_like",
    "aten::randn", "aten::randn_like", "aten::randperm",
}  # fmt: skip


class Draws(TorchDispatchMode):
    """While active, notes every random tensor torch draws; given ``recorded`` ones, hands those out instead.

    What is drawn from a generator that the caller names is the caller's own affair.

    Attributes:
        recorded: the draws in order, as torch made them (a dropout's as its mask), but from 0 to 1, of mean 0 and
            deviation 1, or from 0 on where torch was given bounds or the like: a port may scale them by itself.
        position: how many have been drawn so far.
        guarded: parameters that must not be written into; :class:`Written` is raised before one is.
    """

    supports_higher_order_operators = True

    def __init__(self, recorded: list[torch.Tensor] | None = None, guarded: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.guarded = {memory(x) for x in guarded} - {0}
        self.replaying = recorded is not None
        self.recorded: list[torch.Tensor] = [] if recorded is None else recorded
        self.position = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator call: drawn and noted, replayed, or passed on where it is not random."""
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.HigherOrderOperator):
            return func(*args, **kwargs)
        if kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        if self.guarded and func._schema.is_mutable:
            self._guard(func._schema.arguments, args, kwargs)
        kind = func._schema.name
        if kind == "aten::exponential_":
            rate = args[1] if len(args) > 1 else kwargs.get("lambd", 1)
            if self.replaying:
                return args[0].copy_(self._next() / rate)
            self._noted(func(*args, **kwargs) * rate)
            return args[0]
        if kind == "aten::bernoulli_":
            return args[0].copy_(self._next()) if self.replaying else self._noted(func(*args, **kwargs))
        if kind == "aten::uniform_":
            low, high = _given(func, args, kwargs, "from", "to")
            standard = self._next() if self.replaying else self._noted(func(args[0]))
            return args[0].copy_(low + (high - low) * standard)
        if kind == "aten::normal_":
            mean, std = _given(func, args, kwargs, "mean", "std")
            standard = self._next() if self.replaying else self._noted(func(args[0]))
            return args[0].copy_(mean + std * standard)
        if kind == "aten::normal" and "out" not in func._overloadname:
            mean, std = args[:2]
            drawn = func(*args, **kwargs)
            if self.replaying:
                return drawn.copy_(mean + std * self._next())
            self._noted(((drawn - mean) / std).nan_to_num(0.0, 0.0, 0.0))  # where the deviation is zero
            return drawn
        if kind in _DRAWN:
            drawn, (low,) = func(*args, **kwargs), _given(func, args, kwargs, "low")
            if self.replaying:
                return drawn.copy_(self._next() + low if low else self._next())
            self._noted(drawn - low if low else drawn)
            return drawn
        if kind == "aten::native_dropout" and args[2]:
            if self.replaying:
                mask = self._next().bool()
                return args[0] * mask / (1 - args[1]), mask
            output, mask = func(*args, **kwargs)
            self._noted(mask)
            return output, mask
        if kind == "aten::rrelu_with_noise" and len(args) > 4 and args[4]:
            low, high = args[2:4]
            if not self.replaying:
                func(*args, **kwargs)
                self._noted(((args[1] - low) / (high - low)).nan_to_num(0.0, 0.0, 0.0))  # where the bounds are one
            standard = self._next() if self.replaying else self.recorded[-1]
            return torch.where(args[0] <= 0, args[0] * args[1].copy_(low + (high - low) * standard), args[0])
        return func(*args, **kwargs)

    def _guard(self, arguments: Any, args: Any, kwargs: Any) -> None:
        for i, argument in enumerate(arguments):
            given = args[i] if i < len(args) else kwargs.get(argument.name)
            for x in given if isinstance(given, list | tuple) else (given,):
                if argument.is_write and memory(x) in self.guarded:
                    raise Written

    def _noted(self, drawn: torch.Tensor) -> torch.Tensor:
        self.recorded.append(drawn.detach().clone())
        self.position += 1
        return drawn

    def _next(self) -> torch.Tensor:
        if self.position == len(self.recorded):
            raise ReplayError(f"torch draws more random tensors than the {self.position} it drew before")
        self.position += 1
        return self.recorded[self.position - 1]


def _given(func: Any, args: Any, kwargs: Any, *names: str) -> list[Any]:
    """What an operator was given by these names; 0 where it takes none such."""
    places = {argument.name: (i, argument) for i, argument in enumerate(func._schema.arguments)}
    found = []
    for name in names:
        place, argument = places.get(name, (len(args), None))
        default = argument.default_value if argument is not None else 0
        found.append(args[place] if place < len(args) else kwargs.get(name, default))
    return found


def memory(x: Any) -> int:
    """Where the numbers of a dense tensor begin; 0 of anything else."""
    dense = type(x) in (torch.Tensor, torch.nn.Parameter) and x.layout == torch.strided
    return x.untyped_storage().data_ptr() if dense else 0


@contextmanager
def replayed(recorded: Sequence[torch.Tensor | Array]) -> Iterator[None]:
    """Within it jaxnn's random operators take torch's ``recorded`` draws in place of their keys'.

    Enter it inside a function under ``jit``, with the draws as arguments, and one compiled program serves many draws.

    Raises:
        ReplayError: a draw has another shape than torch's in its place, or torch drew more or fewer.
    """
    draws = iter(recorded)
    taken = 0

    def taken_next(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        nonlocal taken
        drawn = next(draws, None)
        if drawn is None:
            raise ReplayError(f"JAX draws a random tensor of shape {shape} after torch's {len(recorded)} are used up")
        taken += 1
        drawn = to_jax(drawn)
        if drawn.size != math.prod(shape):
            # Of rows that torch does not pick it has no mask, so that there is nothing to compare with.
            said = f"random tensor {taken} has shape {shape}, torch's has {drawn.shape}"
            raise ReplayError(f"{said}; a port that draws for more rows than torch can be compared in eval mode only")
        return drawn.reshape(shape).astype(dtype)

    with drawing(taken_next):
        yield
    if taken < len(recorded):
        raise ReplayError(f"torch drew {len(recorded)} random tensors, JAX only {taken}")


@contextmanager
def drawing(draw: Callable[[tuple[int, ...], DTypeLike], Array]) -> Iterator[None]:
    """Within it jaxnn's random operators, and ``jax.random``, take ``draw(shape, dtype)`` in place of keys' numbers."""
    with (
        mock.patch.multiple(
            "jaxnn.functional._random",
            bernoulli=lambda key, p, shape: _kept(draw(shape, jnp.float32), p),
            uniform=lambda key, shape, dtype, low=0.0, high=1.0: _between(draw(shape, dtype), low, high),
            exponential=lambda key, shape, dtype: draw(shape, dtype),
            multinomial=lambda key, weights, count, replace: draw((*weights.shape[:-1], count), jnp.int32),
        ),
        mock.patch.multiple(
            "jax.random",
            bernoulli=lambda key, p=0.5, shape=None, *_, **__: _kept(
                draw(jnp.shape(p) if shape is None else shape, jnp.float32), p
            ),
            uniform=lambda key, shape=(), dtype=float, minval=0.0, maxval=1.0, **_: _between(
                draw(shape, dtype), minval, maxval
            ),
            exponential=lambda key, shape=(), dtype=float, *_, **__: draw(shape, dtype),
            gumbel=lambda key, shape=(), dtype=float, *_, **__: -jnp.log(draw(shape, dtype)),
            normal=lambda key, shape=(), dtype=float, *_, **__: draw(shape, dtype),
            randint=lambda key, shape, minval, maxval, dtype=int, *_, **__: (
                draw(shape, dtype) + jnp.asarray(minval, dtype)
            ),
            categorical=lambda key, logits, axis=-1, shape=None, *_, **__: draw(
                jnp.max(logits, axis).shape if shape is None else shape, jnp.int32
            ),
            permutation=lambda key, x, axis=0, *_, **__: _permuted(draw, x, axis),
        ),
    ):
        yield


def _kept(drawn: Array, p: Any) -> Array:
    """Torch's mask, or that of its uniform numbers as stochastic depth makes it: ``floor(p + u)``."""
    return (drawn >= 1 - p) & (drawn > 0)


def _between(standard: Array, low: Any, high: Any) -> Array:
    """Numbers from 0 to 1, put between bounds as torch does."""
    low, high = jnp.asarray(low, standard.dtype), jnp.asarray(high, standard.dtype)
    return low + (high - low) * standard


def _permuted(draw: Callable[[tuple[int, ...], DTypeLike], Array], x: int | Array, axis: int) -> Array:
    """The numbers up to ``x``, or an array along an axis, in the order that torch has drawn."""
    if isinstance(x, int):
        return draw((x,), jnp.int32)
    return jnp.take(x, draw((x.shape[axis],), jnp.int32), axis)
