"""Every layer of a port on torch's inputs, in one pass.

The port runs once, eagerly, beside torch. Whenever it calls a layer that torch has too, the layer is given what torch's
was given, its output is judged, and what goes on from it is torch's output. So one wrong layer accuses none behind it,
and what a model's own code does between its layers is checked in the same pass: by what arrives at the next one.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as torch_tree

from parity.arrays import to_jax, viewed
from parity.checking.alignment import Layout, distance, identical, layout_of, layouts, paired, placed
from parity.checking.evaluation import Evaluation, TorchSide
from parity.checking.fault import Fault, LayerRecord
from parity.checking.interception import intercepted
from parity.checking.judgement import Verdict, near_enough, verdict_on
from parity.checking.leaves import flattened, parameter_names, plain
from parity.checking.pairing import pairs
from parity.checking.stream import Node, TorchStream
from parity.checking.tree import aligned_paths, jax_layers, tagged
from parity.comparison import FACTOR
from parity.replay import ReplayError, drawing, replayed

Explain = Callable[["Suspicion"], tuple[str | None, str]]


@dataclass
class Suspicion:
    """A layer's call that is wrong, with all that is needed to find out why.

    Attributes:
        path: of the layer.
        torch_layer: as it was before the pass.
        jax_layer: its twin.
        arguments: torch's.
        draws: the random tensors torch drew in the call.
        jax_outputs: its outputs in torch's layout, where they have one, by the names of torch's.
        jax_buffers: its statistics behind the call.
        torch_outputs: torch's, by name.
        torch_buffers: its statistics behind the call.
        kind: what is wrong: ``output``, ``buffer``, ``draws``, ``raises`` or ``code`` (between its layers).
        detail: what is known already.
        twins: paths, within it, of the layers that both sides have.
        rerun_named: runs it again on torch's inputs and gives its outputs by name, as ``jax_outputs``.
    """

    path: str
    torch_layer: torch.nn.Module
    jax_layer: Any
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    draws: list[torch.Tensor]
    jax_outputs: dict[str, np.ndarray]
    jax_buffers: dict[str, np.ndarray]
    torch_outputs: dict[str, np.ndarray]
    torch_buffers: dict[str, np.ndarray]
    kind: str
    detail: str
    twins: list[str]
    rerun_named: Callable[[], dict[str, np.ndarray]]


@dataclass
class Frame:
    """A call of the port in progress."""

    node: Node
    layer: Any
    children: int = 0
    faults: int = 0
    axes: tuple[int, ...] = ()
    arrivals: list[tuple[str, float, str]] = field(default_factory=list)


@dataclass
class Found:
    """What the pass over the layers gives."""

    records: list[LayerRecord] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    only_torch: list[str] = field(default_factory=list)
    only_jax: list[str] = field(default_factory=list)


def checked_layers(
    torch_module: torch.nn.Module,
    jax_module: Any,
    side: TorchSide,
    explain: Explain,
    factor: float = FACTOR,
    progress: Callable[[str], None] = lambda path: None,
) -> Found:
    """Judge every layer that both sides have.

    Args:
        torch_module: the reference.
        jax_module: its port.
        side: the torch side of the whole, for its inputs and draws.
        explain: names the mistake of a layer at fault.
        factor: how many times the error that rounding explains passes.
        progress: told the path of each layer that has been judged.
    """
    run = ForcedRun(torch_module, jax_module, side, explain, factor, progress)
    found = run.checked()
    if run.traced:
        # Layers inside a function that the user compiles saw no numbers.
        run = ForcedRun(torch_module, jax_module, side, explain, factor, progress)
        with jax.disable_jit():
            found = run.checked()
    return found


class ForcedRun:
    """One pass of the port, each layer given what torch's was given."""

    def __init__(
        self,
        torch_module: torch.nn.Module,
        jax_module: Any,
        side: TorchSide,
        explain: Explain,
        factor: float,
        progress: Callable[[str], None],
    ) -> None:
        self.torch_module = torch_module
        self.side = side
        self.explain = explain
        self.factor = factor
        self.progress = progress
        self.pairs = aligned_paths(torch_module, jax_module)
        self.pairs[""] = ""
        self.module = tagged(jax_module, self.pairs)
        self.frames: list[Frame] = []
        self.found = Found()
        self.called: set[str] = set()
        self.traced = False
        self.forcing = True

    def checked(self) -> Found:
        """Run, judge, and give what was found."""
        subject = copy.deepcopy(self.torch_module)
        stream = TorchStream(subject, self.side.call, self.side.draws, set(self.pairs.values()))
        self.stream = stream
        with stream, intercepted(self.module, self._seen), drawing(self._draw):
            args, kwargs = torch_tree.tree_map(to_jax, self.side.call)
            assert stream.root is not None
            self._call(type(self.module).__call__, self.module, stream.root, args, kwargs)
        twins = set(self.pairs.values())
        self.found.only_torch = [path for path in stream.calls if path not in twins]
        self.found.only_jax = [path for path, _ in jax_layers(self.module) if path not in self.pairs]
        for path in twins:
            if path in stream.calls and path not in self.called and not self.traced:
                self.found.only_torch.append(path)
        return self.found

    def _seen(self, original: Callable[..., Any], layer: Any, path: str, args: Any, kwargs: Any) -> Any:
        """A call of a layer that has a twin."""
        frame = self.frames[-1] if self.frames else None
        if not self.forcing or frame is None or frame.layer is layer:
            return original(layer, *args, **kwargs)
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs))):
            self.traced = True
            return original(layer, *args, **kwargs)
        node = self.stream.find(frame.node, path)
        if node is None:
            return original(layer, *args, **kwargs)
        frame.children += 1
        before = len(self.found.faults)
        args, kwargs, axes = self._fed(frame, node, layer, args, kwargs)
        output = self._call(original, layer, node, args, kwargs, axes)
        frame.faults += len(self.found.faults) - before
        return output

    def _draw(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        frame = self.frames[-1]
        drawn = self.stream.take_draw(frame.node)
        if drawn is None:
            raise ReplayError("draws at random where torch does not")
        if drawn.numel() != np.prod(shape):
            raise ReplayError(f"draws a random tensor of shape {shape}, torch one of shape {tuple(drawn.shape)}")
        return to_jax(drawn).reshape(shape).astype(dtype)

    def _fed(self, frame: Frame, node: Node, layer: Any, args: Any, kwargs: Any) -> tuple[Any, Any, tuple[int, ...]]:
        """The port's arguments with torch's numbers, and how their axes lie; what arrived otherwise is held against
        the caller."""
        axes: tuple[int, ...] = ()
        names, leaves, rebuilt = flattened((args, kwargs))
        names = parameter_names(layer.__call__, names)
        their_names, their_leaves, _ = flattened(node.arguments)
        their_names = parameter_names(self.torch_module.get_submodule(node.path).forward, their_names)
        given = [(name, viewed(x)) for name, x in zip(their_names, their_leaves, strict=True) if _is_tensor(x)]
        theirs = [y for _, y in given]
        places = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array | np.ndarray) and not _is_key(x)]
        ours = [np.asarray(leaves[i]) for i in places]
        both = [names[i] for i in places], [name for name, _ in given]
        for i, j in paired(ours, theirs, lambda a, b: layout_of(a, b) is not None, both):
            x, y = ours[i], theirs[j]
            if x.dtype == bool or y.dtype == bool:
                continue  # which way round a mask is meant is the port's own business
            if identical(x, y):
                axes = axes or tuple(range(x.ndim))
                continue
            layout, off = placed(x, y)
            layout = layout or next(iter(layouts(y.shape, x.shape)), None)
            if layout is None:
                shapes = f"with shape {x.shape}, torch's has {y.shape}"
                frame.arrivals.append((node.path, np.inf, f"what arrives at {_named(node)} comes {shapes}"))
                continue
            axes = axes or layout.axes
            arrived = layout.to_torch(x, y.shape)
            if not _same_kind(x.dtype, y.dtype):
                said = f"what arrives at {_named(node)} is {x.dtype}, torch's is {y.dtype}"
                frame.arrivals.append((node.path, np.inf, said))
            elif not near_enough(arrived, y, off):
                off = min(off, distance(arrived, y))
                frame.arrivals.append((node.path, off, f"what arrives at {_named(node)} is off by {off:.1e}"))
            leaves[places[i]] = jax.device_put(layout.from_torch(y))
        return *rebuilt(leaves), axes

    def _call(
        self, original: Callable[..., Any], layer: Any, node: Node, args: Any, kwargs: Any, axes: tuple[int, ...] = ()
    ) -> Any:
        """Run one layer on torch's inputs, judge it, and give torch's output."""
        path = node.path
        self.called.add(path)
        torch_layer = self.torch_module.get_submodule(path)
        record = LayerRecord(path, node.call, type(torch_layer).__name__, depth=len(self.found.records))
        frame = Frame(node, layer, axes=axes)
        self.frames.append(frame)
        raised: Exception | None = None
        output: Any = None
        try:
            output = original(layer, *args, **kwargs)
        except Exception as error:
            raised = error
        self.stream.finish(node)
        self.frames.pop()
        undrawn = raised is None and self.stream.take_draw(node) is not None
        theirs = _named_arrays(node.output)
        names, leaves, rebuilt = flattened(output)
        ours, forced, layout, errors = self._aligned(leaves, theirs, frame.axes, names)
        verdict = Verdict()

        def rerun() -> dict[str, np.ndarray]:
            draws = self.side.draws[node.first_draw : node.last_draw]
            with self._unforced(), replayed(draws):
                again = original(layer, *args, **kwargs)
            return self._aligned(flattened(again)[1], theirs, frame.axes, names)[0]

        alone: TorchSide | None = None
        kind_of_fault, detail = "output", ""
        if raised is not None:
            verdict.passed, kind_of_fault = False, "draws" if isinstance(raised, ReplayError) else "raises"
            detail = (
                str(raised) if isinstance(raised, ReplayError) else f"raises {type(raised).__name__}: {_line(raised)}"
            )
        elif undrawn:
            verdict.passed, kind_of_fault, detail = False, "draws", "torch draws at random, JAX does not"
        else:
            buffers = _buffers(torch_layer, layer)
            compared = {name: (ours[name], x) for name, x in theirs.items() if name in ours}
            kept = {name: (buffers[name], x) for name, x in node.buffers.items() if name in buffers}
            close = all(near_enough(a, b, errors[name]) for name, (a, b) in compared.items())
            close &= all(near_enough(a, b) for a, b in kept.values())
            if not close or frame.arrivals:
                alone = self._alone(torch_layer, node, theirs)
                if frame.children:
                    verdict = self._judged_code(frame, alone, compared, rerun)
                    kind_of_fault = "code"
                else:
                    verdict = verdict_on(alone, {n: a for n, (a, _) in compared.items()}, {}, self.factor)
                if verdict.passed and kept:
                    verdict = verdict_on(alone, {}, {n: a for n, (a, _) in kept.items()}, self.factor)
                    kind_of_fault = "buffer"
                detail = verdict.reason
                if kind_of_fault == "code" and frame.arrivals and not verdict.passed:
                    detail = max(frame.arrivals, key=lambda arrival: arrival[1] > 1e-4)[2]
            record.layout = "" if layout is None or layout.is_torchs else str(layout)
            record.axes = () if layout is None else layout.axes
            record.error = max(errors.values(), default=0.0)
            if frame.arrivals and not verdict.passed:
                record.error = max(record.error, *(min(off, 1.0) for _, off, _ in frame.arrivals))
            record.allowed = verdict.allowed
        record.passed = verdict.passed
        self.found.records.append(record)
        if not verdict.passed:
            suspect, reason = None, ""
            before = next((f for f in self.found.faults if f.path == path and f.kind == kind_of_fault), None)
            if before is not None:
                suspect, reason = before.suspect, before.reason
            else:
                with self._unforced():
                    suspect, reason = self.explain(
                        Suspicion(
                            path,
                            torch_layer,
                            layer,
                            node.arguments,
                            self.side.draws[node.first_draw : node.last_draw],
                            ours,
                            _buffers(torch_layer, layer),
                            theirs,
                            node.buffers,
                            kind_of_fault,
                            detail,
                            [p for p in _below(torch_layer) if f"{path}.{p}".lstrip(".") in self.called],
                            rerun,
                        )
                    )
            self.found.faults.append(Fault(path, node.call, kind_of_fault, detail, suspect, reason, verdict.row))
        self.stream.drop(node)
        self.progress(path)
        if raised is not None:
            return torch_tree.tree_map(to_jax, node.output)
        return rebuilt(forced)

    def _aligned(
        self, leaves: list[Any], theirs: dict[str, np.ndarray], axes: tuple[int, ...], paths: list[str]
    ) -> tuple[dict[str, np.ndarray], list[Any], Layout | None, dict[str, float]]:
        """The port's outputs in torch's layout by name, torch's in the port's in their places, the first's layout, and
        by name how far they are off."""
        first: Layout | None = None
        names, forced = list(theirs), list(leaves)
        both = paths, [plain(name.removeprefix("output")) for name in names]
        ours: dict[str, np.ndarray] = {}
        errors: dict[str, float] = {}
        arrays = [np.asarray(x) for x in leaves]
        for i, j in paired(arrays, list(theirs.values()), lambda a, b: layout_of(a, b) is not None, both):
            x, y = arrays[i], theirs[names[j]]
            layout, off = placed(x, y)
            if layout is None:
                # What is wrong does not show its layout; it is likely that of the input.
                layout = min(layouts(y.shape, x.shape), key=lambda layout: layout.axes != axes, default=None)
            if layout is None:
                ours[names[j]], errors[names[j]] = x, off
                continue
            first = first or layout
            ours[names[j]] = layout.to_torch(x, y.shape)
            errors[names[j]] = off if np.isfinite(off) else distance(ours[names[j]], y)
            forced[i] = jax.device_put(layout.from_torch(y))
        return ours, forced, first, errors

    def _judged_code(
        self,
        frame: Frame,
        alone: TorchSide | None,
        compared: dict[str, tuple[np.ndarray, np.ndarray]],
        rerun: Callable[[], dict[str, np.ndarray]],
    ) -> Verdict:
        """The verdict on what a layer's own code does between the layers in it."""
        if frame.faults:
            # The whole is wrong through a part of it: only what rounding can never explain counts against the rest.
            off = [arrival for arrival in frame.arrivals if arrival[1] > GROSS]
            off += [
                (frame.node.path, d, f"its output is off by {d:.1e}")
                for d in (distance(a, b) for a, b in compared.values())
                if d > GROSS
            ]
            return Verdict(not off, off[0][2] if off else "")
        return verdict_on(alone, rerun(), {}, self.factor)

    def _alone(self, torch_layer: torch.nn.Module, node: Node, outputs: dict[str, np.ndarray]) -> TorchSide:
        """The torch layer alone, on the inputs and draws it had in the whole."""
        known = Evaluation(outputs, buffers=node.buffers), self.side.draws[node.first_draw : node.last_draw]
        return TorchSide(torch_layer, node.arguments, gradients=False, known=known)

    @contextmanager
    def _unforced(self) -> Iterator[None]:
        before, self.forcing = self.forcing, False
        try:
            yield
        finally:
            self.forcing = before


