"""Numbers that a model reads out of arrays which no input decides."""

import operator
from typing import Any, cast

import torch
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as torch_tree
from torch.utils._python_dispatch import _disable_current_modes

from parity.porting.errors import PortError
from parity.porting.graph.nodes import in_place, is_symbolic, written
from parity.porting.lines import model_line

_READS = frozenset(
    getattr(torch.Tensor, name)
    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__format__")
)

aten = torch.ops.aten

_POSITIVE = (aten.gt.Scalar, aten.greater.Scalar, aten.ne.Scalar)

# Take sizes, for which torch lets a tensor stand that holds one integer.
_SIZED = frozenset(
    [getattr(torch.Tensor, name) for name in ("__getitem__", "expand", "new_zeros", "repeat", "reshape", "view")]
    + [torch.nn.functional.pad]
)


class Known(TorchFunctionMode):
    """Answers ``int(x)``, ``x.item()``, ``if x`` where ``x`` is made of buffers and constants that nothing changes.

    Export has no values: it would refuse the number of steps, the padding or the flag that a model keeps in a buffer.
    The same for sizes that are given as tensors, and for the places of what occurs: see :func:`_occurring`.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.values = dict(module.named_buffers())
        self.read: set[str] = set()  # the buffers of which numbers were made
        self.skips = False  # whether a loop passes over what does not occur
        self.loop: tuple[str, int] | None = None  # the line of the last such loop
        self.spare: set[tuple[str, int]] = set()  # those whose last round cannot occur

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS and not torch.compiler.is_dynamo_compiling():
            try:
                value = self._value(args[0])
            except LookupError:
                pass
            else:
                with torch._C.DisableTorchFunction(), _disable_current_modes():
                    return func(value, *args[1:])
        if func is torch.Tensor.unbind and (places := _occurring(args[0])):
            self.skips, self.loop = True, model_line()
            return tuple(torch.tensor([place]) for place in range(places - (self.loop in self.spare)))
        if func is torch.Tensor.__getitem__ and (row := self._row(args[1])) is not None:
            return args[0][row : row + 1].clone()
        if func is torch.Tensor.__getitem__:
            args = (args[0], self._index(args[1]))
        if func in _SIZED:
            args = (args[0], *torch_tree.tree_map(self._size, args[1:]))
        return func(*args, **(kwargs or {}))

    def knows(self, x: torch.Tensor) -> bool:
        """Whether no input decides what ``x`` holds."""
        try:
            self._value(x)
        except LookupError:
            return False
        return True

    def refuse_moving(self, program: torch.export.ExportedProgram) -> None:
        """Refuse a model that makes Python's numbers of a buffer, and writes it: the port would keep the first.

        Raises:
            PortError: it does.
        """
        names = program.graph_signature.inputs_to_buffers
        for node in filter(in_place, program.graph.nodes):
            name = names.get(getattr(written(node), "name", ""))
            if name in self.read:
                raise PortError(
                    f"port: the model reads a number from the buffer {name} and writes it; a port would have the "
                    "number that was there when it was exported"
                )

    def _index(self, index: Any) -> Any:
        """The index, with the places of a known mask for the mask: the number of these is known."""
        if isinstance(index, torch.Tensor) and index.dtype == torch.bool and index.ndim:
            try:
                value = self._value(index)
            except LookupError:
                return index
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                places = value.nonzero(as_tuple=True)
            return tuple(map(torch.tensor, (place.tolist() for place in places)))
        return index

    def _row(self, index: Any) -> int | None:
        """The one row that a known tensor picks."""
        if not isinstance(index, torch.Tensor) or index.dtype != torch.int64 or index.ndim != 1:
            return None
        if not isinstance(index.shape[0], int) or index.shape[0] != 1:  # to compare a free size would fix it
            return None
        try:
            row = int(self._value(index))
        except LookupError:
            return None
        return row if row >= 0 else None

    def _size(self, x: Any) -> Any:
        if isinstance(x, slice):
            return slice(*map(self._size, (x.start, x.stop, x.step)))
        if not isinstance(x, torch.Tensor) or x.ndim or x.dtype in (torch.bool, torch.uint8) or x.is_floating_point():
            return x
        try:
            return self._value(x).item()
        except LookupError:
            return x

    def _value(self, x: torch.Tensor) -> torch.Tensor:
        node = traced_node(x)
        buffers = {traced_node(fake): name for name, fake in self.module.named_buffers() if name in self.values}
        known = {buffer: self.values[name] for buffer, name in buffers.items()}
        sources: dict[Node, None] = {}
        _collect(node, known, sources)
        if any(shared in sources for writer in node.graph.nodes if writes(writer) for shared in memory(writer)):
            raise LookupError
        value, *others = (_computed(node, sources, known, more) for more in ((0, 1) if _has_sizes(sources) else (0,)))
        if any(other.shape != value.shape or not torch.equal(other, value) for other in others):
            raise LookupError
        self.read |= {name for buffer, name in buffers.items() if buffer in sources}
        return value


def _computed(node: Node, sources: dict[Node, None], known: dict[Node, torch.Tensor], more: int) -> torch.Tensor:
    """What ``node`` holds where each free size is ``more`` than in the example."""
    values: dict[Node, Any] = {}
    mode: Any = get_proxy_mode()
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        for source in sources:  # what a node is made of comes before it
            if source in known:
                values[source] = known[source]
            elif source.op == "get_attr":
                values[source] = operator.attrgetter(str(source.target))(mode.tracer.root)
            elif is_symbolic(source):
                values[source] = _size_in_example(source.meta["val"], more)
            else:
                args, kwargs = torch.fx.map_arg((source.args, source.kwargs), lambda x: values[x])
                values[source] = source.target(*args, **kwargs)
    return values[node]


def _has_sizes(sources: dict[Node, None]) -> bool:
    return any(map(is_symbolic, sources))


def _size_in_example(size: torch.SymInt, more: int) -> int:
    """A free size, each symbol in it ``more`` than in the example."""
    shapes = size.node.shape_env
    numbers = getattr(shapes, "backed_var_to_val", None) or shapes.var_to_val  # as torch 2.9 calls it
    return int(size.node.expr.subs({symbol: int(numbers[symbol]) + more for symbol in size.node.expr.free_symbols}))


def traced_node(x: Any) -> Node:
    """What stands for a tensor in the graph that is being traced.

    Raises:
        LookupError: nothing does.
    """
    mode = get_proxy_mode()
    proxy = mode.tracer.unwrap_proxy(x) if mode is not None else None
    if not isinstance(proxy, torch.fx.Proxy):
        raise LookupError
    return proxy.node


def _occurring(x: torch.Tensor) -> int:
    """How many rounds there may be in ``for expert in (mask.sum(dims) > 0).nonzero()``; 0 if ``x`` is not of the kind.

    Each of these rounds picks by its part of the mask. One that does not occur picks nothing, so that it does nothing.
    """
    try:
        node = traced_node(x)
    except LookupError:
        return 0
    hit: Any = node.args[0] if node.target is aten.nonzero.default else None
    if not isinstance(hit, Node) or hit.target not in _POSITIVE or hit.args[1] != 0 or hit.meta["val"].ndim != 1:
        return 0
    size, counted = hit.meta["val"].shape[0], cast(Any, hit.args[0])
    if counted.target is not aten.sum.dim_IntList or counted.args[0].meta["val"].is_floating_point():
        return 0  # what is no mask may be less than zero, and not nothing
    return size if isinstance(size, int) else 0


def _collect(node: Node, known: dict[Node, torch.Tensor], sources: dict[Node, None]) -> None:
    """Everything that ``node`` is made of, in order.

    Raises:
        LookupError: an input, a parameter or chance is among it.
    """
    if node in sources:
        return
    if node not in known and node.op != "get_attr" and not _is_free_size(node):
        pure = node.target is operator.getitem or (
            isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded not in node.target.tags
        )
        if node.op != "call_function" or not pure:
            raise LookupError
        for source in node.all_input_nodes:
            _collect(source, known, sources)
    sources[node] = None


def _is_free_size(node: Node) -> bool:
    """Whether ``node`` is a size that an input has."""
    value = node.meta.get("val")
    return isinstance(value, torch.SymInt) and value.node.has_hint()


def writes(node: Node) -> bool:
    """Whether ``node`` changes what an array holds."""
    if node.target is aten.detach_.default:  # of what torch.tensor makes, and it stays as it is
        return False
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def memory(writer: Node) -> list[Node]:
    """What may share the memory that ``writer`` writes into."""
    chain = [writer]
    while chain[-1].args and isinstance(chain[-1].args[0], Node):
        chain.append(chain[-1].args[0])
    return chain
