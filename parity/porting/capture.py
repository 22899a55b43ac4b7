"""A torch model as a graph of PyTorch's own operators, with every module call noted."""

import inspect
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import sympy
import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as torch_tree

from parity.porting.decomposition import decomposed
from parity.porting.differentiation import differentiable
from parity.porting.errors import PortError
from parity.porting.exporting import (
    Distinct,
    as_eager,
    forgotten,
    kept,
    kept_tensors,
    located,
    noticed,
    quiet,
    unchecked,
    unmoved,
)
from parity.porting.flexible import flexible
from parity.porting.functionalization import copied_out, functionalized, unbroadcast
from parity.porting.known import Known
from parity.porting.normalizing import normalized
from parity.porting.packing import Packings, unpacked
from parity.porting.places import padded
from parity.porting.regions import inlined, traced_name
from parity.porting.reshapes import joined
from parity.porting.selection import kept_whole

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


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
class Capture:
    """What export found.

    Attributes:
        records: of each module call, by path and the number of the call.
        calls: the path and number of each call by what export calls it: the attributes that led to the module, of
            which a shared one has several.
        notes: what is to be said of it.
        forgets: whether it was exported without the tensors that modules keep of earlier calls.
        skips: whether a loop of it passes over what does not occur, and was exported as if all did.
        own_gradients: the ``autograd.Function`` classes that were called; export keeps what they do forward only.
        changed: the attributes, no buffers, that the model writes as it runs.
        limits: what held of the free sizes where the model looked at them: it may do otherwise where it does not.
        fixed_size: of the first input's first axis, where export would not leave that free; else none.
    """

    program: torch.export.ExportedProgram
    graph: torch.fx.Graph
    records: dict[tuple[str, int], Record]
    calls: dict[str, tuple[str, int]]
    notes: list[str]
    forgets: bool = False
    skips: bool = False
    own_gradients: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    limits: list[sympy.Basic] = field(default_factory=list)
    fixed_size: int | None = None


def captured(
    module: torch.nn.Module, arguments: Arguments, dynamic: dict[str, Any] | None, *, fixed: bool = False
) -> Capture:
    """``module`` exported with its first axes of equal size free, or as free as export allows; or none of them."""
    notes: list[str] = []
    if fixed:
        notes.append("sizes are fixed to the example's: what depends on them cannot be written while they are free")
    arguments = _apart(arguments)
    shapes = dynamic if dynamic is not None else batch_axes(arguments, inspect.signature(module.forward))
    records: dict[tuple[str, int], Record] = {}
    calls: dict[str, tuple[str, int]] = {}
    own: set[str] = set()
    changed: set[str] = set()
    packings, known = Packings(), Known(module)
    errors: list[Exception] = []
    without = [True, False] if kept_tensors(module) else [False]  # a model may also need what it keeps
    for forgets, sizes, eager in product(without, [None] if fixed or shapes is None else [shapes, None], (False, True)):
        records.clear()
        calls.clear()
        changed.clear()
        try:
            with noticed(own), as_eager() if eager else nullcontext(), forgotten(module, forgets):
                program = _exported(module, arguments, sizes, records, calls, packings, known, changed)
            break
        except Exception as error:
            errors.append(error)
    else:
        raise _refused(errors[-2]) from errors[-2]
    if sizes is None and shapes is not None and not fixed:
        refused = errors[-2 - eager]  # what the model raised as it is, with free sizes
        notes.append(f"sizes are fixed to the example's: {_first_line(refused)}")
    if packings.cut:
        notes.append("pad_packed_sequence gives as many steps as there were; torch cuts them to the longest sequence")
    graph_module = program.graph_module
    if shapes is not None and dynamic is None and not notes and not has_free_sizes(graph_module.graph):
        notes.append("sizes are fixed to the example's: the model computes with them as Python numbers")
    limits = _limits(graph_module.graph)
    size = _first_size(arguments)
    fixed_size = size if dynamic is None and size > 1 and not has_free_sizes(graph_module.graph) else None
    same: dict[str, torch.fx.Node] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # symbolic sizes stand in the graph as they are
        for part in graph_module.modules():  # branches of torch.cond among them
            if isinstance(part, torch.fx.GraphModule):
                try:
                    inlined(part)
                    same |= unbroadcast(part.graph)
                    copied_out(part.graph)
                    decomposed(part)
                    functionalized(part.graph)
                    kept_whole(part.graph)
                    padded(part.graph)
                    joined(part.graph)
                    normalized(part.graph)
                except NotImplementedError as error:
                    raise PortError(f"port: {error} cannot be written in JAX") from error
    final = _placeholder_names(program)
    for node in sorted(graph_module.graph.nodes, key=lambda node: "traced" not in node.meta):
        if node.op != "placeholder":
            final.setdefault(traced_name(node), node.name)
    final |= {name: final.get(traced_name(node), node.name) for name, node in same.items()}
    for node in graph_module.graph.nodes:
        if "behind" in node.meta:
            node.meta["behind"] = final[node.meta["behind"]]
    for record in records.values():
        record.positional, record.keywords, record.output = torch_tree.tree_map(
            lambda x: Reference(final.get(x.name, x.name)) if isinstance(x, Reference) else x,
            (record.positional, record.keywords, record.output),
        )
        record.names = {final.get(node, node): name for node, name in record.names.items()}
    return Capture(
        program,
        graph_module.graph,
        records,
        calls,
        notes,
        forgets,
        known.skips,
        sorted(own),
        sorted(changed),
        limits,
        fixed_size,
    )


