"""Rows that time a function, forward and backward."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from parity.benchmark.contest import COMPILED, JAXNN, TORCH, Result, blocking, check_equal, compiled, contest
from parity.benchmark.torch_side import awaited, tensor

MODES = ("forward", "backward")


def time_call(
    identity: tuple[str, str, str],
    torch_function: Callable[..., Any],
    jax_function: Callable[..., Any],
    inputs: Sequence[np.ndarray],
    *,
    varied: Sequence[int],
    modes: Sequence[str] = MODES,
    seconds: float = 0.3,
    plain: dict[str, Callable[..., Any]] | None = None,
    torch_compile: bool = False,
    random: bool = False,
    operations: float = 0.0,
) -> list[Result]:
    """Time a function of ``inputs`` in both frameworks, forward, and forward and backward from random cotangents.

    Args:
        identity: suite, family and name.
        torch_function: takes tensors, returns one (or a tuple, whose first counts).
        jax_function: takes arrays.
        inputs: the same for both.
        varied: positions of the inputs that are differentiated.
        modes: of ``forward`` and ``backward``.
        seconds: for each contender.
        plain: other functions of the same arrays, by name.
        torch_compile: time ``torch.compile`` too.
        random: the results are drawn at random and cannot be compared.
        operations: floating-point operations forward, where they are known; backward takes twice as many more.

    Raises:
        WrongAnswerError: a result or gradient is not torch's.
    """
    tensors = [tensor(x) for x in inputs]
    arrays = [jnp.asarray(x) for x in inputs]
    leaves = [tensors[i].requires_grad_() for i in varied]
    functions: dict[str, Callable[..., Any]] = {JAXNN: jax_function, **(plain or {})}
    torch_functions = {TORCH: torch_function}
    if torch_compile:
        torch_functions[COMPILED] = torch.compile(torch_function)
    with torch.no_grad():
        expected = _first(torch_function(*tensors))
    cotangent = np.random.default_rng(1).normal(size=tuple(expected.shape)).astype(np.float32)
    results = []
    if "forward" in modes:
        programs = {name: compiled(lambda *x, f=f: _first(f(*x)), *arrays) for name, f in functions.items()}
        for name, program in programs.items():
            if not random:
                check_equal(f"{identity[-1]} by {name}", [expected], [program.call(*arrays)])
        contenders = {name: _without_gradients(f, tensors) for name, f in torch_functions.items()}
        contenders |= {name: blocking(program.call, *arrays) for name, program in programs.items()}
        program = replace(programs[JAXNN], operations=operations or programs[JAXNN].operations)
        results.append(contest((*identity, "forward"), contenders, program, seconds=seconds))
    if "backward" in modes and leaves and expected.dtype == torch.float32:
        vector = tensor(cotangent)
        gradients = _with_gradients(torch_function, tensors, leaves, vector)()
        given = jnp.asarray(cotangent)
        programs = {name: compiled(_pullback(f, varied), arrays, given) for name, f in functions.items()}
        for name, program in programs.items():
            if not random:
                check_equal(f"gradients of {identity[-1]} by {name}", gradients, program.call(arrays, given)[1])
        contenders = {name: _with_gradients(f, tensors, leaves, vector) for name, f in torch_functions.items()}
        contenders |= {name: blocking(program.call, arrays, given) for name, program in programs.items()}
        program = replace(programs[JAXNN], operations=3 * operations or programs[JAXNN].operations)
        results.append(contest((*identity, "backward"), contenders, program, seconds=seconds))
    return results


def _pullback(function: Callable[..., Any], varied: Sequence[int]) -> Callable[..., Any]:
    def run(arrays: list[jax.Array], cotangent: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        def of(*changed: jax.Array) -> jax.Array:
            values = list(arrays)
            for i, x in zip(varied, changed, strict=True):
                values[i] = x
            return _first(function(*values))

        output, pull = jax.vjp(of, *(arrays[i] for i in varied))
        return output, list(pull(cotangent))

    return run


def _without_gradients(function: Callable[..., Any], tensors: Sequence[torch.Tensor]) -> Callable[[], Any]:
    def run() -> Any:
        with torch.no_grad():
            return function(*tensors)

    return awaited(run)


def _with_gradients(
    function: Callable[..., Any],
    tensors: Sequence[torch.Tensor],
    leaves: Sequence[torch.Tensor],
    cotangent: torch.Tensor,
) -> Callable[[], Any]:
    return awaited(lambda: torch.autograd.grad(_first(function(*tensors)), leaves, cotangent))


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def copy_rate(size: int = 2**26) -> float:
    """Bytes a second that this machine reads and writes, one for one, in memory it has already touched."""
    x = jnp.zeros(size // 4, jnp.float32)
    program = jax.jit(lambda x: x + 1, donate_argnums=0)

    def run() -> None:
        nonlocal x
        x = jax.block_until_ready(program(x))

    return 2 * size / _fastest(run)


def product_rate(size: int = 2048) -> float:
    """Floating-point operations a second of this machine's matrix product."""
    x = jnp.ones((size, size), jnp.float32)
    return 2 * size**3 / _fastest(blocking(jax.jit(lambda x: x @ x), x))


def call_seconds(times: int = 1000) -> dict[str, float]:
    """Seconds of a call that adds two numbers, by contender: what dispatch costs."""
    one = tensor(np.ones((), np.float32))
    x = jnp.ones(())
    program = jax.jit(jnp.add).lower(x, x).compile()

    def many(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                call()

        return run

    calls = {TORCH: awaited(lambda: torch.add(one, one)), JAXNN: blocking(program, x, x)}
    return {name: _fastest(many(call)) / times for name, call in calls.items()}


def _fastest(run: Callable[[], Any], times: int = 7) -> float:
    run()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)
