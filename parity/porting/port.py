"""A torch model as JAX source, and the proof that it is the same."""

import gc
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jaxnn import nn
from parity import weights
from parity.arrays import viewed
from parity.checking import DivergenceError, Report
from parity.porting.errors import PortError, first_line, refuse_wide
from parity.porting.graph.capture import Capture, captured
from parity.porting.graph.deciding import place_text
from parity.porting.graph.differentiation import is_derivative
from parity.porting.graph.exporting import forgotten
from parity.porting.graph.free_sizes import Arguments, has_free_sizes
from parity.porting.graph.otherwise import witnesses
from parity.porting.loading import loaded, set_modes
from parity.porting.proof.batches import other_trials
from parity.porting.proof.verification import Trial, checked
from parity.porting.source.classes import Author
from parity.porting.source.signature import Face
from parity.porting.source.tree import call_tree


class Port:
    """A torch model's JAX twin.

    Attributes:
        source: Python source of ``nnx.Module`` classes; the last is the model.
        module: an instance of it, weights loaded.
        arrays: these weights by the original's paths, to be read; in memory they are the module's.
        name: of the model's class.
        notes: what was fixed while porting.
    """

    def __init__(self, source: str, name: str, arrays: dict[str, np.ndarray], notes: list[str]) -> None:
        self.source, self.name, self.notes = source, name, notes
        self.module = loaded(source, name, arrays)
        # The module's own memory where that holds the same; numbers of a dtype that JAX lacks are copied.
        held = {path: np.asarray(array) for path, array in nn.state_dict(self.module).items()}
        self.arrays = {path: held[path] if held[path].dtype == x.dtype else x.copy() for path, x in arrays.items()}
        self._report: Report | None = None
        self._subject: tuple[torch.nn.Module, Any, Any] | None = None
        self._forgets = False

    @property
    def report(self) -> Report:
        """The port held against the original on the example's inputs: outputs, gradients, buffers."""
        if self._report is None:
            if self._subject is None:
                raise PortError("port: a port without its original has no report")
            original, args, kwargs = self._subject
            with forgotten(original, self._forgets):
                self._report = checked(original, self.module, args, kwargs, gradients=True)
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