def _apart(arguments: Arguments) -> Arguments:
    """``arguments`` where a tensor given twice is two: the tracer knows tensors by their identity."""
    seen: set[int] = set()

    def separate(x: Any) -> Any:
        if isinstance(x, torch.Tensor) and id(x) in seen:
            return x.detach().clone().requires_grad_(x.requires_grad)
        seen.add(id(x))
        return x

    args, kwargs = torch_tree.tree_map(separate, arguments)
    return args, kwargs


def batch_axes(arguments: Arguments, signature: inspect.Signature) -> dict[str, Any]:
    """Every tensor's first axis that is as long as the first tensor's, marked as free."""
    args, kwargs = arguments
    size = _first_size(arguments)

    def free(x: Any) -> Any:
        automatic = isinstance(x, torch.Tensor) and x.ndim and x.shape[0] == size and size > 1
        return {0: torch.export.Dim.AUTO} if automatic else None

    marked_args, marked_kwargs = torch_tree.tree_map(free, (args, kwargs))
    bound = signature.bind(*marked_args, **marked_kwargs).arguments
    flat: dict[str, Any] = {}
    for name, value in bound.items():
        kind = signature.parameters[name].kind
        flat |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return flat


def _first_size(arguments: Arguments) -> int:
    """How long the first axis of the first tensor is that has any; 0 if there is none."""
    return next((x.shape[0] for x in torch_tree.tree_leaves(arguments) if isinstance(x, torch.Tensor) and x.ndim), 0)


def has_free_sizes(graph: torch.fx.Graph) -> bool:
    """Whether an input has an axis of any size."""
    values = [node.meta.get("val") for node in graph.nodes if node.op == "placeholder"]
    return any(is_free(size) for x in values if isinstance(x, torch.Tensor) for size in x.shape)


def _limits(graph: torch.fx.Graph) -> list[sympy.Basic]:
    """The model's own comparisons of free sizes that do not hold of every size from two on."""
    mode = torch._guards.detect_fake_mode([node.meta.get("val") for node in graph.nodes])
    free = {
        symbol
        for node in graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)
        for size in node.meta["val"].shape
        if is_free(size)
        for symbol in size.node.expr.free_symbols
    }
    guards = mode.shape_env.guards if mode is not None and mode.shape_env is not None else []
    found = dict.fromkeys(guard.expr for guard in guards if guard.expr.free_symbols and guard.expr.free_symbols <= free)
    looked = [limit for limit in found if not _is_of_one(limit) and not all(_holds(limit, n) for n in range(2, 34))]
    return looked + [sympy.Ne(size, 1) for size in dict.fromkeys(_squeezed(graph)) if size.free_symbols <= free]


def _squeezed(graph: torch.fx.Graph) -> Iterator[sympy.Expr]:
    """The free sizes whose axes the model drops if they are one."""
    for node in graph.nodes:
        if str(node.target).startswith("aten.squeeze"):
            shape = node.args[0].meta["val"].shape
            dims = node.args[1] if len(node.args) > 1 else range(len(shape))
            sizes = [shape[dim] for dim in ([dims] if isinstance(dims, int) else dims)]
            yield from (size.node.expr for size in sizes if is_free(size))


def _is_of_one(limit: sympy.Basic) -> bool:
    """Whether export only notes that something is not one or none, as it takes of every size that is free."""
    return isinstance(limit, sympy.Ne) and limit.args[1] in (0, 1)


def _holds(limit: sympy.Basic, size: int) -> bool:
    return limit.subs(dict.fromkeys(limit.free_symbols, size)) != sympy.false


