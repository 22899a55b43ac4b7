"""One call of a port's layer beside torch's: what it gave, how to repeat it, and the verdict."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from parity.checking.alignment import distance
from parity.checking.evaluation import Call, Evaluation, TorchSide
from parity.checking.exchange import Aligned, Arrival, aligned_outputs, buffers_of, fed, named_arrays
from parity.checking.fault import Fault, LayerRecord
from parity.checking.judgement import Verdict, near_enough, verdict_on
from parity.checking.leaves import flattened
from parity.checking.pairing import aliases
from parity.checking.scatter import Scatter
from parity.checking.stream import Node
from parity.checking.suspicion import Suspicion
from parity.checking.tree import aligned_paths
from parity.replay import ReplayError, replayed

GROSS = 1e-3
"""A relative difference far above rounding in float32."""


@dataclass
class Open:
    """A call whose input or result is of another size than torch's, until the call around it is judged.

    Attributes:
        path: of the layer.
        place: how many faults had been found before it.
        accused: the fault that it is, if what is around it is wrong too.
    """

    path: str
    place: int
    accused: Callable[[], Fault | None]


@dataclass
class LayerCall:
    """A call of a layer of the port, given what torch's was.

    Attributes:
        node: torch's.
        torch_layer: as it was before the pass.
        layer: its twin.
        original: the ``__call__`` of that.
        given: its arguments, torch's numbers, positional and by keyword.
        side: the torch side of the whole.
        unforced: within it layers are run as they are.
        axes: how its first argument lies.
        children: how many calls of layers with a twin it made.
        faults: how many faults were found in these.
        arrivals: what came to its layers otherwise than to torch's.
        resized: where one of them got, and gave, more or less than torch's: that in words.
        open: the calls in it that are not judged.
        more: the layers it calls more often than torch's: as a cell at each step where torch has a layer of all.
    """

    node: Node
    torch_layer: torch.nn.Module
    layer: Any
    original: Callable[..., Any]
    given: tuple[Any, Any]
    side: TorchSide
    unforced: Callable[[], AbstractContextManager[None]]
    axes: tuple[int, ...] = ()
    children: int = 0
    faults: int = 0
    arrivals: list[Arrival] = field(default_factory=list)
    resized: str = ""
    open: list[Open] = field(default_factory=list)
    more: set[str] = field(default_factory=set)

    @property
    def draws(self) -> list[torch.Tensor]:
        """What torch drew at random in it, once that has returned."""
        return self.side.draws[self.node.first_draw : self.node.last_draw]

    @cached_property
    def theirs(self) -> dict[str, np.ndarray]:
        """What torch's gave, once that has returned."""
        return named_arrays(self.node.output)

    @cached_property
    def alone(self) -> TorchSide:
        """The torch layer alone, on the inputs and draws it had in the whole."""
        known = Evaluation(self.theirs, buffers=self.node.buffers), self.draws
        return TorchSide(self.torch_layer, self.node.arguments, gradients=False, known=known)

    def record(self, depth: int, unlike: str = "") -> LayerRecord:
        """Of this call, with nothing said yet."""
        return LayerRecord(self.node.path, self.node.call, type(self.torch_layer).__name__, depth, unlike=unlike)

    def rerun(self, given: tuple[Any, Any] | None = None) -> dict[str, np.ndarray]:
        """The port's outputs by torch's names where the layers in it get what they are given."""
        args, kwargs = given or self.given
        with self.unforced(), replayed(self.side.common(self.draws)):
            again = self.original(self.layer, *args, **kwargs)
        names, leaves, _ = flattened(again)
        return aligned_outputs(leaves, self.theirs, self.axes, names).ours

    def scatter(self) -> Scatter:
        """How far rounding scatters what it gives."""

        def again(call: Call) -> Evaluation:
            moved = fed(replace(self.node, arguments=call), self.torch_layer, self.layer, *self.given)
            return Evaluation(self.rerun(moved.arguments))

        twins = aliases(self.torch_layer, self.layer, aligned_paths(self.torch_layer, self.layer))
        return Scatter(self.alone, again, twins)


@dataclass
class Outcome:
    """What a call of the port gave.

    Attributes:
        aligned: its outputs beside torch's.
        raised: in place of them.
        undrawn: whether torch drew at random where the port did not.
    """

    aligned: Aligned
    raised: Exception | None
    undrawn: bool


