"""The calls of a model's modules, noted while it is exported."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as torch_tree

from parity.porting.graph.transforms import is_transforming


@dataclass(frozen=True)
class Reference:
    """A tensor, by the name of the node that made it."""

    name: str


@dataclass
class Record:
    """One call of a module: its arguments by the names in ``forward``, and what it returned."""

    positional: tuple[Any, ...]
    keywords: dict[str, Any]
    names: dict[str, str]
    output: Any = None


@dataclass
class Recording:
    """What is noticed of a model while it is exported.

    Attributes:
        records: of each module call, by path and the number of the call.
        calls: the path and number of each call by what export calls it: the attributes that led to the module, of
            which a shared one has several.
        own_gradients: the ``autograd.Function`` classes that were called, and "torch.func", of which there are the
            operators that it comes to.
        changed: the attributes, no buffers, that the model writes as it runs.
    """

    records: dict[tuple[str, int], Record] = field(default_factory=dict)
    calls: dict[str, tuple[str, int]] = field(default_factory=dict)
    own_gradients: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)

    def rename(self, final: dict[str, str]) -> None:
        """Give the nodes the names that they have in the end."""
        for record in self.records.values():
            record.positional, record.keywords, record.output = torch_tree.tree_map(
                lambda x: Reference(final.get(x.name, x.name)) if isinstance(x, Reference) else x,
                (record.positional, record.keywords, record.output),
            )
            record.names = {final.get(node, node): name for node, name in record.names.items()}


@contextmanager
def recorded(module: torch.nn.Module, recording: Recording, changes: Callable[[], set[str]]) -> Iterator[None]:
    """Fills ``recording``; ``changes`` names the attributes that have been changed so far."""
    counts: Counter[str] = Counter()
    open_calls: list[Record] = []
    buffers: list[list[tuple[torch.nn.Module, dict[str, torch.Tensor | None]]]] = []
    handles = []

    def before(path: str, signature: inspect.Signature) -> Callable[..., None]:
        def hook(part: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if torch.compiler.is_dynamo_compiling() or is_transforming():  # a branch of torch.cond, a function of vmap
                return
            positional, keywords = _references((args, kwargs))
            record = Record(positional, keywords, _named(signature, positional, keywords))
            recording.records[path, counts[path]] = record
            mode = get_proxy_mode()
            if mode is not None and (entered := getattr(mode.tracer, "module_stack", None)):
                recording.calls[next(reversed(entered)).removeprefix("_export_root").lstrip(".")] = (path, counts[path])
            counts[path] += 1
            open_calls.append(record)
            # Of the model's own ones, export writes what takes their place.
            owners = [part] if part is not module else [inner for inner in module.modules() if inner is not module]
            buffers.append([(owner, dict(owner._buffers)) for owner in owners])

        return hook

    def after(part: torch.nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_dynamo_compiling() or is_transforming():
            return
        open_calls.pop().output = _references(output)
        for owner, held in buffers.pop():
            _write_back(owner, held)
        if part is module:
            recording.changed.update(changes())

    for path, child in module.named_modules():
        signature = inspect.signature(child.forward)
        handles.append(child.register_forward_pre_hook(before(path, signature), with_kwargs=True))
        handles.append(child.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _write_back(part: torch.nn.Module, held: dict[str, torch.Tensor | None]) -> None:
    """Write what now stands in place of the buffers that ``part`` ``held``: ``self.mean = new`` is a write, too."""
    for name, buffer in held.items():
        new = part._buffers.get(name)
        if isinstance(buffer, torch.Tensor) and isinstance(new, torch.Tensor) and new is not buffer:
            part._buffers[name] = buffer.copy_(new)


def _references(structure: Any) -> Any:
    """``structure`` with its tensors by name; what insists on holding tensors, as it is."""
    return torch_tree.tree_map(_reference, structure, is_leaf=lambda x: isinstance(x, PackedSequence))


def _reference(x: Any) -> Any:
    mode = get_proxy_mode()
    if isinstance(x, torch.Tensor) and mode is not None:
        proxy = mode.tracer.unwrap_proxy(x)
        if not isinstance(proxy, torch.fx.Proxy):
            return x
        proxy.node.meta["traced"] = proxy.node.name  # export gives some nodes other names
        return Reference(proxy.node.name)
    return x


def _named(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, str]:
    """The parameter of ``forward`` that each node came in by."""
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return {}
    names: dict[str, str] = {}
    for name, value in bound.items():
        kind = signature.parameters[name].kind
        entries = value.items() if kind is inspect.Parameter.VAR_KEYWORD else [(name, value)]
        for key, entry in entries:
            leaves = torch_tree.tree_flatten_with_path(entry)[0]
            for path, leaf in leaves:
                if isinstance(leaf, Reference):
                    last = getattr(path[-1], "key", getattr(path[-1], "idx", "")) if path else ""
                    inner = last if isinstance(last, str) and last.isidentifier() else f"{key}_{last}" if path else key
                    names.setdefault(leaf.name, inner)
    return names
