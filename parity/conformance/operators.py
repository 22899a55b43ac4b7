"""PyTorch's operator database (``op_db``), run against ``jaxnn.functional``.

Every sample is evaluated by torch in float64 (the truth), by torch in the dtype under test and by jaxnn; gradients are
pulled back from one random cotangent. Random operators replay torch's draws. Error inputs must be refused with the
exception type torch raises.
"""

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as torch_tree

from jaxnn import functional
from parity.arrays import to_numpy
from parity.checking.judgement import PASSES
from parity.checking.rounding import RoundedByChance
from parity.comparison import Comparison, compare
from parity.conformance.result import FLOORS, Result, refusal_fault
from parity.mirroring import counterpart
from parity.replay import Draws, replayed


def functional_entries() -> list[Any]:
    """The ``OpInfo`` entries of ``torch.nn.functional``, and of softmax, log_softmax, sigmoid and tanh."""
    from torch.testing._internal.common_methods_invocations import op_db

    besides = ("softmax", "log_softmax", "sigmoid", "tanh")
    return [entry for entry in op_db if entry.name.startswith("nn.functional.") or entry.name in besides]


def entry_dtypes(entry: Any) -> frozenset[torch.dtype]:
    """Those of float32 and float64 it supports on a CPU; complex ones or int64 where it takes no floating point."""
    supported = frozenset(entry.supported_dtypes("cpu"))
    kinds = ({torch.float32, torch.float64}, {torch.complex64, torch.complex128}, {torch.int64})
    return next((supported & kind for kind in kinds if supported & kind), frozenset())


def call_of(entry: Any, sample: Any) -> tuple[tuple, dict]:
    """A sample's arguments in the order of ``torch.nn.functional``; the database gives embeddings the table first."""
    args = (sample.input, *sample.args)
    if entry.name in ("nn.functional.embedding", "nn.functional.embedding_bag"):
        args = (args[1], args[0], *args[2:])
    return args, sample.kwargs


def entry_name(entry: Any) -> str:
    """The entry's name with its variant, as in ``max_unpool1d.grad``."""
    name = entry.name.removeprefix("nn.functional.")
    return f"{name}.{entry.variant_test_name.replace(' ', '_')}" if entry.variant_test_name else name


def samples(entry: Any, dtype: torch.dtype, seed: int = 0, *, requires_grad: bool = False) -> Iterator[tuple[int, Any]]:
    """The entry's samples with their numbers, each drawn by itself: the same whichever of them are run.

    ``entry.sample_inputs`` would draw all from one seed of its own, and looks through the whole call stack for it.
    """
    from torch.testing._internal.common_utils import set_rng_seed

    drawn = iter(entry.sample_inputs_func(entry, "cpu", dtype, requires_grad))
    for index in itertools.count():
        set_rng_seed(seed + index)
        try:
            sample = next(drawn)
        except StopIteration:
            return
        yield index, sample


def run_entry(entry: Any, dtype: torch.dtype, *, stride: int = 1, offset: int = 0, seed: int = 0) -> Result:
    """Run every ``stride``-th sample of ``entry`` from ``offset`` on, and, from offset 0, its error inputs.

    Args:
        entry: an ``OpInfo`` of :func:`functional_entries`.
        dtype: ``torch.float32`` or ``torch.float64``.
        stride: take every so many samples.
        offset: the first sample taken.
        seed: of the generators from which the samples are drawn.
    """
    name = entry.name.removeprefix("nn.functional.")
    function = getattr(functional, name, None)
    result = Result(entry_name(entry), str(dtype).removeprefix("torch."))
    differentiable = dtype in entry.supported_backward_dtypes("cpu")
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated arguments: samples use them, and both sides warn
        for index, sample in samples(entry, dtype, seed, requires_grad=differentiable):
            if index % stride != offset % stride:
                continue
            result.samples += 1
            result.gradients += differentiable
            where = f"sample {index} {_described(sample)}"
            try:
                forward, gradients = _run_sample(entry, function, sample, dtype, differentiable)
            except Exception as error:
                result.failures.append(f"{where}: {type(error).__name__}: {str(error)[:300]}")
                continue
            for kind, comparisons in (("output", forward), ("gradient", gradients)):
                result.failures.extend(f"{where}: {kind} {c.name}: {c.reason}" for c in comparisons if not c.passed)
            result.samples_passed += all(c.passed for c in forward)
            result.gradients_passed += differentiable and all(c.passed for c in gradients)
        if entry.error_inputs_func is not None and offset == 0 and dtype not in (torch.float64, torch.complex128):
            for error_input in entry.error_inputs_func(entry, "cpu"):
                result.errors += 1
                complaint = _refusal(function, error_input)
                result.errors_passed += not complaint
                if complaint:
                    result.failures.append(f"error input {_described(error_input.sample_input)}: {complaint}")
    return result


