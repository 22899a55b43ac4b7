"""Every layer of a port on torch's inputs, in one pass.

The port runs once, eagerly, beside torch. Whenever it calls a layer that torch has too, the layer is given what torch's
was given, its output is judged, and what goes on from it is torch's output. So one wrong layer accuses none behind it,
and what a model's own code does between its layers is checked in the same pass: by what arrives at the next one.

A port may give a layer more than torch does: all rows where torch picks some. There the layer is run on torch's rows
by itself, and the port goes on with what it has. Where more than the number of rows differs, its axes may be others
than torch's, and what is wrong there counts only if the layer around is wrong too. A result of another size than
torch's, from the same input, is judged by what is made of it: the layer around is right, or both are wrong.
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
from parity.checking.evaluation import TorchSide, same_numbers
from parity.checking.exchange import Given, Usual, aligned_outputs, fed
from parity.checking.fault import Fault, LayerRecord
from parity.checking.interception import intercepted, recomputing_nothing, traced, tracing
from parity.checking.keeping import kept
from parity.checking.layer_call import LayerCall, Open, Outcome, judged_call, suspicion_of
from parity.checking.leaves import flattened
from parity.checking.perturbation import copied
from parity.checking.stacking import stacked_paths
from parity.checking.stream import Node, TorchStream
from parity.checking.suspicion import Suspicion
from parity.checking.tree import aligned_paths, copy_of, jax_layers, tagged
from parity.comparison import FACTOR
from parity.replay import ReplayError, drawing, replayed

Explain = Callable[[Suspicion], tuple[str | None, str]]


@dataclass
class Found:
    """What the pass over the layers gives."""

    records: list[LayerRecord] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    only_torch: list[str] = field(default_factory=list)
    only_jax: list[str] = field(default_factory=list)
    traced: list[str] = field(default_factory=list)
    """Those within a function that JAX traces whatever is done: they see no numbers."""


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
        with jax.disable_jit(), recomputing_nothing():
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
        self.stacked = stacked_paths(torch_module, dict(jax_layers(jax_module)))
        self.paths = {*self.pairs.values(), *(path for paths in self.stacked.values() for path in paths)}
        self.module = tagged(jax_module, self.pairs, self.stacked)
        self.calls: list[LayerCall] = []
        self.found = Found()
        self.called: set[str] = set()
        self.apart: set[str] = set()  # called, but with what torch's layers are not comparable with
        self.usual: Usual = {}
        self.traced: set[str] = set()
        self.outside = tracing()
        self.forcing = True

    def checked(self) -> Found:
        """Run, judge, and give what was found."""
        with same_numbers(self.side), kept(self.module):
            return self._checked()

    def _checked(self) -> Found:
        side = self.side
        stream = TorchStream(
            copied(self.torch_module),
            side.call,
            side.draws,
            self.paths,
            spare=side.spare,
            differentiates=side.differentiates,
            plays=side.plays,
        )
        self.stream = stream
        with stream, intercepted(jax_layers(self.module), self._seen), drawing(self._draw):
            args, kwargs = torch_tree.tree_map(to_jax, self.side.call)
            assert stream.root is not None
            self._forced(self._begun(type(self.module).__call__, self.module, stream.root, (args, kwargs)))
        self.found.only_torch = [path for path in stream.calls if path not in self.called | self.traced]
        self.found.traced = [path for path in stream.calls if path in self.traced - self.called]
        self.found.only_jax = [path for path, _ in jax_layers(self.module) if path not in self.pairs | self.stacked]
        return self.found

    def _seen(self, original: Callable[..., Any], layer: Any, paths: tuple[str, ...], args: Any, kwargs: Any) -> Any:
        """A call of a layer that has a twin."""
        outer = self.calls[-1] if self.calls else None
        if not self.forcing or outer is None or outer.layer is layer:
            return original(layer, *args, **kwargs)
        if traced((args, kwargs), self.outside):
            self.traced |= {*paths}
            return original(layer, *args, **kwargs)
        node = self.stream.find(outer.node, paths)
        if node is None:
            outer.more |= {*paths}
            return original(layer, *args, **kwargs)
        given = fed(node, self.torch_module.get_submodule(node.path), layer, args, kwargs, self.usual)
        if given.unlike and self._raised(node):
            self.stream.drop(node)  # torch's model has caught that; the port need not try
            return self._seen(original, layer, paths, args, kwargs)
        outer.children += 1
        before = len(self.found.faults)
        outer.arrivals += given.arrivals
        call = self._begun(original, layer, node, given.arguments, given.axes)
        output = self._apart(call, (args, kwargs), given) if given.unlike else self._forced(call)
        outer.faults += len(self.found.faults) - before
        return output

    def _raised(self, node: Node) -> bool:
        """Whether torch's call comes to an exception, which its model catches."""
        self.stream.finish(node)
        return node.raised

    def _draw(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        drawn = self.stream.take_draw(self.calls[-1].node)
        if drawn is None:
            raise ReplayError("draws at random where torch does not")
        if drawn.numel() != np.prod(shape):
            raise ReplayError(f"draws a random tensor of shape {shape}, torch one of shape {tuple(drawn.shape)}")
        return to_jax(drawn).reshape(shape).astype(dtype)

    def _begun(
        self, original: Callable[..., Any], layer: Any, node: Node, given: tuple[Any, Any], axes: tuple[int, ...] = ()
    ) -> LayerCall:
        self.called.add(node.path)
        torch_layer = self.torch_module.get_submodule(node.path)
        return LayerCall(node, torch_layer, layer, original, given, self.side, self._unforced, axes)

    def _run(self, call: LayerCall, given: tuple[Any, Any]) -> Any:
        """The port's call, and torch's, from beginning to end."""
        self.calls.append(call)
        try:
            return call.original(call.layer, *given[0], **given[1])
        finally:
            self.stream.finish(call.node)
            self.calls.pop()

    def _forced(self, call: LayerCall) -> Any:
        """Run one layer on torch's inputs, judge it, and give torch's output."""
        node, raised, output = call.node, None, None
        record = call.record(len(self.found.records))
        try:
            output = self._run(call, call.given)
        except Exception as error:
            raised = error
        if raised is not None and node.raised:
            self.stream.drop(node)
            raise raised  # as torch's did, for the model's code to catch
        undrawn = raised is None and self.stream.take_draw(node) is not None
        names, leaves, rebuilt = flattened(output)
        aligned = aligned_outputs(leaves, call.theirs, call.axes, names)
        self.usual |= aligned.certain(call.theirs)
        self.found.records.append(record)
        self._judge(call, record, Outcome(aligned, raised, undrawn))
        self.stream.drop(node)
        self.progress(node.path)
        if raised is not None:
            return torch_tree.tree_map(to_jax, node.output)
        return rebuilt(aligned.forced(leaves, call.theirs))

    def _apart(self, call: LayerCall, own: tuple[Any, Any], given: Given) -> Any:
        """Judge a layer on torch's inputs where the port's are of another size, and give what it makes of its own."""
        outer, unlike = self.calls[-1], given.unlike
        first, before = len(self.found.records), len(self.found.faults)
        self.stream.finish(call.node)
        try:
            self._repeated(call, call.given)
        except Exception:  # it may be made for sizes of its own, which the layers in it need not be
            outer.resized = unlike
            self.apart.add(call.node.path)
            output = self._run(call, own)
            self.found.records.append(replace(call.record(len(self.found.records), unlike), compared=False))
            self.stream.drop(call.node)
            return output
        output = self._repeated(call, own)
        forced = self._forced(call)
        if [x.shape for x in jax.tree.leaves(output)] == [x.shape for x in jax.tree.leaves(forced)]:
            return forced  # the size came to nothing, as that of a mask with one row for all
        outer.resized = unlike
        for record in self.found.records[first:]:
            record.unlike = record.unlike or unlike
        if not given.rows:
            outer.open += self._withheld(first, before)
        return output

    def _withheld(self, first: int, before: int) -> list[Open]:
        """The faults from ``before`` on, until the call around is judged: the input may lie otherwise than torch's."""
        records = {(record.path, record.call): record for record in self.found.records[first:]}
        withheld = [(fault, records[fault.path, fault.call]) for fault in self.found.faults[before:]]
        del self.found.faults[before:]

        def accused(fault: Fault, record: LayerRecord) -> Fault:
            record.passed, record.compared = False, True
            return fault

        for _, record in withheld:
            record.passed, record.compared = True, False
        return [Open(each[0].path, before, partial(accused, *each)) for each in withheld]

    def _repeated(self, call: LayerCall, given: tuple[Any, Any]) -> Any:
        """What a copy of the layer makes of other arguments."""
        with self._unforced(), replayed(self.side.common(call.draws)):
            return call.original(copy_of(call.layer), *given[0], **given[1])

    def _judge(self, call: LayerCall, record: LayerRecord, outcome: Outcome) -> None:
        """Judge a call; one whose result is of another size waits for the call around it."""
        outer = self.calls[-1] if self.calls else None
        others = {each.path for each in call.open if each.path in call.more}  # not the same layers, then
        call.open = [each for each in call.open if each.path not in others]
        self.apart |= others
        if outcome.aligned.unlike and outer is not None:
            record.unlike, record.compared = outcome.aligned.unlike, False
            call.faults += len(call.open)
            accused = partial(self._accused, call, record, outcome)
            outer.open += [*call.open, Open(call.node.path, len(self.found.faults), accused)]
            return
        if call.open and not self._right_as_a_whole(call, record, outcome):
            for each in reversed(call.open):
                fault = each.accused()
                if fault is not None:
                    self.found.faults.insert(each.place, fault)
                    call.faults += 1
        fault = self._accused(call, record, outcome)
        if fault is not None:
            self.found.faults.append(fault)

    def _right_as_a_whole(self, call: LayerCall, record: LayerRecord, outcome: Outcome) -> bool:
        """Whether a call is right, whatever was found in it."""
        return judged_call(replace(call, faults=0), record, outcome, self.factor).verdict.passed

    def _accused(self, call: LayerCall, record: LayerRecord, outcome: Outcome) -> Fault | None:
        """The fault that a call is, explained; None where it is right."""
        judgement = judged_call(call, record, outcome, self.factor)
        if judgement.verdict.passed:
            return None
        path, kind = call.node.path, judgement.kind
        before = next((f for f in self.found.faults if f.path == path and f.kind == kind), None)
        if before is not None:
            suspect, reason = before.suspect, before.reason
        else:
            with self._unforced():
                suspect, reason = self.explain(
                    suspicion_of(call, outcome, judgement, self.called - self.apart, self.torch_module)
                )
        return Fault(path, call.node.call, kind, judgement.detail, suspect, reason, judgement.verdict.row)

    @contextmanager
    def _unforced(self) -> Iterator[None]:
        before, self.forcing = self.forcing, False
        try:
            yield
        finally:
            self.forcing = before
