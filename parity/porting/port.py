"""A torch model as JAX source, and the proof that it is the same."""

import copy
import dataclasses
import itertools
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.utils import _pytree as torch_tree

from jaxnn import nn
from parity import weights
from parity.arrays import to_numpy
from parity.checking import Report, check
from parity.checking.evaluation import TorchSide, evaluate_jax
from parity.checking.judgement import judged
from parity.porting.capture import captured, is_free
from parity.porting.classes import Author
from parity.porting.errors import PortError
from parity.porting.signature import Face
from parity.porting.tree import call_tree

_COUNT = itertools.count()


class Port:
    """A torch model's JAX twin.

    Attributes:
        source: Python source of ``nnx.Module`` classes; the last is the model.
        module: an instance of it, weights loaded.
        name: of the model's class.
        notes: what was fixed while porting.
    """

    def __init__(self, source: str, name: str, arrays: dict[str, np.ndarray], notes: list[str]) -> None:
        self.source, self.name, self.notes = source, name, notes
        self.arrays = arrays
        self.module = loaded(source, name, arrays)
        self._report: Report | None = None
        self._subject: tuple[torch.nn.Module, Any, Any] | None = None

    @property
    def report(self) -> Report:
        """The port held against the original on the example's inputs: outputs, gradients, buffers."""
        if self._report is None:
            if self._subject is None:
                raise PortError("port: a port without its original has no report")
            self._report = checked(self._subject[0], self.module, self._subject[1], self._subject[2], gradients=True)
        return self._report

    def save(self, directory: str | Path) -> None:
        """Write ``model.py``, ``model.safetensors`` and a ``README.md`` that says how to use them."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_text(self.source)
        weights.save(self.arrays, folder / "model.safetensors")
        (folder / "README.md").write_text(_README.format(name=self.name))


_README = """# {name}

A JAX port of a PyTorch model. Needs `jax`, `flax`, `jaxnn` and `safetensors`.

```python
from flax import nnx
from jaxnn import nn
from safetensors.numpy import load_file

from model import {name}

model = {name}(rngs=nnx.Rngs(0))  # without rngs where its constructor takes none
nn.load_state_dict(model, load_file("model.safetensors"))
model.eval()
```

