"""Every layer of a port on torch's inputs, in one pass.

The port runs once, eagerly, beside torch. Whenever it calls a layer that torch has too, the layer is given what torch's
was given, its output is judged, and what goes on from it is torch's output. So one wrong layer accuses none behind it,
and what a model's own code does between its layers is checked in the same pass: by what arrives at the next one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from torch.utils import _pytree as torch_tree

from parity.arrays import to_jax
from parity.checking.alignment import distance
from parity.checking.evaluation import Call, Evaluation, TorchSide
from parity.checking.exchange import Arrival, aligned_outputs, buffers_of, fed, named_arrays
from parity.checking.fault import Fault, LayerRecord
from parity.checking.interception import intercepted, traced
from parity.checking.judgement import Verdict, near_enough, verdict_on
from parity.checking.leaves import flattened
from parity.checking.pairing import aliases
from parity.checking.perturbation import copied
from parity.checking.scatter import Scatter
from parity.checking.stream import Node, TorchStream
from parity.checking.suspicion import Suspicion
from parity.checking.tree import aligned_paths, jax_layers, tagged
from parity.comparison import FACTOR
from parity.replay import ReplayError, drawing, replayed

Explain = Callable[[Suspicion], tuple[str | None, str]]


@dataclass
class Frame:
    """A call of the port in progress."""

    node: Node
    layer: Any
    children: int = 0
    faults: int = 0
    axes: tuple[int, ...] = ()
    arrivals: list[Arrival] = field(default_factory=list)


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
        subject = copied(self.torch_module)
        stream = TorchStream(subject, self.side.call, self.side.draws, set(self.pairs.values()))
        self.stream = stream
        with stream, intercepted(self.module, self._seen), drawing(self._draw):
            args, kwargs = torch_tree.tree_map(to_jax, self.side.call)
            assert stream.root is not None
            self._call(type(self.module).__call__, self.module, stream.root, args, kwargs)
        seen = set(self.pairs.values()) if self.traced else self.called
        self.found.only_torch = [path for path in stream.calls if path not in seen]
        self.found.only_jax = [path for path, _ in jax_layers(self.module) if path not in self.pairs]
        return self.found

    def _seen(self, original: Callable[..., Any], layer: Any, path: str, args: Any, kwargs: Any) -> Any:
        """A call of a layer that has a twin."""
        frame = self.frames[-1] if self.frames else None
        if not self.forcing or frame is None or frame.layer is layer:
            return original(layer, *args, **kwargs)
        if traced((args, kwargs)):
            self.traced = True
            return original(layer, *args, **kwargs)
        node = self.stream.find(frame.node, path)
        if node is None:
            return original(layer, *args, **kwargs)
        frame.children += 1
        before = len(self.found.faults)
        args, kwargs, axes, arrivals = fed(node, self.torch_module.get_submodule(path), layer, args, kwargs)
        frame.arrivals += arrivals
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
        if raised is not None and node.raised:
            self.stream.drop(node)
            raise raised  # as torch's did, for the model's code to catch
        undrawn = raised is None and self.stream.take_draw(node) is not None
        theirs = named_arrays(node.output)
        names, leaves, rebuilt = flattened(output)
        aligned = aligned_outputs(leaves, theirs, frame.axes, names)
        ours, errors, layout = aligned.ours, aligned.errors, aligned.layout
        verdict = Verdict()

        def run_on(args: Any, kwargs: Any) -> dict[str, np.ndarray]:
            with self._unforced(), replayed(self.side.draws[node.first_draw : node.last_draw]):
                again = original(layer, *args, **kwargs)
            return aligned_outputs(flattened(again)[1], theirs, frame.axes, names).ours

        rerun = partial(run_on, args, kwargs)

        def scatter() -> Scatter:
            def again(call: Call) -> Evaluation:
                return Evaluation(run_on(*fed(replace(node, arguments=call), torch_layer, layer, args, kwargs)[:2]))

            assert alone is not None
            return Scatter(alone, again, aliases(torch_layer, layer, aligned_paths(torch_layer, layer)))

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
            buffers = buffers_of(torch_layer, layer)
            compared = {name: (ours[name], x) for name, x in theirs.items() if name in ours}
            kept = {name: (buffers[name], x) for name, x in node.buffers.items() if name in buffers}
            close = all(near_enough(a, b, errors[name]) for name, (a, b) in compared.items())
            close &= all(near_enough(a, b) for a, b in kept.values())
            if not close or frame.arrivals:
                alone = self._alone(torch_layer, node, theirs)
                if frame.children:
                    verdict = self._judged_code(frame, alone, compared, rerun, scatter)
                    kind_of_fault = "code"
                else:
                    verdict = verdict_on(alone, {n: a for n, (a, _) in compared.items()}, {}, self.factor, scatter)
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
                            buffers_of(torch_layer, layer),
                            theirs,
                            node.buffers,
                            kind_of_fault,
                            detail,
                            [
                                p
                                for p, _ in torch_layer.named_modules()
                                if p and f"{path}.{p}".lstrip(".") in self.called
                            ],
                            rerun,
                        )
                    )
            self.found.faults.append(Fault(path, node.call, kind_of_fault, detail, suspect, reason, verdict.row))
        self.stream.drop(node)
        self.progress(path)
        if raised is not None:
            return torch_tree.tree_map(to_jax, node.output)
        return rebuilt(aligned.forced(leaves, theirs))

    def _judged_code(
        self,
        frame: Frame,
        alone: TorchSide | None,
        compared: dict[str, tuple[np.ndarray, np.ndarray]],
        rerun: Callable[[], dict[str, np.ndarray]],
        scatter: Callable[[], Scatter],
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
        return verdict_on(alone, rerun(), {}, self.factor, scatter)

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


def _line(error: Exception) -> str:
    return (str(error).strip().split("\n") or [""])[0][:200]
