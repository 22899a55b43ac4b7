"""PyTorch's module database (``module_db``), run against ``jaxnn.nn``.

Every input is run in training and in evaluation: the JAX layer is built with torch's constructor arguments, given
torch's weights, and its outputs, gradients and statistics are compared; it must print as torch's does.
"""

import inspect
import warnings
from functools import partial
from typing import Any

import jax
import torch
from flax import nnx
from torch.utils import _pytree as torch_tree

from jaxnn import nn
from parity import weights
from parity.arrays import to_jax
from parity.checking.evaluation import TorchSide, is_smooth
from parity.checking.jax_side import evaluate_jax
from parity.checking.judgement import judged
from parity.conformance.result import FLOORS, Result, refusal_fault
from parity.mirroring import counterpart


def module_entries() -> list[Any]:
    """The ``ModuleInfo`` entries of ``torch.nn``."""
    from torch.testing._internal.common_modules import module_db

    return list(module_db)


def module_name(entry: Any) -> str:
    """The class's name."""
    return entry.name.removeprefix("nn.")


def module_dtypes(entry: Any) -> frozenset[torch.dtype]:
    """Of float32 and float64, those the entry supports: in complex dtypes torch's modules are not sampled whole."""
    return frozenset(entry.dtypes) & {torch.float32, torch.float64}


def run_module(entry: Any, dtype: torch.dtype, *, stride: int = 1, seed: int = 0) -> Result:
    """Run every ``stride``-th input of ``entry`` in both modes and, in float32, its error inputs."""
    result = Result(module_name(entry), str(dtype).removeprefix("torch."))
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of deprecated arguments and padded inputs
        for training in (True, False):
            torch.manual_seed(seed)
            inputs = entry.module_inputs_func(entry, device="cpu", dtype=dtype, requires_grad=True, training=training)
            for index, sample in enumerate(inputs):
                if index % stride == 0:
                    _run_input(entry, sample, dtype, training, f"input {index} {sample.desc}", result)
        if entry.module_error_inputs_func is not None and dtype == torch.float32:
            errors = entry.module_error_inputs_func(
                entry, device="cpu", dtype=dtype, requires_grad=False, training=False
            )
            for error_input in errors:
                result.errors += 1
                complaint = _refusal(entry, error_input)
                result.errors_passed += not complaint
                if complaint:
                    result.failures.append(f"error input: {complaint}")
    return result


def _run_input(entry: Any, sample: Any, dtype: torch.dtype, training: bool, where: str, result: Result) -> None:
    where = f"{where} {'training' if training else 'evaluation'}"
    result.samples += 1
    result.gradients += 1
    try:
        made = sample.constructor_input
        module = entry.module_cls(*made.args, **made.kwargs).to(dtype).train(training)
        call = sample.forward_input.args, sample.forward_input.kwargs
        made.args, made.kwargs = torch_tree.tree_map(partial(_cast, dtype), (made.args, dict(made.kwargs)))
        twin = built(entry, made, dtype)
        if entry.is_lazy:
            module(*call[0], **call[1])
            args, kwargs = torch_tree.tree_map(to_jax, call)
            twin(*args, **kwargs)
        nn.load_state_dict(twin, weights.load(module))
        if repr(twin) != repr(module):
            raise AssertionError(f"prints as {twin!r}, torch as {module!r}")
        twin.train() if training else twin.eval()
        side = TorchSide(module, call)
        rows = judged(side, evaluate_jax(twin, side), floor=FLOORS[dtype])
    except Exception as error:
        result.failures.append(f"{where}: {type(error).__name__}: {str(error)[:300]}")
        return
    result.failures.extend(f"{where}: {row.kind} {row.name}: {row.reason}" for row in rows if not row.passed)
    result.samples_passed += all(row.passed for row in rows if row.kind != "gradient")
    result.gradients_passed += all(row.passed for row in rows if row.kind == "gradient")


def built(entry: Any, made: Any, dtype: torch.dtype) -> nnx.Module:
    """The jaxnn layer of the entry's class, from torch's arguments."""
    kind = getattr(nn, entry.module_cls.__name__, None)
    if kind is None:
        raise NotImplementedError("jaxnn.nn has no layer of this name")
    args, kwargs = torch_tree.tree_map(counterpart, (made.args, dict(made.kwargs)))
    kwargs.pop("device", None)  # torch's name of one; the layer goes to JAX's default
    parameters = inspect.signature(kind.__init__).parameters
    if "rngs" in parameters:
        kwargs["rngs"] = nnx.Rngs(0)
    if "dtype" in parameters:
        kwargs.setdefault("dtype", to_jax(dtype))
    return kind(*args, **kwargs)


def _cast(dtype: torch.dtype, x: Any) -> Any:
    return x.to(dtype) if is_smooth(x) else x


def _refusal(entry: Any, error_input: Any) -> str:
    made, call = error_input.module_error_input.constructor_input, error_input.module_error_input.forward_input
    try:
        twin = built(entry, made, torch.float32)
        if call is not None:
            args, kwargs = torch_tree.tree_map(to_jax, (call.args, call.kwargs))
            twin(*args, **kwargs)
    except Exception as error:
        return refusal_fault(error, error_input)
    return refusal_fault(None, error_input)