Parameters have the names and layouts of the original's `state_dict`.
"""


def port(
    module: torch.nn.Module,
    args: tuple[Any, ...] | torch.Tensor,
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: dict[str, Any] | None = None,
    verify: bool = True,
    progress: Callable[[str], None] = lambda stage: None,
) -> Port:
    """Write the JAX source of a torch model, and make sure that it does the same.

    The model is run once, by ``torch.export``, on the example inputs. The first axis of every input as long as the
    first input's is free in the port; the other sizes are the example's.

    Args:
        module: the model; read, not changed. Its mode, training or evaluation, is the port's.
        args: positional arguments; one tensor alone need not be in a tuple.
        kwargs: keyword arguments.
        dynamic_shapes: of ``torch.export``, where other axes are to be free.
        verify: compare outputs on the example and on another batch, and refuse a port that differs.
        progress: told what is begun: exporting, writing, loading, comparing.

    Raises:
        PortError: export refuses the model, or operators are unsupported (all of them are named, with module and
            line).
        DivergenceError: the port differs from the model; the error is the report.
    """
    arguments = (tuple(args) if isinstance(args, tuple | list) else (args,), kwargs or {})
    progress("exporting")
    capture = captured(module, arguments, dynamic_shapes)
    progress("writing")
    _mark_arrays(capture.program, capture.graph, module)
    root = call_tree(capture, module)
    face = Face(capture, root, module)
    author = Author(module, root, set(face.classes))
    classes = [*face.classes.values(), *author.write(face)]
    if author.unsupported:
        raise PortError(_unsupported(author))
    name = author.drafts[""].class_name
    source = (
        _HEADER.format(imports=_imports("\n".join(classes)), model=type(module).__name__)
        + "\n\n\n".join(classes)
        + "\n"
    )
    arrays = weights.load(module) | {path: to_numpy(tensor) for path, tensor in author.arrays.items()}
    progress("loading")
    result = Port(source, name, arrays, capture.notes)
    _set_modes(module, result.module)
    result._subject = (module, *arguments)
    if verify:
        progress("comparing on the example")
        verified(module, result, arguments)
        progress("comparing on another batch")
        other = another(arguments, face.given)
        if other is not None:
            verified(module, result, other)
    return result


_HEADER = '''"""{model}, ported from PyTorch."""

{imports}


'''


def _imports(text: str) -> str:
    first = [line for used, line in (("jax.", "import jax"), ("jnp.", "import jax.numpy as jnp")) if used in text]
    python = [
        line
        for used, line in (
            ("@dataclass", "from dataclasses import dataclass"),
            ("Any = None", "from typing import Any"),
            ("(NamedTuple)", "from typing import NamedTuple"),
        )
        if used in text
    ]
    if "from typing import Any" in python and "from typing import NamedTuple" in python:
        python = [*python[:-2], "from typing import Any, NamedTuple"]
    lines = [*python, *([""] if python else []), *first, "from flax import nnx"]
    ours = []
    if "F." in text:
        ours.append("from jaxnn import functional as F")
    if "nn." in text.replace("jaxnn.", "").replace("jax.nn.", ""):
        ours.insert(0, "from jaxnn import nn")
    if len(ours) == 2:
        ours = ["from jaxnn import functional as F", "from jaxnn import nn"]
    return "\n".join(lines) + ("\n\n" + "\n".join(ours) if ours else "")


def _mark_arrays(program: torch.export.ExportedProgram, graph: torch.fx.Graph, module: torch.nn.Module) -> None:
    """Note on every placeholder which parameter, buffer or constant it is."""
    kinds = torch.export.graph_signature.InputKind
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
    for node in graph.nodes:
        spec = specs.get(node.name) if node.op == "placeholder" else None
        if spec is None or spec.kind is kinds.USER_INPUT:
            continue
        node.meta["path"] = spec.target
        node.meta["tensor"] = tensors.get(spec.target)
        if spec.kind is kinds.CONSTANT_TENSOR or (spec.kind is kinds.BUFFER and not spec.persistent):
            node.meta["constant"] = program.constants[spec.target]
            if spec.kind is kinds.CONSTANT_TENSOR:
                node.meta["path"] = ""


def _unsupported(author: Author) -> str:
    seen: dict[tuple[str, str], Any] = {}
    for entry in author.unsupported:
        seen.setdefault((entry.operator, entry.reason), entry)
    lines = [
        f"  {entry.operator} in {entry.path or 'the model'}: {entry.line}"
        + (f"  ({entry.reason})" if entry.reason else "")
        for entry in seen.values()
    ]
    return (
        "port: these operators cannot be written in JAX:\n" + "\n".join(lines)
        + '\nAdd one with @parity.register_operator("aten.name.overload"): a function of the operation that returns '
        'its expression, such as op.call("jnp.name", op.self).'
    )  # fmt: skip


def loaded(source: str, name: str, arrays: dict[str, np.ndarray]) -> nnx.Module:
    """The model that ``source`` defines, with ``arrays`` in it."""
    title = f"parity_port_{next(_COUNT)}"
    file = f"<{title}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = types.ModuleType(title)
    sys.modules[title] = namespace
    exec(compile(source, file, "exec"), namespace.__dict__)
    kind = getattr(namespace, name)
    takes_rngs = "rngs" in kind.__init__.__code__.co_varnames if hasattr(kind.__init__, "__code__") else False
    # No array is made before the real ones come.
    module = nnx.eval_shape(lambda: kind(rngs=nnx.Rngs(0)) if takes_rngs else kind())
    nn.load_state_dict(module, arrays)
    for i, (_, variable) in enumerate(nnx.iter_graph(module)):
        if isinstance(variable, nnx.RngKey):
            variable.set_value(jax.random.fold_in(jax.random.key(0), i))
        elif isinstance(variable, nnx.RngCount):
            variable.set_value(jnp.zeros((), jnp.uint32))
    return module


def _set_modes(original: torch.nn.Module, twin: nnx.Module) -> None:
    twin.train() if original.training else twin.eval()
    for path, module in original.named_modules():
        at: Any = twin
        for name in path.split(".") if path else ():
            at = at[int(name)] if isinstance(at, nnx.List) else getattr(at, name, None)
        for attribute in ("deterministic", "use_running_average"):
            if hasattr(at, attribute):
                setattr(at, attribute, not module.training)


class _Flat(torch.nn.Module):
    """A model whose arguments and results are flat."""

    def __init__(self, inner: torch.nn.Module, nested: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.nested = inner, nested
        self.training = inner.training

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Flat":
        # What torch.nn.utils.weight_norm keeps on a module is computed, and torch copies no such tensor.
        for module in self.inner.modules():
            memo |= {id(x): x.detach().clone() for x in vars(module).values() if isinstance(x, torch.Tensor)}
        return _Flat(copy.deepcopy(self.inner, memo), self.nested)

    def forward(self, *leaves: Any) -> Any:
        args, kwargs = self.nested(leaves)
        return tuple(x for x in torch_tree.tree_leaves(self.inner(*args, **kwargs)) if isinstance(x, torch.Tensor))


class _FlatPort(nnx.Module):
    def __init__(self, inner: nnx.Module, nested: Callable[[Any], Any]) -> None:
        self.inner, self.nested = inner, nested

    def __call__(self, *leaves: Any) -> Any:
        args, kwargs = self.nested(leaves)
        return tuple(x for x in ordered_leaves(self.inner(*args, **kwargs)) if isinstance(x, jax.Array))


def ordered_leaves(output: Any) -> Iterator[Any]:
    """What a result holds, in torch's order: ``jax.tree`` would sort the keys of dicts."""
    if dataclasses.is_dataclass(output):
        output = [getattr(output, field.name) for field in dataclasses.fields(output)]
    if isinstance(output, dict | list | tuple):
        for part in output.values() if isinstance(output, dict) else output:
            yield from ordered_leaves(part)
    elif output is not None:
        yield output


