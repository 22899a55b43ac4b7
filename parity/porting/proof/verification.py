"""A port held against its original: on the example, and on a batch of another size."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import jax
import numpy as np
import torch
from flax import nnx
from torch.utils import _pytree as torch_tree

from jaxnn.nn.state import split_arrays
from parity.arrays import to_jax, to_numpy
from parity.checking import Report, check
from parity.checking.evaluation import Call, Evaluation, TorchSide, as_tensor, seeded
from parity.checking.jax_side import JaxSide
from parity.checking.judgement import judged
from parity.checking.results import contained
from parity.porting.errors import PortError
from parity.porting.graph.flexible import flexible
from parity.porting.graph.packing import Packings, noticed_cuts, unpacked
from parity.porting.graph.transforms import is_transforming
from parity.porting.proof.awakening import awakened, with_weights
from parity.porting.proof.lean import LeanSide, one_thread


class _Flat(torch.nn.Module):
    """A model whose arguments and results are flat."""

    def __init__(self, inner: torch.nn.Module, nested: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.nested = inner, nested
        self.training = inner.training

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Flat":
        # What torch.nn.utils.weight_norm keeps on a module is computed, and torch copies no such tensor.
        for module in self.inner.modules():
            memo |= {id(x): x.detach().clone() for x in vars(module).values() if isinstance(x, torch.Tensor)}
        return _Flat(copy.deepcopy(self.inner, memo), self.nested)

    def forward(self, *leaves: Any) -> Any:
        args, kwargs = self.nested(leaves)
        output = contained(self.inner(*args, **kwargs))
        return tuple(x for x in torch_tree.tree_leaves(output) if isinstance(x, torch.Tensor))


class _FlatPort(nnx.Module):
    def __init__(self, inner: nnx.Module, nested: Callable[[Any], Any]) -> None:
        self.inner, self.nested = inner, nested

    def __call__(self, *leaves: Any) -> Any:
        args, kwargs = self.nested(leaves)
        return tuple(x for x in ordered_leaves(self.inner(*args, **kwargs)) if isinstance(x, jax.Array))


def ordered_leaves(output: Any) -> Iterator[Any]:
    """What a result holds, in torch's order: ``jax.tree`` would sort the keys of dicts."""
    if dataclasses.is_dataclass(output):
        output = [getattr(output, field.name) for field in dataclasses.fields(output)]
    if isinstance(output, dict | list | tuple):
        for part in output.values() if isinstance(output, dict) else output:
            yield from ordered_leaves(part)
    elif output is not None:
        yield output


def _flattened(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], Callable[[Any], Any]]:
    """The arguments in one row, and what nests them again."""
    leaves, spec = torch_tree.tree_flatten((tuple(args), kwargs))

    def nested(leaves: Any) -> Any:
        return torch_tree.tree_unflatten(list(leaves), spec)

    return tuple(leaves), nested


def checked(module: torch.nn.Module, twin: nnx.Module, args: Any, kwargs: Any, *, gradients: bool = False) -> Report:
    """``parity.check`` of a port."""
    leaves, nested = _flattened(args, kwargs)
    # A layer of jaxnn takes no packed sequence, and flex_attention has no gradient on a CPU.
    with unpacked(Packings(traced=False)), flexible():
        return _as_of_inner(check(_Flat(module, nested), _FlatPort(twin, nested), leaves, gradients=gradients))


def _as_of_inner(report: Report) -> Report:
    """The report with the paths of the model itself, not of what flattens its arguments."""

    def path(text: str) -> str:
        return text.removeprefix("inner").lstrip(".")

    report.rows = [replace(row, name=row.name.removeprefix("inner.")) for row in report.rows]
    report.layers = [replace(layer, path=path(layer.path)) for layer in report.layers if layer.kind != _Flat.__name__]
    for fault in report.faults:
        fault.path = path(fault.path)
        fault.what, fault.reason = (text.replace(" inner.", " ") for text in (fault.what, fault.reason))
    report.only_torch, report.only_jax = list(map(path, report.only_torch)), list(map(path, report.only_jax))
    if report.first_divergence is not None:
        report.first_divergence = path(report.first_divergence)
    if report.last_right_gradient is not None:
        report.last_right_gradient = path(report.last_right_gradient)
    return report


# A program that runs once need not be fast. XLA's own passes, which decide what is computed, stay as they are; the
# emitters of fused code take longer than what they emit, and the library for products makes itself ready at the first.
_RUN_ONCE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_cpu_experimental_ynn_fusion_type": "",
}


