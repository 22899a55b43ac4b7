"""What a port is made of, and how it is left as it was."""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from flax import nnx

from parity.checking.tree import by_class


def parts_of(module: Any) -> tuple[list[Any], list[nnx.Variable]]:
    """What ``module`` is made of that can be written into, itself among it, and its variables; each once."""
    parts: list[Any] = []
    variables: list[nnx.Variable] = []
    seen: set[int] = set()
    waiting = [module]
    while waiting:
        part = waiting.pop()
        kind = _kind(type(part))
        if kind is None or id(part) in seen:
            continue
        seen.add(id(part))
        if kind is nnx.Variable:
            variables.append(part)
            continue
        if kind is not tuple:
            parts.append(part)
        if kind is object:
            waiting += vars(part).values()
        elif kind is dict:
            waiting += part.values()
        elif kind in (list, tuple, set, deque):
            waiting += part
    return parts, variables


@contextmanager
def kept(module: Any) -> Iterator[None]:
    """What is no variable in ``module`` holds behind it what it held before: attributes, lists, NumPy's arrays, where
    a generator stands. Copies by ``nnx`` share these with the original."""
    undone = [_undoing(part) for part in parts_of(module)[0]]
    try:
        yield
    finally:
        for undo in undone:
            undo()


@contextmanager
def left_as_it_was(module: Any) -> Iterator[Any]:
    """Gives ``module`` to be run; behind it, it holds what it held before.

    A copy takes as long as many a small layer does to run. It is given where variables are written in place.
    """
    variables = parts_of(module)[1]
    with kept(module):
        if any(variable.ref or variable.hijax for variable in variables):
            yield nnx.clone(module)
            return
        values = [(variable, variable.get_raw_value()) for variable in variables]
        try:
            yield module
        finally:
            for variable, value in values:
                if variable.get_raw_value() is not value:
                    variable.set_raw_value(value)


def _undoing(part: Any) -> Callable[[], None]:
    """What puts into ``part`` again what it holds now, where that has changed."""
    kind = _kind(type(part))
    if kind is np.random.Generator:
        stood = part.bit_generator.state
        return lambda: setattr(part.bit_generator, "state", stood)
    if kind is np.random.RandomState:
        place = part.get_state(legacy=False)
        return lambda: part.set_state(place)
    if kind is random.Random:
        numbers = part.getstate()
        return lambda: part.setstate(numbers)
    if kind is np.ndarray:
        array = part.copy()
        return lambda: np.copyto(part, array) if part.flags.writeable else None
    if kind in (object, dict):
        members = vars(part) if kind is object else part
        return partial(_restored, members, dict(members))
    elements = list(part)

    def undo() -> None:
        if len(part) != len(elements) or any(a is not b for a, b in zip(part, elements, strict=True)):
            part.clear()
            (part.update if kind is set else part.extend)(elements)

    return undo


def _restored(members: dict[Any, Any], held: dict[Any, Any]) -> None:
    if members.keys() != held.keys() or any(members[key] is not value for key, value in held.items()):
        members.clear()
        members.update(held)


_WRITTEN = (dict, list, set, deque, tuple, np.ndarray, np.random.Generator, np.random.RandomState, random.Random)

_CLOSED = {*sys.stdlib_module_names, "jax", "jaxlib", "flax", "numpy", "optax", "torch", "builtins"}
"""Whose objects are no part of a model."""


@by_class
def _kind(kind: Any) -> Any:
    """What instances of ``kind`` are looked into as; None for those that are not."""
    if issubclass(kind, nnx.Variable):
        return nnx.Variable
    if issubclass(kind, nnx.Pytree):
        return object if kind.__dictoffset__ else None
    known = next((each for each in _WRITTEN if issubclass(kind, each)), None)
    if known is not None:
        return known
    own = kind.__module__.split(".")[0] not in _CLOSED and not issubclass(kind, type)
    return object if own and kind.__dictoffset__ else None