GROSS = 1e-3
"""A relative difference far above rounding in float32."""


def _named_arrays(output: Any) -> dict[str, np.ndarray]:
    leaves, _ = torch_tree.tree_flatten_with_path(output)
    return {f"output{torch_tree.keystr(path)}": viewed(x) for path, x in leaves if isinstance(x, torch.Tensor)}


def _buffers(torch_layer: torch.nn.Module, layer: Any) -> dict[str, np.ndarray]:
    """The port's statistics under torch's names."""
    kept = {name for name, _ in torch_layer.named_buffers(recurse=False)}
    found = pairs(torch_layer, layer)[0] if kept else []
    return {pair.name: pair.ours for pair in found if pair.name in kept and pair.ours.shape == pair.theirs.shape}


def _below(layer: torch.nn.Module) -> list[str]:
    """The paths of the layers in ``layer``, relative to it."""
    return [name for name, _ in layer.named_modules() if name]


def _same_kind(a: np.dtype, b: np.dtype) -> bool:
    return a == b or (a.kind in "iu" and b.kind in "iu")


def _is_tensor(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _named(node: Node) -> str:
    return node.path + (f" (call {node.call + 1})" if node.call else "")


def _line(error: Exception) -> str:
    return (str(error).strip().split("\n") or [""])[0][:200]
