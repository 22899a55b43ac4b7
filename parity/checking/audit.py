"""What less precision costs: one model in several dtypes, each against float64."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.utils import _pytree as torch_tree

from parity.arrays import to_jax, to_numpy
from parity.checking.alignment import distance, layout_of
from parity.checking.branching import branches_taken
from parity.checking.evaluation import TorchSide, named_outputs, same_numbers
from parity.checking.interception import intercepted, refuse_within_jit
from parity.checking.keeping import kept
from parity.checking.leaves import flattened
from parity.checking.perturbation import doubled
from parity.checking.results import contained
from parity.checking.tree import aligned_paths, jax_layers, tagged
from parity.replay import Draws, replayed

PRECISIONS = ("float64", "float32", "tf32", "bfloat16", "float16")


@dataclass(frozen=True)
class AuditRow:
    """One precision.

    Attributes:
        precision: the dtype of weights and inputs; ``tf32`` is float32 with products taken in tf32, on a GPU.
        torch_error: of the worst output against torch in float64, root mean square, relative; None where torch was not
            run.
        jax_error: JAX's.
        layers: JAX's error at the output of every layer, by path.
        note: why a side was not run.
    """

    precision: str
    torch_error: float | None
    jax_error: float | None
    layers: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(repr=False)
class Audit:
    """The table: a row for each precision."""

    rows: list[AuditRow]
    matmul_precision: str

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        from parity.reports.audit_table import audit_table
        from parity.reports.terminal import rendered

        return rendered(audit_table(self))


def precision_audit(
    torch_module: torch.nn.Module,
    jax_module: Any,
    inputs: Any,
    kwargs: dict[str, Any] | None = None,
    *,
    precisions: Sequence[str] | None = None,
    layers: bool = False,
) -> Audit:
    """Run a model and its port in several precisions and measure each against torch in float64.

    Weights and floating-point inputs are cast; float32 takes its products in float32, as torch does, whatever
    ``jax_default_matmul_precision`` says. Neither module is changed.

    Args:
        torch_module: the reference.
        jax_module: its port.
        inputs: positional arguments, as for ``check``.
        kwargs: keyword arguments.
        precisions: of ``float64``, ``float32``, ``tf32``, ``bfloat16`` and ``float16``; all that this machine has
            unless given (``tf32`` needs a GPU).
        layers: also note JAX's error at every layer's output.

    Returns:
        The table; it prints.

    Raises:
        ValueError: a precision is of another name.
    """
    refuse_within_jit("precision_audit")
    gpu = jax.default_backend() == "gpu"
    chosen = tuple(precisions or (p for p in PRECISIONS if p != "tf32" or gpu))
    if unknown := [p for p in chosen if p not in PRECISIONS]:
        raise ValueError(f"precision_audit: precisions must be of {', '.join(PRECISIONS)}, got {', '.join(unknown)}")
    args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    side = TorchSide(torch_module, (args, kwargs or {}), gradients=False)
    truth, inner = _torch_run(torch_module, side, torch.float64, layers)
    rows = []
    for precision in chosen:
        notes = []
        dtype = getattr(torch, "float32" if precision == "tf32" else precision)
        theirs = ours = None
        at_layers: dict[str, float] = {}
        if precision != "tf32":
            try:
                theirs = _worst(_torch_run(torch_module, side, dtype)[0], truth)
            except Exception as error:
                notes.append(f"torch: {_line(error)}")
        elif not gpu:
            notes.append("JAX: tf32 needs a GPU")
        if precision != "tf32" or gpu:
            try:
                with kept(jax_module):
                    found, seen = _jax_run(torch_module, jax_module, side, dtype, precision, layers)
                ours = _worst(found, truth)
                at_layers = {path: _aligned_distance(x, inner[path]) for path, x in seen.items() if path in inner}
            except Exception as error:
                notes.append(f"JAX: {_line(error)}")
        rows.append(AuditRow(precision, theirs, ours, at_layers, "; ".join(notes)))
    return Audit(rows, str(jax.config.values["jax_default_matmul_precision"] or "default"))


def _torch_run(
    module: torch.nn.Module, side: TorchSide, dtype: torch.dtype, layers: bool = False
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Outputs, and the first output of every layer's first call, of torch in ``dtype``."""
    module = copy.deepcopy(module).to(dtype)
    inner: dict[str, np.ndarray] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            first = next((x for x in torch_tree.tree_leaves(output) if isinstance(x, torch.Tensor)), None)
            if first is not None and path not in inner:
                inner[path] = to_numpy(first)

        return hook

    for path, layer in module.named_modules() if layers else ():
        if path:
            layer.register_forward_hook(note(path))
    args, kwargs = torch_tree.tree_map(
        lambda x: doubled(x).to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x, side.call
    )
    with torch.set_grad_enabled(side.differentiates), branches_taken(), same_numbers(side), Draws(side.draws):
        outputs = named_outputs(module(*args, **kwargs))
    return [to_numpy(x) for x in outputs.values()], inner


def _jax_run(
    torch_module: torch.nn.Module, jax_module: Any, side: TorchSide, dtype: torch.dtype, precision: str, layers: bool
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The same of JAX."""
    kind, seen = to_jax(dtype), {}

    def handler(original: Any, layer: Any, paths: tuple[str, ...], args: Any, kwargs: Any) -> Any:
        (path,), output = paths, original(layer, *args, **kwargs)
        first = jax.tree.leaves(output)[0]
        if path and path not in seen and not isinstance(first, jax.core.Tracer):
            seen[path] = np.asarray(first)
        return output

    matmul = {"float32": "highest", "tf32": "tensorfloat32"}.get(precision)
    with (
        jax.enable_x64(True) if precision == "float64" else nullcontext(),
        jax.default_matmul_precision(matmul) if matmul else nullcontext(),
    ):
        module = _cast(tagged(jax_module, aligned_paths(torch_module, jax_module)), kind)
        args, kwargs = torch_tree.tree_map(lambda x: _as(to_jax(x), kind), side.call)
        with replayed([_as(to_jax(x), kind) for x in side.draws]), _watched(module, handler, layers):
            found = [np.asarray(x) for x in flattened(contained(module(*args, **kwargs)))[1]]
    return found, seen


@contextmanager
def _watched(module: Any, handler: Any, layers: bool) -> Iterator[None]:
    with intercepted(jax_layers(module), handler) if layers else nullcontext():
        yield


def _cast(module: Any, dtype: Any) -> Any:
    if isinstance(module, nnx.Module):
        for _, variable in nnx.to_flat_state(nnx.state(module)):
            variable.set_value(_as(variable.get_value(), dtype))
    return module


def _as(x: Any, dtype: Any) -> Any:
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(dtype)
    return x


def _worst(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
    return max(
        (_aligned_distance(a, b) for a, b in zip(found, truth, strict=False) if b.dtype.kind in "fc"), default=0.0
    )


def _aligned_distance(a: np.ndarray, b: np.ndarray) -> float:
    layout = layout_of(a, b, near=0.5)
    return distance(a if layout is None else layout.to_torch(a, b.shape), b)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
