"""Where a gradient goes wrong on its way back through the layers.

Zeros are added to the output of every layer on both sides; the gradients of these zeros are those at the layers'
outputs.
"""

from contextlib import nullcontext
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from torch.utils import _pytree as torch_tree

from parity.checking.alignment import distance, layouts
from parity.checking.diagnosis.detaching import stopped
from parity.checking.diagnosis.outputs import relation
from parity.checking.evaluation import Call, Evaluation, TorchSide
from parity.checking.fault import Fault, LayerRecord
from parity.checking.interception import intercepted
from parity.checking.jax_side import evaluate_jax
from parity.checking.judgement import judged
from parity.checking.keeping import kept
from parity.checking.pairing import aliases, tied_otherwise
from parity.checking.perturbation import copied, own
from parity.checking.stacking import stacked_paths
from parity.checking.tree import aligned_paths, jax_layers, submodule, tagged
from parity.comparison import Comparison


class Tapped(torch.nn.Module):
    """A torch model that adds one of ``taps`` to each layer's output."""

    def __init__(self, module: torch.nn.Module, places: dict[tuple[str, int], int]) -> None:
        super().__init__()
        self.module = module
        self.places = places

    def forward(self, taps: list[torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """The model's output."""
        calls: dict[str, int] = {}

        def hook(path: str) -> Any:
            def tap(_: torch.nn.Module, __: Any, output: Any) -> Any:
                calls[path] = calls.get(path, -1) + 1
                place = self.places.get((path, calls[path]))
                if place is None:
                    return output
                leaves, spec = torch_tree.tree_flatten(output)
                first = next(i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor))
                leaves[first] = leaves[first] + taps[place]
                return torch_tree.tree_unflatten(leaves, spec)

            return tap

        paths = {path for path, _ in self.places}
        handles = [self.module.get_submodule(path).register_forward_hook(hook(path)) for path in paths]
        try:
            return self.module(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()


def gradient_faults(
    torch_module: torch.nn.Module,
    jax_module: Any,
    side: TorchSide,
    records: list[LayerRecord],
    rows: list[Comparison],
    evaluation: Evaluation,
) -> tuple[list[Fault], str | None]:
    """The layers that pass a wrong gradient on although the one they get is right.

    Args:
        torch_module: the reference.
        jax_module: its port.
        side: the torch side of the whole.
        records: of the layers' calls, in the order in which they return.
        rows: of the whole; a failing gradient is among them.
        evaluation: the port's, under torch's names.

    Returns:
        The faults from the output backwards, and the last layer at whose output the gradient is still right (None where
        it is wrong at the last layer already).
    """
    torch_module = copied(torch_module, shared=True)  # what the model keeps in attributes stays as it is
    shapes = _output_shapes(torch_module, side)
    unlike = [record for record in records if record.unlike]  # no tap of torch's size fits there
    tapped = [r for r in records if r.path and r.compared and not r.unlike and (r.path, r.call) in shapes]
    at_outputs = _rows_of_taps(torch_module, jax_module, side, records, tapped, shapes)
    wrong = [i for i, row in enumerate(at_outputs) if not row.passed]
    right = tapped[max(wrong) + 1 :] if wrong else tapped
    last_right = right[0].name if right else None
    faults: list[Fault] = []
    if wrong:
        here = tapped[max(wrong)]
        behind = next((r for r in right if _is_leaf(torch_module, r.path)), None)
        where = f"right at the output of {behind.name if behind else 'the model'}, wrong at that of {here.name}"
        leaves = ([] if behind is None else [behind]) + [r for r in unlike if _is_leaf(torch_module, r.path)]
        path = next((r.path for r in leaves if _passes_wrong(torch_module, jax_module, side, r)), None)
        said = f"the gradient is {where}"
        if path is None:
            path = _common(here.path, behind.path if behind else "")
            while isinstance(torch_module.get_submodule(path), torch.nn.ModuleList | torch.nn.ModuleDict):
                path = path.rpartition(".")[0]  # which have no code
            said += ": the code between them"
        suspect, reason = _relation(at_outputs[max(wrong)])
        if suspect is None:
            suspect, reason = stopped(side, rows, evaluation)
        faults.append(
            Fault(path, 0, "gradient", said, suspect, f"{said}; {reason}" if reason else "", at_outputs[max(wrong)])
        )
    sure = {record.path for record in right}
    failed = {row.name.rpartition(".")[0] for row in rows if row.kind == "gradient" and not row.passed}
    sure |= {r.path for r in unlike if r.path in failed and _passes_wrong(torch_module, jax_module, side, r)}
    tied = tied_otherwise(torch_module, aliases(torch_module, jax_module, aligned_paths(torch_module, jax_module)))
    for row in rows:
        owner, _, name = row.name.rpartition(".")
        own = row.kind == "gradient" and not row.passed and name and row.name in evaluation.parameter_gradients
        if own and (owner in sure or (not owner and not wrong)):
            theirs = side.single.parameter_gradients[row.name]
            found_relation = relation({name: evaluation.parameter_gradients[row.name]}, {name: theirs})
            suspect, reason = found_relation or (None, "")
            if row.name in tied:
                suspect, reason = "tied weights", tied[row.name]
            elif _only_padding(torch_module.get_submodule(owner), evaluation.parameter_gradients[row.name], theirs):
                suspect = "padding index"
                reason = f"torch gives row padding_idx of {name} no gradient, the port does"
            elif suspect == "missing":
                suspect, reason = "stopped gradient", f"the gradient of {name} is zero: it is stopped"
            elif reason:
                reason = f"the gradient of {reason}"
            else:
                suspect, reason = stopped(side, rows, evaluation, only=row.name)
            what = f"the gradient of {name} is wrong, that at the layer's output right: {row.reason}"
            faults.append(Fault(owner, 0, "gradient", what, suspect, reason, row))
    row = next(row for row in rows if row.kind == "gradient" and not row.passed)
    if not faults:  # an input's alone, or one of a layer that is not called
        what = f"the gradient of {row.name} is wrong: {row.reason}"
        faults.append(Fault("", 0, "gradient", what, *stopped(side, rows, evaluation), row))
    return faults, last_right


def _only_padding(layer: torch.nn.Module, ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the gradient of an embedding is wrong in the row of its padding alone."""
    row = getattr(layer, "padding_idx", None)
    if not isinstance(row, int) or ours.shape != theirs.shape or np.any(theirs[row]) or not np.any(ours[row]):
        return False
    return distance(np.delete(ours, row, 0), np.delete(theirs, row, 0)) < NEARLY


NEARLY = 1e-3
"""Gradients this near each other are the same but for rounding."""


def _rows_of_taps(
    torch_module: torch.nn.Module,
    jax_module: Any,
    side: TorchSide,
    records: list[LayerRecord],
    tapped: list[LayerRecord],
    shapes: dict[tuple[str, int], tuple[tuple[int, ...], torch.dtype]],
) -> list[Comparison]:
    """The comparison of the gradient at the output of each call in ``tapped``, of ``records``."""
    places = {(record.path, record.call): i for i, record in enumerate(tapped)}
    order = [(record.path, record.call) for record in records]
    taps = [torch.zeros(shapes[place][0], dtype=shapes[place][1], requires_grad=True) for place in places]
    args, kwargs = torch_tree.tree_map(
        lambda x: x.detach().requires_grad_(False) if isinstance(x, torch.Tensor) else x, side.call
    )
    whole = TorchSide(Tapped(torch_module, places), ((taps, *args), kwargs), seed=side.seed)
    axes = {(record.path, record.call): record.axes for record in tapped}
    pairs = aligned_paths(torch_module, jax_module) | {"": ""}
    stacked = stacked_paths(torch_module, dict(jax_layers(jax_module)))
    port = tagged(jax_module, pairs, stacked)
    kinds = {(path,) for path in pairs.values()} | {*stacked.values()}
    graph = nnx.split(port) if isinstance(port, nnx.Module) else None

    def forward(taps: list[Any], *args: Any, **kwargs: Any) -> Any:
        module = nnx.merge(*graph, copy=True) if graph is not None else port
        coming = {paths: iter([at for at in order if at[0] in paths]) for paths in kinds}
        running: list[Any] = []

        def tap(original: Any, layer: Any, paths: tuple[str, ...], args: Any, kwargs: Any) -> Any:
            if any(layer is x for x in running):
                return original(layer, *args, **kwargs)
            running.append(layer)
            try:
                output = original(layer, *args, **kwargs)
            finally:
                running.pop()
            at = next(coming[paths], None)
            return output if at is None or at not in places else _added(output, taps[places[at]], axes[at])

        # Within a scan there is one call for all its steps, unless they are run one by one.
        with intercepted(jax_layers(module), tap), jax.disable_jit() if stacked else nullcontext():
            return module(*args, **kwargs)

    with kept(jax_module):
        rows = judged(whole, evaluate_jax(forward, whole))
    by_name = {row.name: row for row in rows if row.kind == "gradient"}
    return [by_name[f"input 0[{i}]"] for i in range(len(taps))]


def _added(output: Any, tap: Any, axes: tuple[int, ...]) -> Any:
    leaves, spec = jax.tree.flatten(output)
    options = layouts(tap.shape, leaves[0].shape)
    layout = next((o for o in options if o.axes == axes), options[0] if options else None)
    if layout is not None:
        leaves[0] = leaves[0] + layout.from_torch(tap).astype(leaves[0].dtype)
    return jax.tree.unflatten(spec, leaves)


def _output_shapes(
    module: torch.nn.Module, side: TorchSide
) -> dict[tuple[str, int], tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of the first tensor every call of a layer puts out, where it has gradients."""
    shapes: dict[tuple[str, int], tuple[tuple[int, ...], torch.dtype]] = {}
    calls: dict[str, int] = {}
    handles = []

    def hook(path: str) -> Any:
        def note(_: torch.nn.Module, __: Any, output: Any) -> None:
            calls[path] = calls.get(path, -1) + 1
            first = next((x for x in torch_tree.tree_leaves(output) if isinstance(x, torch.Tensor)), None)
            if first is not None and first.is_floating_point():
                shapes[path, calls[path]] = tuple(first.shape), first.dtype

        return note

    for path, layer in module.named_modules():
        if path:
            handles.append(layer.register_forward_hook(hook(path)))
    try:
        side.again(module)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _passes_wrong(torch_module: torch.nn.Module, jax_module: Any, side: TorchSide, record: LayerRecord) -> bool:
    """Whether a layer alone gives its input a wrong gradient."""
    noted: list[Call] = []
    layer = torch_module.get_submodule(record.path)
    handle = layer.register_forward_pre_hook(
        lambda _, args, kwargs: noted.append(torch_tree.tree_map(own, (args, kwargs))), with_kwargs=True
    )
    try:
        side.again(torch_module)
    finally:
        handle.remove()
    twins: dict[str, tuple[str, int | None]] = {}
    for ours, theirs in aligned_paths(torch_module, jax_module).items():
        twins[theirs] = ours, None
    for ours, there in stacked_paths(torch_module, dict(jax_layers(jax_module))).items():
        twins |= {theirs: (ours, i) for i, theirs in enumerate(there)}
    path, entry = twins[record.path]
    twin = submodule(jax_module, path)
    try:
        if entry is not None:
            graph, state = nnx.split(twin)
            twin = nnx.merge(graph, jax.tree.map(lambda x: x[entry], state))
        alone = TorchSide(layer, noted[record.call])
        return any(row.kind == "gradient" and not row.passed for row in judged(alone, evaluate_jax(twin, alone)))
    except Exception:
        return False


def _relation(row: Comparison) -> tuple[str | None, str]:
    if np.isclose(row.jax_error, 1.0, atol=1e-6):
        return "stopped gradient", "the gradient is zero from there on: it is stopped (stop_gradient or detach)"
    return None, ""


def _is_leaf(module: torch.nn.Module, path: str) -> bool:
    return not list(module.get_submodule(path).children())


def _common(a: str, b: str) -> str:
    """The path of the innermost layer that holds both."""
    common = []
    for x, y in zip(a.split(".")[:-1], b.split(".")[:-1], strict=False):
        if x != y:
            break
        common.append(x)
    return ".".join(common)
