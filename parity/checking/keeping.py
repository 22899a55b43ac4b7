"""What a port is made of, and how it is left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flax import nnx

from parity.checking.tree import by_class, is_own


def parts_of(module: Any) -> tuple[list[Any], list[nnx.Variable]]:
    """The objects that ``module`` is made of, itself among them, and its variables; each once."""
    objects: list[Any] = []
    variables: list[nnx.Variable] = []
    seen: set[int] = set()
    waiting = [module]
    while waiting:
        part = waiting.pop()
        kind = _kind(type(part))
        if kind == "leaf" or id(part) in seen:
            continue
        seen.add(id(part))
        if kind == "variable":
            variables.append(part)
        elif kind == "object":
            objects.append(part)
            waiting += vars(part).values()
        else:
            waiting += part.values() if kind == "mapping" else part
    return objects, variables


@contextmanager
def left_as_it_was(module: Any) -> Iterator[Any]:
    """Gives ``module`` to be run; behind it, its objects hold what they held before.

    A copy takes as long as many a small layer does to run. It is given where variables are written in place.
    """
    objects, variables = parts_of(module)
    if any(variable.ref or variable.hijax for variable in variables):
        yield nnx.clone(module)
        return
    members = [(part, dict(vars(part))) for part in objects]
    values = [(variable, variable.get_raw_value()) for variable in variables]
    try:
        yield module
    finally:
        for part, held in members:
            vars(part).clear()
            vars(part).update(held)
        for variable, value in values:
            if variable.get_raw_value() is not value:
                variable.set_raw_value(value)


@by_class
def _kind(kind: Any) -> Any:
    if issubclass(kind, nnx.Variable):
        return "variable"
    if issubclass(kind, nnx.Pytree) or is_own(kind):
        return "object" if kind.__dictoffset__ else "leaf"
    if issubclass(kind, dict):
        return "mapping"
    return "sequence" if issubclass(kind, list | tuple) else "leaf"
