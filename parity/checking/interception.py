"""Calls of a port's layers, seen without a change to its code."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

from parity.checking.tree import TAG
from parity.standing_in import with_code_of

Handler = Callable[[Callable[..., Any], Any, tuple[str, ...], tuple[Any, ...], dict[str, Any]], Any]
"""What is done with a call: given the layer's own ``__call__``, the layer, its path in torch (its paths, where several
are stacked in it) and the arguments."""


@contextmanager
def intercepted(layers: Iterable[tuple[str, Any]], handler: Handler) -> Iterator[None]:
    """Within it, calls of tagged ones among ``layers`` go to ``handler``, those of others where they went before."""
    kinds = {type(layer) for _, layer in layers}
    own = {kind: vars(kind).get("__call__") for kind in kinds}
    # Looked up before any is replaced: a class inherits its base's.
    originals = {kind: kind.__call__ for kind in kinds}

    def wrapped(kind: type, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            tag = vars(layer).get(TAG)
            if tag is None or type(layer) is not kind:  # super().__call__ is part of a call under way
                return original(layer, *args, **kwargs)
            return handler(original, layer, tag.paths, args, kwargs)

        return call

    for kind in kinds:
        kind.__call__ = wrapped(kind, originals[kind])
    try:
        yield
    finally:
        for kind, original in own.items():
            if original is None:
                del kind.__call__
            else:
                kind.__call__ = original


@contextmanager
def recomputing_nothing() -> Iterator[None]:
    """Lets ``jax.checkpoint``, by whatever name, leave a function as it is: it would trace it even without jit.

    A function that was given to it before stays as it was made.
    """
    with with_code_of(inspect.unwrap(jax.checkpoint), _as_it_is):
        yield


def _as_it_is(fun: Any, *_: Any, **__: Any) -> Any:
    return fun


def tracing() -> Any:
    """Which function JAX is tracing here, if any: equal where it is the same."""
    return get_opaque_trace_state(convention="nnx")


with ThreadPoolExecutor(1) as _thread:
    _NOWHERE = _thread.submit(tracing).result()  # here it might be a function that imports this while JAX traces it


def refuse_within_jit(name: str) -> None:
    """Raise where a function that needs numbers is called within one that JAX traces."""
    if tracing() != _NOWHERE:
        raise TypeError(
            f"{name}: it runs both models and compares numbers, which a function under jax.jit, jax.grad or jax.vmap "
            f"does not have; call it outside, on the models"
        )


def traced(arguments: Any, outside: Any) -> bool:
    """Whether a call with these arguments is part of a function that is compiled, where it has no numbers; ``outside``
    is what :func:`tracing` gives where none is."""
    return tracing() != outside or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments))
