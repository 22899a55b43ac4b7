"""A torch forward pass that waits to be looked at, so that no more of it is kept than a little."""

import sys
import threading
from collections import deque
from collections.abc import Iterator, Set
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as torch_tree

from parity.arrays import to_numpy
from parity.checking import generators
from parity.replay import Draws

AHEAD = 32 << 20
"""Bytes that torch may hold ahead of whoever looks: two threads that hand over at every layer wait for each other's
pools more than they compute."""


@dataclass
class Node:
    """One call of one torch layer.

    Attributes:
        path: of the layer.
        call: which call of that layer it is, from 0.
        arguments: as they were when it began.
        first_draw: how many random tensors torch had drawn before it.
        last_draw: and when it returned.
        parent: the call it is part of.
        items: what happened inside, in order: draws of its own code, and calls of layers.
        output: what it returned.
        buffers: running statistics behind it.
        done: whether it has returned, or raised.
        raised: whether it raised, and the model's code caught that.
        held: bytes kept of it.
    """

    path: str
    call: int
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    first_draw: int
    parent: "Node | None" = None
    last_draw: int = -1
    items: list["torch.Tensor | Node"] = field(default_factory=list)
    output: Any = None
    buffers: dict[str, Any] = field(default_factory=dict)
    done: bool = False
    raised: bool = False
    held: int = 0


