"""A torch forward pass that goes on one layer call at a time, so that no more of it is kept than is looked at."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as torch_tree

from parity.arrays import to_numpy
from parity.replay import Draws


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
        done: whether it has returned.
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


class TorchStream:
    """Runs a torch module in a thread that stops whenever a layer is entered or left, until asked to go on.

    The two sides never run at the same time. Use as a context manager: leaving it ends the thread.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        draws: list[torch.Tensor],
        paths: set[str],
    ) -> None:
        self.module = module
        self.arguments = arguments
        self.paths = paths
        self.root: Node | None = None
        self.error: BaseException | None = None
        self.calls: dict[str, int] = {}
        self._draws = _StreamedDraws(draws, self)
        self._stack: list[Node] = []
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "TorchStream":
        self._handles = []
        for path, layer in self.module.named_modules():
            self._handles.append(layer.register_forward_pre_hook(self._before(path), with_kwargs=True, prepend=True))
            self._handles.append(layer.register_forward_hook(self._after()))
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
        """Let torch run to the next layer call's beginning or end."""
        self._go.release()
        self._stopped.acquire()
        if self.error is not None:
            raise self.error

    def find(self, parent: Node, path: str) -> Node | None:
        """The first call of ``path`` inside ``parent`` that is still there; None once ``parent`` has returned."""
        while True:
            found = next((node for node in _calls(parent) if node.path == path), None)
            if found is not None or parent.done:
                return found
            self.advance()

    def finish(self, node: Node) -> None:
        """Run torch to the end of ``node``."""
        while not node.done:
            self.advance()

    def drop(self, node: Node) -> None:
        """Forget a call that has been looked at."""
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
            with torch.no_grad(), self._draws:
                args, kwargs = torch_tree.tree_map(_own, self.arguments)
                self.module(*args, **kwargs)
        except _Abandoned:
            pass
        except BaseException as error:
            self.error = error
        self._stopped.release()

    def _stop(self) -> None:
        self._stopped.release()
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned

    def _before(self, path: str) -> Any:
        def hook(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            count = self.calls.get(path, 0)
            self.calls[path] = count + 1
            kept = torch_tree.tree_map(_own, (args, kwargs)) if path in self.paths else ((), {})
            node = Node(path, count, kept, self._draws.position, self._stack[-1] if self._stack else None)
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
            if node.path in self.paths:
                node.output = torch_tree.tree_map(_own, output)
                node.buffers = {
                    name: to_numpy(buffer) for name, buffer in layer.named_buffers(recurse=False) if buffer is not None
                }
            node.last_draw = self._draws.position
            node.done = True
            if self._stack:
                self._stop()

        return hook

    def drawn(self, tensor: torch.Tensor) -> None:
        """Note a draw of the layer that is running."""
        if self._stack:
            self._stack[-1].items.append(tensor)


class _Abandoned(BaseException):
    """The rest of the pass is not wanted."""


class _StreamedDraws(Draws):
    def __init__(self, recorded: list[torch.Tensor], stream: TorchStream) -> None:
        super().__init__(recorded)
        self.stream = stream

    def _next(self) -> torch.Tensor:
        drawn = super()._next()
        self.stream.drawn(drawn)
        return drawn


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


def _own(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, torch.Tensor) else x