@contextmanager
def _old_objects_kept() -> Iterator[None]:
    """The garbage collector leaves alone what was there before: to look through torch and its models takes it long."""
    if gc.get_freeze_count():
        yield  # the caller's own affair
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@_old_objects_kept()
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

    ``torch.export`` traces the model on the example inputs. The first axis of every input as long as the first input's
    is free in the port, also where that is one; the other sizes are the example's, and others are refused where the
    model makes something else of them than its graph does. Where a free axis cannot be exported or written, that one
    has the example's size too, and ``notes`` says so.

    Args:
        module: the model; read, not changed. Its mode, training or evaluation, is the port's.
        args: positional arguments; one tensor alone need not be in a tuple.
        kwargs: keyword arguments.
        dynamic_shapes: of ``torch.export``, where other axes are to be free; what it says of an axis that cannot be
            is the error.
        verify: compare outputs on the example and on another batch, there with other numbers for weights that would
            hide what they multiply (all one, or nearly zero), and refuse a port that differs. The model runs on a copy
            meanwhile.
        progress: told what is begun: exporting, writing, running the model, loading, comparing.

    Raises:
        PortError: export refuses the model, or operators are unsupported (all of them are named, with module and
            line).
        DivergenceError: the port differs from the model; the error is the report. Gradients are compared where the
            model has an ``autograd.Function`` of its own.
    """
    arguments = (tuple(args) if isinstance(args, tuple | list) else (args,), kwargs or {})
    progress("exporting")
    capture = captured(module, arguments, dynamic_shapes)
    if verify and capture.decided and capture.general.keys() == capture.decided.keys():
        shown = witnesses(module, arguments, capture.general | capture.skipped)
        try:
            if shown is not None:
                told = captured(module, arguments, dynamic_shapes, told=capture.general | capture.skipped)
                return _ported(told, module, arguments, dynamic_shapes, shown, progress)
        except (PortError, DivergenceError):
            pass  # it matters what the data decide
    batches = witnesses(module, arguments, capture.skipped) if verify else None
    if verify and batches is None:
        raise PortError(f"port: nothing shows what the model does otherwise: {place_text(next(iter(capture.skipped)))}")
    try:
        return _ported(capture, module, arguments, dynamic_shapes, batches, progress)
    except DivergenceError as error:  # what cannot be written has been tried with the example's sizes, too
        if not capture.widened:
            raise
        why = f"with more rows, {first_line(error)}"
    return _ported(captured(module, arguments, None, fixed=why), module, arguments, None, batches, progress)


def _ported(
    capture: Capture,
    module: torch.nn.Module,
    arguments: Arguments,
    dynamic_shapes: dict[str, Any] | None,
    batches: list[Arguments] | None,
    progress: Callable[[str], None],
) -> Port:
    """What was captured as a port; compared on the example, on ``batches`` and on others, if these are not None."""
    if batches is not None:
        refuse_wide(capture.graph)
    progress("writing")
    try:
        face, author, source = _written(capture, module)
    except PortError:
        if dynamic_shapes is not None or not has_free_sizes(capture.graph):
            raise
        # How many entries a mask picks that no input decides may be known once the sizes are.
        told = capture.decided | capture.skipped if capture.told else None
        why = "what depends on them cannot be written while they are free"
        capture = captured(module, arguments, None, fixed=why, told=told)
        face, author, source = _written(capture, module)
    trials: list[Trial] = []
    if batches is not None:
        progress("running the model")
        differentiates = any(map(is_derivative, capture.graph.nodes))
        with forgotten(module, capture.forgets):
            trials = [Trial(module, given, differentiates) for given in (arguments, *batches)]
            trials += other_trials(capture, module, arguments, face.given, differentiates)
    progress("loading")
    tensors = {path: x for path, x in (module.state_dict() | author.arrays).items() if isinstance(x, torch.Tensor)}
    arrays = {path: viewed(x) for path, x in tensors.items()}
    result = Port(source, author.drafts[""].class_name, arrays, capture.notes)
    set_modes(module, result.module)
    result._subject, result._forgets = (module, *arguments), capture.forgets
    if batches is not None:
        progress("comparing")
        with forgotten(module, capture.forgets):
            _proven(result, trials, own_gradients=bool(capture.recording.own_gradients))
            if capture.recording.changed and trials[0].goes_on():
                kept = ", ".join(sorted(capture.recording.changed))
                raise PortError(
                    f"port: the model goes on from what it keeps in {kept}; make it a buffer, or an argument"
                )
    return result


def _proven(result: Port, trials: list[Trial], *, own_gradients: bool) -> None:
    """Refuse a port that differs; what cannot be compared is noted.

    Args:
        result: the port.
        trials: on the example first.
        own_gradients: whether the model defines some, which are compared, too.
    """
    with ThreadPoolExecutor(len(trials)) as threads:
        for trial in trials:
            trial.begin(result.module, threads)
        trials[0].judge()
        if own_gradients:
            refusal = trials[0].gradients_refused()
            if refusal is None:
                result.report.raise_for_divergence()
            else:
                result.notes.append(f"the gradients that the model defines itself could not be compared: {refusal}")
        for trial in trials[1:]:
            try:
                trial.judge()
            except PortError as error:
                result.notes.append(f"not compared on another batch: {error}")


def _written(capture: Capture, module: torch.nn.Module) -> tuple[Face, Author, str]:
    """The source of what was captured."""
    _mark_arrays(capture.program, capture.graph, module)
    root = call_tree(capture, module)
    face = Face(capture, root, module)
    author = Author(module, root, set(face.classes))
    classes = [*face.classes.values(), *author.write(face)]
    if author.unsupported:
        raise PortError(_unsupported(author))
    header = _HEADER.format(imports=_imports("\n".join(classes)), model=type(module).__name__)
    return face, author, header + "\n\n\n".join(classes) + "\n"


_HEADER = '''"""{model}, ported from PyTorch."""

{imports}


'''


def _imports(text: str) -> str:
    python = ["import math"] if re.search(r"\bmath\.", text) else []
    first = [line for used, line in (("jax.", "import jax"), ("jnp.", "import jax.numpy as jnp")) if used in text]
    python += ["from dataclasses import dataclass"] if "@dataclass" in text else []
    typed = [
        name
        for name, used in (("Any", r"^    \w+: .*\bAny\b"), ("NamedTuple", r"\(NamedTuple\):"))
        if re.search(used, text, re.MULTILINE)
    ]
    python += [f"from typing import {', '.join(typed)}"] if typed else []
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