def _run_sample(
    entry: Any, function: Callable[..., Any] | None, sample: Any, dtype: torch.dtype, differentiable: bool
) -> tuple[list[Comparison], list[Comparison]]:
    if function is None:
        raise NotImplementedError("jaxnn.functional has no function of this name")
    call = (sample.input, *sample.args), sample.kwargs
    process = sample.output_process_fn_grad or (lambda output: output)
    with Draws() as draws:
        torch_outputs, torch_gradients, cotangents = _torch_vjp(entry.op, call, process, differentiable)
    exact = torch_tree.tree_map_only(torch.Tensor, _doubled, call)
    with Draws(draws.recorded):
        truth_outputs, truth_gradients, _ = _torch_vjp(entry.op, exact, process, differentiable, cotangents)
    with replayed(draws.recorded):
        ordered = call_of(entry, sample)
        jax_outputs, jax_gradients = _jax_vjp(function, ordered, process, cotangents)
        if jax_gradients:
            position = {id(x): i for i, x in enumerate(_varied(ordered))}
            jax_gradients = [jax_gradients[position[id(x)]] for x in _varied(call)]
    floor = FLOORS.get(dtype, 0.0)
    # In float64 there is no truth above torch's own rounding, and a gradient may cancel to that.
    pulled = max((float(v.abs().max()) for v in cotangents if v.numel()), default=0.0) if floor > 1e3 else 0.0

    def compared(
        jax_values: list, torch_values: list, truths: list, scale: float = 0.0, witnesses: Any = ()
    ) -> list[Comparison]:
        if len(jax_values) != len(torch_values):
            raise AssertionError(f"{len(jax_values)} arrays where torch has {len(torch_values)}")
        return [
            compare(
                str(i),
                np.asarray(a),
                to_numpy(b),
                to_numpy(t),
                floor=floor,
                scale=scale,
                witnesses=[x[i] for x in witnesses],
            )
            for i, (a, b, t) in enumerate(zip(jax_values, torch_values, truths, strict=True))
        ]

    def rounded(seed: int) -> list[np.ndarray]:
        with Draws(draws.recorded), RoundedByChance(seed):
            return [to_numpy(x) for x in _torch_vjp(entry.op, call, process, differentiable, cotangents)[1]]

    forward = compared(jax_outputs, torch_outputs, truth_outputs)
    gradients = compared(jax_gradients, torch_gradients, truth_gradients, scale=pulled)
    if not all(row.passed for row in gradients):
        # Torch's terms may have cancelled to a zero, where another order of them leaves what was rounded off.
        witnesses = [rounded(seed) for seed in range(PASSES)]
        gradients = compared(jax_gradients, torch_gradients, truth_gradients, scale=pulled, witnesses=witnesses)
    return forward, gradients