def _flat(
    module: torch.nn.Module, twin: nnx.Module, args: Any, kwargs: Any
) -> tuple[_Flat, _FlatPort, tuple[Any, ...]]:
    """Both with arguments and results flattened in one order, and the arguments."""
    leaves, spec = torch_tree.tree_flatten((tuple(args), kwargs))

    def nested(leaves: Any) -> Any:
        return torch_tree.tree_unflatten(list(leaves), spec)

    return _Flat(module, nested), _FlatPort(twin, nested), tuple(leaves)


def checked(module: torch.nn.Module, twin: nnx.Module, args: Any, kwargs: Any, *, gradients: bool = False) -> Report:
    """``parity.check`` of a port."""
    return _as_of_inner(check(*_flat(module, twin, args, kwargs), gradients=gradients))


def _as_of_inner(report: Report) -> Report:
    """The report with the paths of the model itself, not of what flattens its arguments."""

    def path(text: str) -> str:
        return text.removeprefix("inner").lstrip(".")

    report.rows = [replace(row, name=row.name.removeprefix("inner.")) for row in report.rows]
    report.layers = [replace(layer, path=path(layer.path)) for layer in report.layers if layer.kind != _Flat.__name__]
    report.faults = [replace(fault, path=path(fault.path)) for fault in report.faults]
    report.only_torch, report.only_jax = list(map(path, report.only_torch)), list(map(path, report.only_jax))
    if report.first_divergence is not None:
        report.first_divergence = path(report.first_divergence)
    if report.last_right_gradient is not None:
        report.last_right_gradient = path(report.last_right_gradient)
    return report


# A program that runs once need not be fast; XLA's own passes, which decide what is computed, stay as they are.
_RUN_ONCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def verified(module: torch.nn.Module, result: Port, arguments: Any) -> None:
    """Refuse a port whose outputs differ; its layers are looked at only then."""
    original, twin, leaves = _flat(module, result.module, *arguments)
    side = TorchSide(original, (leaves, {}), gradients=False)
    try:
        passed = all(row.passed for row in judged(side, evaluate_jax(twin, side, _RUN_ONCE)))
    except Exception:  # whatever it is, the report says in which layer
        passed = False
    if not passed:
        report = checked(module, result.module, *arguments)
        if not all(row.passed for row in report.rows):
            report.raise_for_divergence()


def another(arguments: Any, captured: Any) -> Any:
    """Arguments of other values, drawn from the example's own, the sizes that are free one larger.

    Args:
        arguments: of the example.
        captured: the same, as export sees them: with symbols for the sizes that are free.
    """
    if not any(isinstance(x, torch.Tensor) and x.ndim for x in torch_tree.tree_leaves(arguments)):
        return None
    generator = torch.Generator().manual_seed(0)

    sizes = {
        free.node.expr: size + 1
        for x, seen in zip(torch_tree.tree_leaves(arguments), torch_tree.tree_leaves(captured), strict=True)
        if isinstance(seen, torch.Tensor)
        for size, free in zip(x.shape, list[Any](seen.shape), strict=True)
        if is_free(free)
    }

    def grown(size: Any) -> int:
        return int(size.node.expr.subs(sizes)) if is_free(size) else int(size)

    def drawn(x: Any, seen: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not x.ndim or not x.numel():
            return x
        shape = [grown(size) for size in seen.shape] if isinstance(seen, torch.Tensor) else x.shape
        picked = torch.randint(0, x.numel(), shape, generator=generator)
        values = x.detach().reshape(-1)[picked]
        if x.is_floating_point() and x.unique().numel() == x.numel():
            # No two were equal: equal ones would leave the order of topk and sort to chance.
            values = values * (1 - torch.rand(values.shape, generator=generator) / 100).to(x.dtype)
        return values

    return torch_tree.tree_map(drawn, arguments, captured)
