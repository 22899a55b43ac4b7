"""Branches that a model takes by what a mask holds, as in ``if mask.any():``.

Export has no values, and sees one branch only. It is shown the one that the example takes. The results are NaN for data
that decide otherwise: the port is never another function than the model.
"""

import linecache
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as torch_tree

from parity.checking.evaluation import seeded
from parity.checking.perturbation import copied
from parity.porting.errors import PortError
from parity.porting.free_sizes import Arguments
from parity.porting.known import Known, memory, traced_node, writes
from parity.porting.selection import inserted

aten = torch.ops.aten

Answers = dict[tuple[str, int, int], bool]
"""What a model decided: by file, line, and how often it had come there."""

_MARK = "decided by the data: "
_MACHINERY = os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__))
_TRIES = 40  # batches, in search for one that decides otherwise
_TELLS_FINITE = ("isfinite", "isnan", "isinf")


class _Questions(TorchFunctionMode):
    """Asks ``answer`` wherever Python decides by one entry of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, int]] = Counter()

    def answer(self, place: tuple[str, int, int], x: torch.Tensor, ask: Callable[[], bool]) -> bool:
        """What is decided at ``place``, where ``ask`` looks at ``x``."""
        raise NotImplementedError

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asks = func is torch.Tensor.__bool__ or (func is torch.Tensor.item and args[0].dtype == torch.bool)
        if not asks or torch.compiler.is_dynamo_compiling():
            return func(*args, **(kwargs or {}))
        line = _line()
        self.counts[line] += 1
        return self.answer((*line, self.counts[line]), args[0], lambda: func(*args))


class _Heard(_Questions):
    """Notes what the data answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: Answers = {}

    def answer(self, place: tuple[str, int, int], x: torch.Tensor, ask: Callable[[], bool]) -> bool:
        """What the data say."""
        self.answers[place] = ask()
        return self.answers[place]


class Decided(_Questions):
    """Answers as the example does, and puts into the graph that it was asked.

    Args:
        answers: of the example.
        known: what answers where no input decides.
        given: takes the answers that were needed.
    """

    def __init__(self, answers: Answers, known: Known, given: Answers) -> None:
        super().__init__()
        self.answers, self.known, self.given = answers, known, given

    def answer(self, place: tuple[str, int, int], x: torch.Tensor, ask: Callable[[], bool]) -> bool:
        """The example's answer, where it is one that may be taken."""
        if place not in self.answers or get_proxy_mode() is None or self.known.knows(x) or not _is_of_masks(x):
            return ask()
        decided = self.given[place] = self.answers[place]
        holds = x.reshape(()).bool()
        aten._assert_async.msg(holds if decided else ~holds, f"{_MARK}{place_text(place)}")
        return decided


def decisions(module: torch.nn.Module, arguments: Arguments) -> Answers:
    """What ``module`` decides by the data that it is given."""
    args, kwargs = arguments
    heard = _Heard()
    with heard, torch.no_grad(), seeded(0):
        copied(module, shared=True)(*args, **kwargs)
    return heard.answers


def either_way(module: torch.nn.Module, arguments: Arguments, decided: Answers) -> Iterator[tuple[Answers, Arguments]]:
    """What a model may be told it decides, whatever the data are: it may do the same, as where nothing is masked.

    Gives a batch with it that decides otherwise than the example, on which that has to be shown; nothing where none is
    found.
    """
    for _, batch in zip(range(_TRIES), _changed(arguments), strict=False):
        try:
            answers = decisions(module, batch)
        except Exception:  # whatever the model says of it
            continue
        if all(answers.get(place, answer) != answer for place, answer in decided.items()):
            yield answers, batch
            yield decided, batch
            return


def _changed(arguments: Arguments) -> Iterator[Arguments]:
    """``arguments`` with one number throughout a mask or ids, or at the end of them."""
    leaves, spec = torch_tree.tree_flatten(arguments)
    for i, x in enumerate(leaves):
        if not isinstance(x, torch.Tensor) or x.is_floating_point() or x.is_complex() or not x.numel():
            continue
        own = x.unique().tolist()
        wholes = dict.fromkeys([*own[:3], own[-1], 1])
        news = [torch.full_like(x, value) for value in wholes] + [_ending(x, value) for value in range(4)]
        for new in news:
            yield torch_tree.tree_unflatten([*leaves[:i], new, *leaves[i + 1 :]], spec)


def _ending(x: torch.Tensor, value: int) -> torch.Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    x.view(-1)[-1] = value
    return x


def place_text(place: tuple[str, int, int]) -> str:
    """The line of the model, and where it stands."""
    file, line, _ = place
    return f"{linecache.getline(file, line).strip()} (at {file}, line {line})"


def guarded(program: torch.export.ExportedProgram) -> None:
    """Let the results be NaN where the data decide otherwise than they did in the example.

    Raises:
        PortError: no result can be NaN.
    """
    graph = program.graph_module.graph
    asked = [node for node in graph.nodes if _is_decision(node)]
    if not asked:
        return
    output = next(node for node in graph.nodes if node.op == "output")
    kinds = [spec.kind for spec in program.graph_signature.output_specs]
    results = [
        x
        for x, kind in zip(output.args[0], kinds, strict=True)
        if kind is torch.export.graph_signature.OutputKind.USER_OUTPUT and _is_floating(x)
    ]
    if not results:
        raise PortError(f"port: no result can be NaN where the data decide otherwise: {asked[0].args[1]}")
    holds, *others = dict.fromkeys(node.args[0] for node in asked)
    for other in others:
        holds = inserted(graph, output, aten.logical_and.default, (holds, other))
    for x in results:
        output.replace_input_with(x, inserted(graph, output, aten.where.ScalarOther, (holds, x, float("nan"))))
    for node in asked:
        graph.erase_node(node)


def _is_decision(node: Node) -> bool:
    return node.target is aten._assert_async.msg and str(node.args[1]).startswith(_MARK)


def _is_floating(x: Any) -> bool:
    value = x.meta.get("val") if isinstance(x, Node) else None
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _is_of_masks(x: torch.Tensor) -> bool:
    """Whether inputs without fractions decide, or whether all is finite: one batch is then as good as the other."""
    try:
        pending = [traced_node(x)]
    except LookupError:
        return False
    writers = [node for node in pending[0].graph.nodes if writes(node)]
    seen: set[Node] = set()
    while pending:
        node = pending.pop()
        if node in seen or any(name in str(node.target) for name in _TELLS_FINITE):
            continue
        seen.add(node)
        if node.op == "placeholder" and _is_floating(node):
            return False
        pending += node.all_input_nodes
        pending += [source for writer in writers if node in memory(writer) for source in writer.all_input_nodes]
    return True


def _line() -> tuple[str, int]:
    """Where the model asks: the innermost line that is neither torch's nor this package's."""
    for frame in _frames():
        if not frame.f_code.co_filename.startswith(_MACHINERY):
            return frame.f_code.co_filename, frame.f_lineno
    return "", 0


def _frames() -> Iterator[Any]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]