@dataclass
class Judgement:
    """The verdict on a call, and what of it is wrong."""

    verdict: Verdict
    kind: str = "output"
    detail: str = ""


def judged_call(call: LayerCall, record: LayerRecord, outcome: Outcome, factor: float) -> Judgement:
    """Judge what a call gave; the record is filled in."""
    judgement = _judgement(call, outcome, factor)
    verdict, aligned = judgement.verdict, outcome.aligned
    record.passed, record.compared = verdict.passed, verdict.compared
    if not verdict.compared:
        record.unlike = call.resized
    if outcome.raised is not None or outcome.undrawn:
        return judgement
    layout = aligned.layout
    record.layout = "" if layout is None or layout.is_torchs else str(layout)
    record.axes = () if layout is None else layout.axes
    record.error = max(aligned.errors.values(), default=0.0)
    if call.arrivals and not verdict.passed:
        record.error = max(record.error, *(min(off, 1.0) for _, off, _ in call.arrivals))
    record.allowed = verdict.allowed
    return judgement


def _judgement(call: LayerCall, outcome: Outcome, factor: float) -> Judgement:
    raised = outcome.raised
    if isinstance(raised, ReplayError):
        return Judgement(Verdict(False), "draws", str(raised))
    if raised is not None:
        return Judgement(Verdict(False), "raises", f"raises {type(raised).__name__}: {_line(raised)}")
    if outcome.undrawn:
        return Judgement(Verdict(False), "draws", "torch draws at random, JAX does not")
    ours, errors, theirs = outcome.aligned.ours, outcome.aligned.errors, call.theirs
    buffers = buffers_of(call.torch_layer, call.layer)
    kept = {name: buffers[name] for name in call.node.buffers if name in buffers}
    close = all(near_enough(ours[name], x, errors[name]) for name, x in theirs.items() if name in ours)
    close &= all(near_enough(x, call.node.buffers[name]) for name, x in kept.items())
    if close and not call.arrivals:
        return Judgement(Verdict())
    kind = "code" if call.children else "output"
    if call.children and not call.faults:
        try:
            ours = call.rerun()
        except Exception as error:  # which torch's numbers kept it from, as where an index is beyond a table
            said = f"raises {type(error).__name__} with what it computes itself: {_line(error)}"
            return Judgement(Verdict(False), kind, said)
    verdict = _on_code(call, ours, factor) if call.children else verdict_on(call.alone, ours, {}, factor, call.scatter)
    if verdict.passed and kept:
        kind, verdict = "buffer", verdict_on(call.alone, {}, kept, factor)
    detail = verdict.reason
    if kind == "code" and call.arrivals and not verdict.passed:
        detail = max(call.arrivals, key=lambda arrival: arrival[1] > 1e-4)[2]
    return Judgement(verdict, kind, detail)


def _on_code(call: LayerCall, ours: dict[str, np.ndarray], factor: float) -> Verdict:
    """The verdict on what a layer's own code does between the layers in it."""
    if not call.faults:
        return verdict_on(call.alone, ours, {}, factor, call.scatter)
    if call.resized:  # what went on from the wrong part is the port's own
        return Verdict(compared=False)
    # The whole is wrong through a part of it: only what rounding can never explain counts against the rest.
    off = [arrival for arrival in call.arrivals if arrival[1] > GROSS]
    off += [
        (call.node.path, d, f"its output is off by {d:.1e}")
        for d in (distance(x, call.theirs[name]) for name, x in ours.items())
        if d > GROSS
    ]
    return Verdict(not off, off[0][2] if off else "")


def suspicion_of(
    call: LayerCall, outcome: Outcome, judgement: Judgement, called: set[str], whole: torch.nn.Module
) -> Suspicion:
    """What the diagnosis of a wrong call in the torch model ``whole`` is given; ``called`` are the paths of layers that
    the port has called."""
    path = call.node.path
    inner = [p for p, _ in call.torch_layer.named_modules() if p and f"{path}.{p}".lstrip(".") in called]
    return Suspicion(
        path,
        call.torch_layer,
        call.layer,
        call.node.arguments,
        call.draws,
        outcome.aligned.ours,
        buffers_of(call.torch_layer, call.layer),
        call.theirs,
        call.node.buffers,
        judgement.kind,
        judgement.detail,
        inner,
        whole,
        call.rerun,
    )


def _line(error: Exception) -> str:
    return (str(error).strip().split("\n") or [""])[0][:200]
