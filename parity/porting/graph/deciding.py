"""Branches that a model takes by what a mask holds, as in ``if mask.any():``.

Export has no values, and sees one branch only. It is shown the one that the example takes, and the results are NaN for
data that decide otherwise.

Where ``any`` or ``all`` is asked of a whole mask, one of the two answers says all of it: that no entry is set, or every
one. The port then may take the other branch always. It is the model's wherever the mask is not of that kind, and has to
be shown to give the same where it is.
"""

import linecache
from collections import Counter
from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.overrides import TorchFunctionMode

from parity.checking.evaluation import seeded
from parity.checking.perturbation import copied
from parity.porting.errors import DECIDES, PortError
from parity.porting.graph.free_sizes import Arguments
from parity.porting.graph.known import Known, memory, traced_node, writes
from parity.porting.graph.nodes import is_floating, packet, writes_input
from parity.porting.graph.selection import inserted
from parity.porting.graph.skipping import NOT, SAME, asked_mask, picked, rows_of, where_some
from parity.porting.lines import model_line

aten = torch.ops.aten

Answers = dict[tuple[str, int, int], bool]
"""What a model decided: by file, line, and how often it had come there; less than zero where it picked by a mask."""

_MARK = "decided by the data: "
_TELLS_FINITE = ("isfinite", "isnan", "isinf")
_BY_ENTRY = {"eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "bitwise_and", "bitwise_or"} | SAME | NOT
"""Operators of which every entry of a mask is made by itself, and every entry of what they are given counts."""


class _Questions(TorchFunctionMode):
    """Asks ``answer`` wherever Python decides by one entry of a tensor.

    Args:
        compares: whether ``x.item()`` of an integer is to stay a tensor, so that what it is compared with shows.
    """

    def __init__(self, compares: bool) -> None:
        super().__init__()
        self.compares = compares
        self.counts: Counter[tuple[str, int]] = Counter()
        self.picks: Counter[tuple[str, int]] = Counter()

    def answer(self, place: tuple[str, int, int], x: torch.Tensor, ask: Callable[[], bool]) -> bool:
        """What is decided at ``place``, where ``ask`` looks at ``x``."""
        raise NotImplementedError

    def note(self, place: tuple[str, int, int], found: torch.Tensor) -> None:
        """Take note of what was picked by a mask at ``place``."""
        raise NotImplementedError

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = func is torch.Tensor.item and not torch.compiler.is_dynamo_compiling()
        if reads and self.compares and is_of_integers(args[0]) and args[0].dtype != torch.bool:
            return args[0].reshape(())
        asks = func is torch.Tensor.__bool__ or (reads and args[0].dtype == torch.bool)
        if not asks or torch.compiler.is_dynamo_compiling():
            result = func(*args, **(kwargs or {}))
            if (found := picked(func, args, kwargs, result)) is not None:
                line = model_line()
                self.picks[line] -= 1
                self.note((*line, self.picks[line]), found)
            return result
        line = model_line()
        self.counts[line] += 1
        return self.answer((*line, self.counts[line]), args[0], lambda: func(*args))


class _Heard(_Questions):
    """Notes what the data answer."""

    def __init__(self, compares: bool) -> None:
        super().__init__(compares)
        self.answers: Answers = {}

    def answer(self, place: tuple[str, int, int], x: torch.Tensor, ask: Callable[[], bool]) -> bool:
        """What the data say."""
        self.answers[place] = ask()
        return self.answers[place]

    def note(self, place: tuple[str, int, int], found: torch.Tensor) -> None:
        """Whether there is any."""
        self.answers[place] = found.numel() > 0


class Decided(_Questions):
    """Answers as the example does, and puts into the graph that it was asked.

    Args:
        answers: of the example.
        known: what answers where no input decides.
        given: takes the answers that were needed.
        general: takes, of those that are asked of a whole mask, the one that leaves it open.
        skipped: takes, where inputs with fractions decide whether nothing is picked, the answer that some is.
        compares: as the answers were heard.
    """

    def __init__(
        self, answers: Answers, known: Known, given: Answers, general: Answers, skipped: Answers, compares: bool
    ) -> None:
        super().__init__(compares)
        self.answers, self.known, self.given, self.general, self.skipped = answers, known, given, general, skipped
        self._masks: list[tuple[Node, tuple[str, int, int]]] = []
        self._rows: dict[sympy.Symbol, tuple[str, int, int]] = {}

    def note(self, place: tuple[str, int, int], found: torch.Tensor) -> None:
        """The symbols for how many there are."""
        self._rows |= dict.fromkeys(rows_of(found), place)

    def of_size(self, asked: sympy.Basic) -> bool | None:
        """That some is picked, where that is asked."""
        symbol = next(iter(asked.free_symbols), None)
        place = self._rows.get(symbol)
        if len(asked.free_symbols) != 1 or place not in self.answers:
            return None
        answer = where_some(lambda n: asked.subs(symbol, n) == sympy.true)
        if answer is not None:
            self.skipped[place] = True
        return answer

    def unused(self) -> tuple[str, int, int] | None:
        """Where a mask is asked that is used for nothing else: the answer does not say what the model does by it."""
        return next((place for mask, place in self._masks if len(mask.users) < 2), None)

    def answer(self, place: tuple[str, int, int], x: torch.Tensor, ask: Callable[[], bool]) -> bool:
        """The example's answer, where it is one that may be taken."""
        if place not in self.answers or get_proxy_mode() is None or self.known.knows(x):
            return ask()
        if not _is_of_masks(x):
            found = asked_mask(traced_node(x))
            if found is None:
                return ask()
            self._masks.append((found[0], place))
            self.skipped[place] = found[1]
            return found[1]
        decided = self.given[place] = self.answers[place]
        if (general := _general(traced_node(x))) is not None:
            self.general[place] = general
        holds = x.reshape(()).bool().clone()  # what it is now
        aten._assert_async.msg(holds if decided else ~holds, f"{_MARK}{place_text(place)}")
        return decided


def decisions(module: torch.nn.Module, arguments: Arguments, compares: bool = False) -> Answers:
    """What ``module`` decides by the data that it is given; see :class:`_Questions`."""
    args, kwargs = arguments
    heard = _Heard(compares)
    with heard, torch.enable_grad(), seeded(0):
        copied(module, shared=True)(*args, **kwargs)
    return heard.answers


def is_of_integers(x: Any) -> bool:
    """Whether ``x`` is a tensor of numbers without fractions."""
    return isinstance(x, torch.Tensor) and not x.is_floating_point() and not x.is_complex() and x.numel() > 0


def _general(node: Node) -> bool | None:
    """The answer that leaves a mask open, if ``node`` is whether any, or every, entry of a whole one is set."""
    negated = False
    while packet(node) in SAME | NOT:
        negated ^= packet(node) in NOT
        node = node.all_input_nodes[0]
    if packet(node) not in ("any", "all") or len(node.args) != 1:
        return None
    pending = list(node.all_input_nodes)
    while pending:
        part = pending.pop()
        if part.op == "placeholder" and is_floating(part):
            return None
        if part.op != "placeholder" and packet(part) not in _BY_ENTRY:
            return None
        pending += part.all_input_nodes
    return (packet(node) == "any") != negated


def place_text(place: tuple[str, int, int]) -> str:
    """The line of the model, and where it stands."""
    file, line, _ = place
    return f"{linecache.getline(file, line).strip()} (at {file}, line {line})"


def unguarded(program: torch.export.ExportedProgram) -> None:
    """Forget that the data were asked."""
    for part in program.graph_module.modules():
        for node in list(part.graph.nodes) if isinstance(part, torch.fx.GraphModule) else []:
            if _is_decision(node):
                part.graph.erase_node(node)


def guarded(program: torch.export.ExportedProgram) -> None:
    """Let the results, and their gradients, be NaN where the data decide otherwise than they did in the example.

    Raises:
        PortError: something that the model leaves cannot be NaN.
    """
    graph = program.graph_module.graph
    asked = [node for node in graph.nodes if _is_decision(node)]
    if not asked:
        return
    output = next(node for node in graph.nodes if node.op == "output")
    kinds = [spec.kind for spec in program.graph_signature.output_specs]
    user_output = torch.export.graph_signature.OutputKind.USER_OUTPUT
    results = [x for x, kind in zip(output.args[0], kinds, strict=True) if kind is user_output and x is not None]
    writes_buffer = any(map(writes_input, graph.nodes))
    if writes_buffer or not all(_is_inexact(x) for x in results):
        what = "what is written into a buffer" if writes_buffer else "a result without fractions"
        raise PortError(f"port: {what} cannot be NaN where the data decide otherwise; {asked[0].args[1]}; {DECIDES}")
    holds, *others = dict.fromkeys(node.args[0] for node in asked)
    for other in others:
        holds = inserted(graph, output, aten.logical_and.default, (holds, other))
    one = inserted(graph, output, aten.where.Scalar, (holds, 1.0, float("nan")))
    for x in dict.fromkeys(results):
        output.replace_input_with(x, inserted(graph, output, aten.mul.Tensor, (x, one)))
    unguarded(program)


def constants(program: torch.export.ExportedProgram) -> bool:
    """Whether some results are Python's own, which were decided while the model was exported."""
    arguments = [spec.arg for spec in program.graph_signature.output_specs]
    return any(getattr(x, "value", None) is not None for x in arguments)


def _is_decision(node: Node) -> bool:
    return node.target is aten._assert_async.msg and str(node.args[1]).startswith(_MARK)


def _is_inexact(x: Any) -> bool:
    return isinstance(x, Node) and (is_floating(x) or x.meta["val"].is_complex())


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
        by_chance = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if by_chance or (node.op == "placeholder" and is_floating(node)):
            return False
        pending += node.all_input_nodes
        pending += [source for writer in writers if node in memory(writer) for source in writer.all_input_nodes]
    return True
