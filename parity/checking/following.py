"""Torch follows the port through its layers, in one pass that clears the right ones.

The port runs once, as its user runs it, and every layer's call is noted. Torch follows: what arrives at a layer is
compared with what arrived at the port's and replaced by it, what the layer gives likewise. So each layer is run on both
sides from the same numbers, and so is a model's own code between them. Where all are right, nothing else need be run;
where anything is not, or torch cannot follow, this says nothing, and the pass over the layers finds out what.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from torch.utils import _pytree as torch_tree

from parity.arrays import to_tensor, viewed
from parity.checking.alignment import Layout, identical
from parity.checking.evaluation import Evaluation, TorchSide, same_numbers
from parity.checking.exchange import aligned_outputs, buffers_of, matched, named_arrays
from parity.checking.fault import LayerRecord
from parity.checking.interception import intercepted, traced, tracing
from parity.checking.judgement import near_enough, verdict_on
from parity.checking.layer_call import GROSS
from parity.checking.layers import Found
from parity.checking.leaves import flattened
from parity.checking.perturbation import copied, own
from parity.checking.stacking import stacked_paths
from parity.checking.stream import own_buffers
from parity.checking.tree import jax_layers, tagging
from parity.comparison import FACTOR
from parity.replay import Draws, memory

AHEAD = 128 << 20
"""Bytes that the port may be ahead of torch."""


class _Lost(BaseException):
    """Torch cannot follow, or what it finds is not certainly right."""


@dataclass(frozen=True)
class _Entered:
    path: str
    layer: Any
    arguments: tuple[Any, Any]


@dataclass(frozen=True)
class _Left:
    path: str
    output: Any
    buffers: dict[str, np.ndarray]


@dataclass
class _Frame:
    """A call of a torch layer in progress."""

    path: str
    call: int
    arguments: tuple[Any, Any]
    axes: tuple[int, ...]
    first_draw: int
    depth: int
    children: int = 0
    alike: bool = True


class Following:
    """One pass of the port, followed by torch.

    Args:
        torch_module: the reference.
        jax_module: its port.
        pairs: from the path of a layer of the port to that of its twin.
        side: the torch side of the whole, for its inputs and draws.
        factor: how many times the error that rounding explains passes.
    """

    def __init__(
        self,
        torch_module: torch.nn.Module,
        jax_module: Any,
        pairs: dict[str, str],
        side: TorchSide,
        factor: float = FACTOR,
    ) -> None:
        self.torch_module = torch_module
        self.pairs = pairs | {"": ""}
        self.paths = {*self.pairs.values()}
        self.side = side
        self.factor = factor
        self._layers = list(jax_layers(jax_module))
        self._outside = tracing()
        # Their layers run within a scan; and the two sides would draw numbers in turn.
        self.lost = bool(stacked_paths(torch_module, dict(self._layers))) or side.plays
        self.found = Found()
        self._modules = dict(torch_module.named_modules())
        self._events: deque[_Entered | _Left] = deque()
        self._ahead = 0
        self._ended = False
        self._done = False
        self._within: list[Any] = []
        self._calls: dict[str, int] = {}
        self._frames: list[_Frame] = []
        self._draws = Draws(side.draws)
        self._known: deque[tuple[Any, torch.Tensor, int, Layout]] = deque(maxlen=16)
        self._thread: threading.Thread | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it the port is to run, once."""
        with tagging(self._layers, self.pairs), intercepted(self._layers, self._called):
            try:
                yield
            except BaseException:
                self.lost = True
                raise
            finally:
                self._ended = True
                if self._thread is not None:
                    self._go.release()
                    self._thread.join()
        if self._thread is None and not self.lost:
            self._follow()
        self.lost = self.lost or bool(self._events)
        self._events.clear()

    def cleared(self) -> Found | None:
        """The layers, where every one of them is right, and the code between them."""
        return None if self.lost else self.found

    def _called(self, original: Callable[..., Any], layer: Any, paths: tuple[str, ...], args: Any, kwargs: Any) -> Any:
        """A call of the port's layer: noted before and behind."""
        (path,) = paths
        if self.lost or (self._within and self._within[-1] is layer):
            return original(layer, *args, **kwargs)
        if traced((args, kwargs), self._outside):
            self.lost = True  # in a function that the user compiles there are no numbers
            return original(layer, *args, **kwargs)
        self._events.append(_Entered(path, layer, (args, kwargs)))
        self._within.append(layer)
        try:
            output = original(layer, *args, **kwargs)
        finally:
            self._within.pop()
        self._events.append(_Left(path, output, buffers_of(self._modules[path], layer)))
        self._ahead += sum(x.nbytes for x in jax.tree.leaves(output) if isinstance(x, jax.Array))
        if self._ahead > AHEAD and not self._done:
            self._let_follow()
        return output

    def _let_follow(self) -> None:
        """Let torch come as far as the port is."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()
        else:
            self._go.release()
        self._stopped.acquire()

    def _next(self) -> _Entered | _Left:
        while not self._events and not self._ended:
            self._ahead = 0
            self._stopped.release()
            self._go.acquire()
        if not self._events or self.lost:
            raise _Lost
        return self._events.popleft()

    def _follow(self) -> None:
        try:
            subject = copied(self.torch_module, shared=not self.side.writes)
            self._parameters = {memory(x) for x in subject.parameters()}
            for path, layer in subject.named_modules():
                layer.register_forward_pre_hook(self._before(path), with_kwargs=True, prepend=True)
                layer.register_forward_hook(self._behind(path))
            args, kwargs = torch_tree.tree_map(own, self.side.call)
            # Watching every operator takes as long as a small one does.
            draws = self._draws if self.side.draws else nullcontext()
            with torch.set_grad_enabled(self.side.differentiates), same_numbers(self.side), draws:
                subject(*args, **kwargs)
        except (_Lost, Exception):
            self.lost = True
        self._done = True
        self._stopped.release()
        self.found.only_torch = [path for path in self._calls if path not in self.paths]
        self.found.only_jax = [path for path, _ in self._layers if path not in self.pairs]

    def _before(self, path: str) -> Any:
        paired = path in self.paths

        def hook(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
            call = self._calls[path] = self._calls.get(path, -1) + 1
            if not paired:
                return
            event = self._next()
            if not isinstance(event, _Entered) or event.path != path:
                raise _Lost
            names, leaves, rebuilt = flattened((args, kwargs))
            ours = flattened(event.arguments)
            twin = self._modules[path]
            found = matched(path, twin, event.layer, ours[:2], (names, leaves), self._same)
            matches, arrivals = found.matches, found.arrivals
            if arrivals and (not self._frames or max(off for _, off, _ in arrivals) > GROSS):
                raise _Lost
            # What torch's layer gets, safe from what is written into it.
            given = {match.theirs: match for match in matches}
            kept = [given[j].as_torchs if j in given else own(x) for j, x in enumerate(leaves)]
            for match in matches:
                if not match.equal:
                    self._give(ours[1][match.ours], kept[match.theirs], leaves[match.theirs], match.layout)
            if self._frames:
                self._frames[-1].children += 1
                self._frames[-1].alike &= not arrivals
            depth = len(self.found.records)
            self._frames.append(_Frame(path, call, rebuilt(kept), found.axes, self._draws.position, depth))

        return hook

    def _behind(self, path: str) -> Any:
        paired = path in self.paths

        def hook(layer: torch.nn.Module, _: Any, output: Any) -> None:
            if not paired:
                return
            event, frame = self._next(), self._frames.pop()
            while frame.path != path:  # of a layer that has raised
                frame = self._frames.pop()
            if not isinstance(event, _Left) or event.path != path:
                raise _Lost
            theirs = named_arrays(output)
            names, leaves, _ = flattened(event.output)
            aligned = aligned_outputs(leaves, theirs, frame.axes, names)
            statistics = own_buffers(layer)
            compared: list[tuple[Any, Any, float | None]] = [
                (x, theirs[name], aligned.errors[name]) for name, x in aligned.ours.items()
            ]
            compared += [(x, statistics[name], None) for name, x in event.buffers.items()]
            allowed = None
            if not frame.alike or not all(near_enough(x, y, off) for x, y, off in compared):
                allowed = self._allowed(frame, aligned.ours, Evaluation(theirs, buffers=statistics), event.buffers)
            layout, error = aligned.layout, max(aligned.errors.values(), default=0.0)
            moved = layout is not None and not layout.is_torchs
            self.found.records.append(
                LayerRecord(
                    path,
                    frame.call,
                    type(self._modules[path]).__name__,
                    frame.depth,
                    error,
                    allowed,
                    layout=str(layout) if moved else "",
                    axes=() if layout is None else layout.axes,
                )
            )
            given = [x for x in torch_tree.tree_leaves(output) if isinstance(x, torch.Tensor)]
            for i, name in aligned.names.items():
                tensor = given[list(theirs).index(name)]
                self._give(leaves[i], aligned.ours[name], tensor, aligned.layouts[i])

        return hook

    def _allowed(
        self, frame: _Frame, ours: dict[str, np.ndarray], theirs: Evaluation, buffers: dict[str, np.ndarray]
    ) -> float | None:
        """The largest error that passes, where the layer is within it."""
        layer = self._modules[frame.path]
        draws = self.side.draws[frame.first_draw : self._draws.position]
        alone = TorchSide(layer, frame.arguments, gradients=False, known=(theirs, draws))
        if frame.children:  # what torch gave was made of the port's numbers
            alone.single = Evaluation(named_arrays(alone.again(copied(layer))), buffers=theirs.buffers)
        verdict = verdict_on(alone, ours, {}, self.factor)
        if not verdict.passed or not verdict_on(alone if buffers else None, {}, buffers, self.factor).passed:
            raise _Lost
        if verdict.allowed is None and ours:
            raise _Lost  # passed for want of a truth, which the arguments of here may be the reason of
        return verdict.allowed

    def _give(self, leaf: Any, array: np.ndarray, tensor: torch.Tensor, layout: Layout) -> None:
        """Write the port's numbers into torch's tensor, so that all that shares its memory has them too."""
        if not identical(array, viewed(tensor)):
            if memory(tensor) in self._parameters:
                raise _Lost
            tensor.copy_(to_tensor(array))
        self._known.append((leaf, tensor, tensor._version, layout))

    def _same(self, leaf: Any, tensor: torch.Tensor) -> Layout | None:
        """How ``leaf`` lies, where ``tensor`` was made of it and not written into."""
        for ours, theirs, version, layout in self._known:
            if ours is leaf and theirs is tensor and theirs._version == version:
                return layout
        return None