def _torch_vjp(
    op: Callable[..., Any],
    call: tuple[tuple, dict],
    process: Callable[[Any], Any],
    differentiable: bool,
    cotangents: list[torch.Tensor] | None = None,
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Outputs, gradients of the leaves that require one, and the cotangents (drawn here unless given)."""
    args, kwargs = call
    leaves = _varied(call)
    output = op(*args, **kwargs)
    outputs = [x for x in torch_tree.tree_leaves(output) if isinstance(x, torch.Tensor)]
    smooth = [x for x in torch_tree.tree_leaves(process(output)) if isinstance(x, torch.Tensor) and x.requires_grad]
    if not (differentiable and leaves and smooth):
        return [x.detach() for x in outputs], [], []
    if cotangents is None:
        generator = torch.Generator().manual_seed(0)
        cotangents = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in smooth]
    vectors = [v.to(x.dtype) for v, x in zip(cotangents, smooth, strict=True)]
    gradients = torch.autograd.grad(smooth, leaves, vectors, allow_unused=True)
    zeroed = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]
    return [x.detach() for x in outputs], [g.detach() for g in zeroed], cotangents


def _varied(call: tuple[tuple, dict]) -> list[torch.Tensor]:
    return [x for x in torch_tree.tree_leaves(call) if isinstance(x, torch.Tensor) and x.requires_grad]


def _jax_vjp(
    function: Callable[..., Any],
    call: tuple[tuple, dict],
    process: Callable[[Any], Any],
    cotangents: list[torch.Tensor],
) -> tuple[list[jax.Array], list[jax.Array]]:
    leaves, spec = torch_tree.tree_flatten(call)
    varied = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor) and x.requires_grad]
    values = [counterpart(x) for x in leaves]
    keys = random_key(function)

    def evaluated(*changed: jax.Array) -> Any:
        merged = list(values)
        for i, x in zip(varied, changed, strict=True):
            merged[i] = x
        args, kwargs = torch_tree.tree_unflatten(merged, spec)
        return function(*args, **kwargs, **keys)

    def smooth_outputs(*changed: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        output = evaluated(*changed)
        arrays = [x for x in jax.tree.leaves(output) if isinstance(x, jax.Array)]
        smooth = [x for x in jax.tree.leaves(process(output)) if jnp.issubdtype(x.dtype, jnp.inexact)]
        return smooth, arrays

    if not cotangents:
        return smooth_outputs(*(values[i] for i in varied))[1], []
    smooth, pullback, outputs = jax.vjp(smooth_outputs, *(values[i] for i in varied), has_aux=True)
    vectors = [jnp.asarray(to_numpy(v)).astype(x.dtype) for v, x in zip(cotangents, smooth, strict=True)]
    # JAX pulls back the conjugate of what torch calls the gradient of a complex tensor.
    return outputs, [jnp.conj(g) for g in pullback([jnp.conj(v) for v in vectors])]


def _refusal(function: Callable[..., Any] | None, error_input: Any) -> str:
    """Empty where the error input is refused as torch refuses it, else what happened instead."""
    sample = error_input.sample_input
    if function is None:
        return "jaxnn.functional has no function of this name"
    args, kwargs = torch_tree.tree_map(counterpart, ((sample.input, *sample.args), sample.kwargs))
    try:
        function(*args, **kwargs, **random_key(function))
    except Exception as error:
        return refusal_fault(error, error_input)
    return refusal_fault(None, error_input)


def random_key(function: Callable[..., Any]) -> dict[str, jax.Array]:
    """The random key, by the name it has in ``function``; attention's ``key``, not keyword-only, is another thing."""
    names = [n for n, p in inspect.signature(function).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return {name: jax.random.key(0) for name in ("key", "dropout_key") if name in names}


def _doubled(x: torch.Tensor) -> torch.Tensor:
    if not (x.is_floating_point() or x.is_complex()):
        return x
    exact = x.detach().to(torch.complex128 if x.is_complex() else torch.float64)
    return exact.requires_grad_(x.requires_grad)


def _described(sample: Any) -> str:
    def shown(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}"
        return x

    args = [shown(x) for x in (sample.input, *sample.args)]
    return ", ".join([*map(str, args), *(f"{key}={shown(value)}" for key, value in sample.kwargs.items())])