class TorchStream:
    """Runs a torch module in a thread that stops where a layer is entered or left once it is far enough ahead.

    The two sides never run at the same time. Use as a context manager: leaving it ends the thread.

    Args:
        module: run as it stands; hooks are added, and removed again.
        arguments: positional and by keyword.
        draws: what it drew at random before, to be drawn again.
        paths: of the layers whose arguments and outputs are kept.
        ahead: how many bytes of them may be kept before anybody has looked.
        differentiates: whether it needs gradients to run.
        plays: whether it draws from the generators of Python or NumPy, which both sides then have to themselves.
        spare: the ids of draws that the port does not make, and need not.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        draws: list[torch.Tensor],
        paths: set[str],
        ahead: int = AHEAD,
        differentiates: bool = False,
        plays: bool = False,
        spare: Set[int] = frozenset(),
    ) -> None:
        self.module = module
        self.differentiates = differentiates
        self._numbers = generators.numbers() if plays else None
        self.arguments = arguments
        self.paths = paths
        self.ahead = ahead
        self.held = 0
        self.root: Node | None = None
        self.error: BaseException | None = None
        self.calls: dict[str, int] = {}
        self._draws = _StreamedDraws(draws, self, spare)
        self._stack: list[Node] = []
        self._copies: deque[tuple[torch.Tensor, int, torch.Tensor]] = deque(maxlen=4)
        self._go, self._stopped = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._stopped.acquire()
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "TorchStream":
        self._handles = []
        for path, layer in self.module.named_modules():
            self._handles.append(layer.register_forward_pre_hook(self._before(path), with_kwargs=True, prepend=True))
            self._handles.append(layer.register_forward_hook(self._after(), always_call=True))
        self._thread.start()
        self._stopped.acquire()
        self.advance()
        return self

    def __exit__(self, *_: object) -> None:
        self._abandoned = True
        self._go.release()
        self._thread.join()
        for handle in self._handles:
            handle.remove()

    def advance(self) -> None:
        """Let torch run on: past the beginning or the end of a layer's call at least."""
        ours = generators.numbers() if self._numbers is not None else None
        if self._numbers is not None:
            generators.set_numbers(self._numbers)
        self._go.release()
        self._stopped.acquire()
        if ours is not None:
            self._numbers = generators.numbers()
            generators.set_numbers(ours)
        if self.error is not None:
            raise self.error

    def find(self, parent: Node, paths: tuple[str, ...]) -> Node | None:
        """The first call of ``paths`` inside ``parent`` that is still there; None once ``parent`` has returned."""
        while True:
            found = next((node for node in _calls(parent) if node.path in paths), None)
            if found is not None or parent.done:
                return found
            self.advance()

    def finish(self, node: Node) -> None:
        """Run torch to the end of ``node``."""
        while not node.done:
            self.advance()

    def drop(self, node: Node) -> None:
        """Forget a call that has been looked at."""
        self.held -= node.held
        if node.parent is not None:
            node.parent.items[:] = [item for item in node.parent.items if item is not node]

    def take_draw(self, node: Node) -> torch.Tensor | None:
        """The next random tensor drawn inside ``node`` and not taken yet; None once there is no more."""
        while True:
            drawn = _first_draw(node)
            if drawn is not None or node.done:
                return drawn
            self.advance()

    def _run(self) -> None:
        self._stopped.release()
        self._go.acquire()
        if self._abandoned:
            return
        try:
            args, kwargs = torch_tree.tree_map(self._own, self.arguments)
            # Watching every operator takes as long as a small one does.
            with torch.set_grad_enabled(self.differentiates), self._draws if self._draws.recorded else nullcontext():
                self.module(*args, **kwargs)
        except _Abandoned:
            pass
        except BaseException as error:
            self.error = error
        self._stopped.release()

    def _stop(self) -> None:
        if self.held <= self.ahead and not self._abandoned:
            return
        self._stopped.release()
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned

    def _before(self, path: str) -> Any:
        def hook(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            count = self.calls.get(path, 0)
            self.calls[path] = count + 1
            before = self.held
            kept = torch_tree.tree_map(self._own, (args, kwargs)) if path in self.paths else ((), {})
            node = Node(path, count, kept, self._draws.position, self._stack[-1] if self._stack else None)
            node.held = self.held - before
            if self._stack:
                self._stack[-1].items.append(node)
            else:
                self.root = node
            self._stack.append(node)
            self._stop()

        return hook

    def _after(self) -> Any:
        def hook(layer: torch.nn.Module, _: Any, output: Any) -> None:
            node = self._stack.pop()
            node.raised = output is None and sys.exc_info()[0] is not None
            if node.path in self.paths:
                before = self.held
                node.output = torch_tree.tree_map(self._own, output)
                node.held += self.held - before
                node.buffers = own_buffers(layer)
            node.last_draw = self._draws.position
            node.done = True
            if self._stack:
                self._stop()

        return hook

    def _own(self, x: Any) -> Any:
        """A copy that the model cannot write into; the same one again while nothing was written into ``x``."""
        if not isinstance(x, torch.Tensor):
            return x
        version = -1 if x.is_inference() else x._version
        for original, seen, copied in self._copies:
            if original is x and seen == version >= 0:
                return copied
        copied = x.detach().clone()
        self.held += copied.nbytes
        self._copies.append((x, version, copied))
        return copied

    def drawn(self, tensor: torch.Tensor) -> None:
        """Note a draw of the layer that is running."""
        if self._stack:
            self._stack[-1].items.append(tensor)


class _Abandoned(BaseException):
    """The rest of the pass is not wanted."""


class _StreamedDraws(Draws):
    def __init__(self, recorded: list[torch.Tensor], stream: TorchStream, spare: Set[int]) -> None:
        super().__init__(recorded)
        self.stream, self.spare = stream, spare

    def _next(self) -> torch.Tensor:
        drawn = super()._next()
        if id(drawn) not in self.spare:
            self.stream.drawn(drawn)
        return drawn


def own_buffers(layer: torch.nn.Module) -> dict[str, np.ndarray]:
    """The statistics of a layer, without those of the layers in it."""
    return {name: to_numpy(buffer) for name, buffer in layer.named_buffers(recurse=False)}


def _calls(node: Node) -> Iterator[Node]:
    for item in node.items:
        if isinstance(item, Node):
            yield item
            yield from _calls(item)


def _first_draw(node: Node) -> torch.Tensor | None:
    for index, item in enumerate(node.items):
        if not isinstance(item, Node):
            del node.items[index]
            return item
        found = _first_draw(item)
        if found is not None:
            return found
    return None