def is_free(size: Any) -> bool:
    """Whether a size is a symbol, and export found no number that it must be."""
    return isinstance(size, torch.SymInt) and bool(size.node.expr.free_symbols)


def _exported(
    module: torch.nn.Module,
    arguments: Arguments,
    shapes: Any,
    records: dict[tuple[str, int], Record],
    calls: dict[str, tuple[str, int]],
    packings: Packings,
    known: Known,
    changed: set[str],
) -> torch.export.ExportedProgram:
    args, kwargs = arguments
    with ExitStack() as stack:
        around: list[AbstractContextManager[Any]] = [
            quiet(),
            located(),
            unchecked(),
            unmoved(),
            torch.backends.opt_einsum.flags(enabled=False),  # it would look at sizes, and fix those that are free
            unpacked(packings),
            differentiable(),
            flexible(),
        ]
        changes = stack.enter_context(kept(module))
        around += [_recorded(module, records, calls, changed, changes)]
        around += [torch.enable_grad(), Distinct(), known]
        for context in around:
            stack.enter_context(context)
        return torch.export.export(module, args, kwargs, strict=False, dynamic_shapes=shapes)


@contextmanager
def _recorded(
    module: torch.nn.Module,
    records: dict[tuple[str, int], Record],
    calls: dict[str, tuple[str, int]],
    changed: set[str],
    changes: Callable[[], set[str]],
) -> Iterator[None]:
    counts: Counter[str] = Counter()
    open_calls: list[Record] = []
    buffers: list[dict[str, torch.Tensor | None]] = []
    handles = []

    def before(path: str, signature: inspect.Signature) -> Callable[..., None]:
        def hook(part: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if torch.compiler.is_dynamo_compiling():  # a branch of torch.cond
                return
            positional, keywords = _references((args, kwargs))
            record = Record(positional, keywords, _named(signature, positional, keywords))
            records[path, counts[path]] = record
            mode = get_proxy_mode()
            if mode is not None and (entered := getattr(mode.tracer, "module_stack", None)):
                calls[next(reversed(entered)).removeprefix("_export_root").lstrip(".")] = (path, counts[path])
            counts[path] += 1
            open_calls.append(record)
            buffers.append(dict(part._buffers))

        return hook

    def after(part: torch.nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            return
        open_calls.pop().output = _references(output)
        for name, buffer in buffers.pop().items():  # ``self.mean = new`` is a write, too
            new = part._buffers.get(name)
            if isinstance(buffer, torch.Tensor) and isinstance(new, torch.Tensor) and new is not buffer:
                part._buffers[name] = buffer.copy_(new)
        if part is module:
            changed.update(changes())

    for path, child in module.named_modules():
        signature = inspect.signature(child.forward)
        handles.append(child.register_forward_pre_hook(before(path, signature), with_kwargs=True))
        handles.append(child.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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


def _placeholder_names(program: torch.export.ExportedProgram) -> dict[str, str]:
    """The final names of placeholders by the ones they were traced under."""
    kinds = torch.export.graph_signature.InputKind
    traced = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind not in (kinds.CONSTANT_TENSOR, kinds.CUSTOM_OBJ, kinds.TOKEN) and hasattr(spec.arg, "name")
    ]
    return {f"arg{i}_1": name for i, name in enumerate(traced)}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _refused(error: Exception) -> PortError:
    """Export's refusal with the line of the model at fault."""
    trace = error.__traceback__
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/torch/" not in file and "/parity/" not in file:
            place = f" (at {file}, line {trace.tb_lineno}, in {trace.tb_frame.f_code.co_name})"
        trace = trace.tb_next
    said = str(error).partition("The error above occurred when")[0][:2000]
    said = "\n".join(line for line in said.splitlines() if line.strip() and not line.startswith(_HINTS))
    advice = ""
    if re.search(r"Eq\(u\d+, u\d+\)", said):
        advice = "\nEntries picked by a mask: compute the mask once and pick by it twice."
    elif "data-dependent" in said:
        advice = "\nPython decides there by what the data are; torch.where and torch.cond decide in the graph."
    elif "fake tensor in the exported program" in said:
        advice = "\nThe model makes a tensor in a way that export does not see, as x.data does; x.detach() it sees."
    return PortError(f"port: torch.export refuses the model{place}: {type(error).__name__}: {said.strip()}{advice}")


_HINTS = (
    "Caused by:",
    "For more information, run with",
    "For extended logs",
    "If you suspect",
    "For more debugging help",
    "For C++ stack",
)
