"""A torch model, or function, against its port."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
from flax import nnx

from jaxnn import optim
from jaxnn.nn.state import split_arrays
from parity.checking.alignment import layout_of
from parity.checking.branching import branches_taken
from parity.checking.compiled import by_compiling
from parity.checking.diagnosis import explain
from parity.checking.diagnosis.weights import differing
from parity.checking.evaluation import Evaluation, Subject, TorchSide
from parity.checking.fault import Fault
from parity.checking.following import Following
from parity.checking.gradients import gradient_faults
from parity.checking.interception import refuse_within_jit
from parity.checking.jax_side import JaxSide
from parity.checking.judgement import judged, refused
from parity.checking.keeping import parts_of
from parity.checking.layers import checked_layers
from parity.checking.pairing import Pair, aliases, under_torchs
from parity.checking.progress import progress
from parity.checking.report import Report
from parity.checking.runs import Batch, TorchOptimizer
from parity.checking.scatter import Scatter
from parity.checking.training import compare_runs
from parity.checking.tree import aligned_paths, jax_layers
from parity.comparison import FACTOR, Comparison


@branches_taken()
def check(
    torch_module: Subject,
    jax_module: Subject,
    inputs: Any,
    kwargs: dict[str, Any] | None = None,
    *,
    gradients: bool = True,
    steps: int = 0,
    loss: Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]] | None = None,
    batches: Iterable[Batch] | None = None,
    optimizer: tuple[TorchOptimizer, optax.GradientTransformation] | None = None,
    seed: int = 0,
    factor: float = FACTOR,
) -> Report:
    """Compare forward pass, gradients and, with ``steps``, training of a torch module and its port.

    The truth is torch's in float64; every float32 result of JAX must be as near to it as rounding explains (see
    ``parity.comparison``). Random tensors that torch draws, such as dropout masks, are carried over to the JAX side.
    Both are run as they stand, weights and modes included, and left as they are, but for what a torch module writes
    into its parameters past torch, through NumPy.

    Args:
        torch_module: a ``torch.nn.Module``, or a function of tensors.
        jax_module: its port: an ``nnx.Module`` with the same parameter names, or a function of arrays.
        inputs: the positional arguments, arrays of any of the libraries; one array alone need not be in a tuple.
        kwargs: the keyword arguments.
        gradients: compare those of every parameter and of every floating-point input. The port is compiled for that;
            without them a module with layers runs operator by operator.
        steps: train for so many steps and compare losses, parameters and statistics.
        loss: of training, ``loss(model, *batch)``, or a pair where torch and JAX need one each; the mean square of the
            first output unless given.
        batches: of training; ``inputs`` again and again unless given.
        optimizer: of training: a function from torch parameters to an optimizer, and its optax twin; SGD with learning
            rate 0.01 and momentum 0.9 unless given.
        seed: of torch's generator and of the vectors that gradients are pulled back from.
        factor: how many times the error that rounding explains passes.

    Returns:
        The report; it prints as a table.
    """
    refuse_within_jit("check")
    args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    side = TorchSide(torch_module, (args, kwargs or {}), gradients=gradients, seed=seed)
    modules = isinstance(torch_module, torch.nn.Module) and isinstance(jax_module, nnx.Module)
    if steps and not modules:
        raise TypeError("check: steps trains modules, but torch_module or jax_module is a function")
    following: Following | None = None
    raised: Exception | None = None
    try:
        pairs = aligned_paths(torch_module, jax_module) if isinstance(torch_module, torch.nn.Module) else {}
        twins = aliases(torch_module, jax_module, pairs) if isinstance(torch_module, torch.nn.Module) else {}
        # With gradients as the user will run it; else as its layers are run below.
        port = JaxSide(jax_module, side, compiled=gradients or not any(jax_layers(jax_module)))
        if isinstance(torch_module, torch.nn.Module) and modules and not gradients:
            following = Following(torch_module, jax_module, pairs, side, factor)
        with following.watching() if following is not None else nullcontext():
            evaluation = _renamed(port(), twins)
        rows = judged(side, evaluation, factor, scatter=lambda: Scatter(side, port, twins))
    except Exception as error:
        if not isinstance(torch_module, torch.nn.Module):
            raise
        raised = error
        rows = [refused("output", "output", (), f"JAX raises {type(error).__name__}: {error}")]
    report = Report(rows, next((row.name for row in rows if not row.passed), None))
    layered = any(jax_layers(jax_module))
    if isinstance(torch_module, torch.nn.Module) and (layered or report.first_divergence is not None):
        found = following.cleared() if following is not None and report.first_divergence is None else None
        if found is None:
            with progress(sum(1 for _ in torch_module.modules())) as done:
                found = checked_layers(torch_module, jax_module, side, explain, factor, done)
        report.faults, report.layers = found.faults, found.records
        report.only_torch, report.only_jax = found.only_torch, found.only_jax
        if found.traced:
            within = "they run within a function that JAX traces as a whole, as jax.checkpoint does"
            report.notes.append(f"layers not compared one by one: {', '.join(found.traced)}: {within}")
        if found.faults:
            report.first_divergence = next((f.path for f in found.faults if f.path), report.first_divergence)
        elif raised is not None:
            raise raised
        elif laid_out := _laid_out_otherwise(side, evaluation, rows):
            report.faults = laid_out
        elif report.first_divergence is not None and (
            compiled := by_compiling(side, lambda: _renamed(port.plainly(), twins), rows, factor)
        ):
            report.faults = compiled
        elif any(row.kind == "gradient" and not row.passed for row in rows):
            report.faults, report.last_right_gradient = gradient_faults(
                torch_module, jax_module, side, found.records, rows, evaluation
            )
            report.first_divergence = next((f.path for f in report.faults if f.path), report.first_divergence)
    if isinstance(torch_module, torch.nn.Module) and raised is None:
        report.notes += _notes(torch_module, jax_module, twins)
        right = {record.path for record in report.layers if record.compared and record.passed}
        report.notes += _unseen(torch_module, jax_module, pairs, right - {fault.path for fault in report.faults})
    if steps and raised is None:
        assert isinstance(torch_module, torch.nn.Module)
        assert isinstance(jax_module, nnx.Module)
        torch_optimizer, transform = optimizer or (_torch_sgd, optim.SGD(lr=0.01, momentum=0.9))
        trained = compare_runs(
            torch_module,
            jax_module,
            torch_optimizer,
            transform,
            loss or (_torch_mean_square, _jax_mean_square),
            batches or [args],
            steps,
            seed=seed,
            factor=factor,
            follows=not report.passed,
        ).report
        report.rows += trained.rows
        report.losses = trained.losses
        report.notes += trained.notes
        report.faults += trained.faults
        report.first_divergence = report.first_divergence or trained.first_divergence
    return report


def assert_matches(torch_module: Subject, jax_module: Subject, inputs: Any, *args: Any, **options: Any) -> None:
    """Raise :class:`~parity.DivergenceError`, with the whole report, unless :func:`check` passes; for tests.

    Args:
        torch_module: the reference.
        jax_module: its port.
        inputs: as for :func:`check`, which takes the other arguments too.
        args: of :func:`check`.
        options: of :func:`check`.
    """
    __tracebackhide__ = True
    check(torch_module, jax_module, inputs, *args, **options).raise_for_divergence()


def _renamed(found: Evaluation, twins: dict[str, Pair]) -> Evaluation:
    return replace(
        found,
        parameter_gradients=under_torchs(found.parameter_gradients, twins),
        buffers=under_torchs(found.buffers, twins),
    )


def _laid_out_otherwise(side: TorchSide, evaluation: Evaluation, rows: list[Comparison]) -> list[Fault]:
    """The outputs that hold torch's numbers in another layout: inside a model that is the port's own business."""
    faults = []
    for row in rows:
        if row.kind == "output" and not row.passed and row.name in evaluation.outputs:
            layout = layout_of(evaluation.outputs[row.name], side.single.outputs[row.name])
            if layout is not None and not layout.is_torchs:
                said = f"{row.name} holds torch's numbers, laid out otherwise: {layout} of torch's {row.shape}"
                faults.append(Fault("", 0, "output", row.reason, "swapped axes", said, row))
    return faults


def _notes(torch_module: torch.nn.Module, jax_module: Any, twins: dict[str, Pair]) -> list[str]:
    """What is to be said of the two state dicts: keys of one only, values that differ."""
    there = {pair.name for pair in twins.values()}
    lacking = [name for name in torch_module.state_dict() if name not in there]
    paired = {name.partition("[")[0] for name in twins}
    slots = {id(getattr(pair.slot.owner, pair.slot.name)) for pair in twins.values()}
    alone = [x for x in parts_of(jax_module)[1] if isinstance(x, nnx.Param) and id(x) not in slots]
    own = split_arrays(jax_module)[1].arrays if alone and isinstance(jax_module, nnx.Module) else {}
    more = [name for name in own if name not in paired]
    other = list(dict.fromkeys(pair.name for pair in twins.values() if differing([pair])))
    titles = (("only in torch", lacking), ("only in the port", more), ("different before the first step", other))
    return [f"{title}: {', '.join(names)}" for title, names in titles if names]


def _unseen(torch_module: torch.nn.Module, jax_module: Any, pairs: dict[str, str], right: set[str]) -> list[str]:
    """What is to be said of epsilons that differ in layers that are ``right``: beside large inputs they are rounded
    off."""
    theirs, notes = dict(torch_module.named_modules()), []
    for path, layer in jax_layers(jax_module):
        there = pairs.get(path)
        if there not in right:
            continue
        ours, eps = getattr(layer, "eps", getattr(layer, "epsilon", None)), getattr(theirs[there], "eps", None)
        if isinstance(ours, float) and isinstance(eps, float) and ours != eps:
            notes.append(f"eps of {there} is {ours:g}, torch's {eps:g}: with these inputs it makes no difference")
    return notes


def _torch_sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def _torch_mean_square(model: torch.nn.Module, *inputs: Any) -> torch.Tensor:
    output = torch.utils._pytree.tree_leaves(model(*inputs))[0]
    return (output**2).mean()


def _jax_mean_square(model: nnx.Module, *inputs: Any) -> jax.Array:
    return jnp.mean(jax.tree.leaves(model(*inputs))[0] ** 2)