@contextmanager
def noticed_failures(failures: list[str]) -> Iterator[None]:
    """Adds to ``failures`` where ``cholesky_ex`` is given what has no factor."""
    original = torch.linalg.cholesky_ex

    def factored(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        if not is_transforming() and found.info.any():
            failures.append("cholesky_ex is given a matrix that is not positive definite")
        return found

    with mock.patch.object(torch.linalg, "cholesky_ex", factored):
        yield


class Trial:
    """A model on one set of arguments, and then its port on the same.

    Args:
        module: the original; read, not changed.
        arguments: positional and keyword.
        differentiates: whether the model needs gradients to run.
        weights: those of its parameters that the port has not, by path.

    Raises:
        PortError: the model itself refuses ``arguments``, or is ruled by chance that no tensor shows.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        arguments: Any,
        differentiates: bool = False,
        weights: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.module, self.arguments, self._weights = module, arguments, weights
        leaves, self._nested = _flattened(*arguments)
        self._cuts: list[str] = []
        self._failures: list[str] = []
        try:
            with noticed_cuts(self._cuts), noticed_failures(self._failures), flexible():
                self._side = LeanSide(_Flat(module, self._nested), (leaves, {}), differentiates)
        except Exception as error:
            raise PortError(f"port: the model cannot be compared with: {type(error).__name__}: {error}") from error
        if self._side.plays and any(part.training for part in module.modules()):
            raise PortError(
                "port: while it trains the model draws numbers by Python's or NumPy's generators, not by torch's; a "
                "port would have them as they were when it was exported"
            )
        self._program: _Program | None = None

    def is_finite(self) -> bool:
        """Whether the model gives numbers only."""
        return all(np.isfinite(x).all() for x in self._side.single.outputs.values() if x.dtype.kind in "fc")

    def begin(self, port: nnx.Module, threads: Executor) -> None:
        """Trace the port, and have it compiled and run while other work goes on: the truth, to begin with."""
        self._port = port
        try:
            self._program = _Program(_FlatPort(port, self._nested), self._side, threads, self._weights or {})
            with one_thread(), flexible():
                self._side.exact()
        except Exception:  # whatever it is, the report says in which layer
            self._program = None

    def judge(self) -> None:
        """Refuse a port whose outputs differ; its layers are looked at only then.

        Raises:
            DivergenceError: the port differs.
            PortError: it has to, as the model's result is cut by what the data are.
        """
        try:
            passed = self._program is not None and all(row.passed for row in judged(self._side, self._program()))
        except Exception:
            passed = False
        if not passed and self._cuts:
            raise PortError(
                f"port: pad_packed_sequence cuts its result to the longest sequence, {self._cuts[0]} steps, which "
                "depends on the data; give it a total_length, or inputs that the longest sequence fills"
            )
        if not passed and self._failures:
            raise PortError(f"port: {self._failures[0]}, and the factor that torch gives for it means nothing")
        if not passed:
            port = with_weights(self._port, self._weights) if self._weights else self._port
            report = checked(self.module, port, *self.arguments)
            if not all(row.passed for row in report.rows):
                report.raise_for_divergence()

    def gradients_refused(self) -> Exception | None:
        """What the model itself says where it gives no gradients, as it may in evaluation."""
        leaves, nested = _flattened(*self.arguments)
        try:
            TorchSide(_Flat(self.module, nested), (leaves, {}))
        except Exception as error:
            return error
        return None

    def goes_on(self) -> bool:
        """Whether a second call of the model gives something else than the first, and than a second call of its port.

        The port is one that has been begun.
        """
        leaves, nested = _flattened(*self.arguments)
        subject, twin = copy.deepcopy(_Flat(self.module, nested)), _FlatPort(nnx.clone(self._port), nested)

        def called() -> Any:
            with torch.set_grad_enabled(self._side.differentiates), seeded(0):
                return subject(*map(as_tensor, leaves))

        first, second = called(), called()
        if all(torch.equal(x, y) for x, y in zip(first, second, strict=True)):
            return False
        given = [to_jax(x) if isinstance(x, torch.Tensor) else x for x in leaves]
        twin(*given)
        # Nothing is proven here: what the first call left matters.
        pairs = zip(second, twin(*given), strict=True)
        return not all(np.allclose(y, to_numpy(x), rtol=1e-2, atol=1e-4) for x, y in pairs)


def awake_trial(module: torch.nn.Module, arguments: Any, differentiates: bool) -> Trial | None:
    """A trial with weights that hide nothing; None where the model has such, or is not made for them."""
    try:
        subject, weights = awakened(module)
        trial = Trial(subject, arguments, differentiates, weights)
    except Exception:
        return None
    return trial if weights and trial.is_finite() else None


class _Program(JaxSide):
    """A port that another thread compiles and runs.

    Args:
        subject: the port.
        side: torch's.
        threads: where that is done.
        weights: in place of some of the port's, by path.
    """

    def __init__(self, subject: nnx.Module, side: TorchSide, threads: Executor, weights: dict[str, np.ndarray]) -> None:
        super().__init__(subject, side)
        self._graphdef, self._params, self._others = split_arrays(subject)
        parameters = {
            name: jax.device_put(np.array(weights[path], x.dtype))
            if (path := name.removeprefix("inner.")) in weights
            else x
            for name, x in self._params.arrays.items()
        }
        given: Any = parameters, [self._values[i] for i in self._varied], self._others.arrays, {}
        lowered = jax.jit(self._pass).lower(*given)
        self._results = threads.submit(lambda: lowered.compile(_RUN_ONCE)(*given))

    def __call__(self, call: Call | None = None) -> Evaluation:
        return self._evaluation(self._results.result())
