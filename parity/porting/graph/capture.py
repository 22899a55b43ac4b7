"""A torch model as a graph of PyTorch's own operators, with every module call noted."""

import inspect
import warnings
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as torch_tree

from parity.checking.results import containing
from parity.porting.errors import DECIDES, PortError, first_line, refused
from parity.porting.graph.deciding import Answers, Decided, constants, decisions, guarded, place_text, unguarded
from parity.porting.graph.decomposition import decomposed
from parity.porting.graph.differentiation import differentiable
from parity.porting.graph.draws import Draws, with_both_rates
from parity.porting.graph.exporting import (
    Distinct,
    as_eager,
    counted,
    forgotten,
    kept,
    kept_tensors,
    located,
    named,
    quiet,
    unchecked,
    unmoved,
)
from parity.porting.graph.fixed_sizes import fixed_axes, same_of_one
from parity.porting.graph.flexible import flexible
from parity.porting.graph.free_sizes import (
    Arguments,
    batch_axes,
    first_size,
    fixed_inputs,
    has_free_sizes,
    holds,
    is_of_one_only,
    limits_of,
    looked_at,
    more_than_one,
    squeezed,
)
from parity.porting.graph.functionalization import copied_out, functionalized, unbroadcast
from parity.porting.graph.grouping import grouped
from parity.porting.graph.known import Known
from parity.porting.graph.nodes import traced_name
from parity.porting.graph.normalizing import normalized
from parity.porting.graph.own_gradients import with_own_gradients
from parity.porting.graph.packing import Packings, unpacked
from parity.porting.graph.places import padded
from parity.porting.graph.recording import Recording, recorded
from parity.porting.graph.regions import inlined
from parity.porting.graph.reshapes import joined
from parity.porting.graph.row_ends import row_ends
from parity.porting.graph.selection import kept_whole
from parity.porting.graph.skipping import sizes_asked
from parity.porting.graph.transforms import transformed
from parity.porting.graph.unseen import unseen
from parity.porting.graph.valueless import Valueless, averaged


@dataclass
class Capture:
    """What export found.

    Attributes:
        recording: of the calls of modules, and of what else was noticed on the way.
        notes: what is to be said of it.
        forgets: whether it was exported without the tensors that modules keep of earlier calls.
        skips: whether a loop of it passes over what does not occur, and was exported as if all did.
        limits: what held of the free sizes where the model looked at them: it may do otherwise where it does not.
        fixed: the axes of inputs, by name, whose size has to be the example's.
        decided: what the data decide, where the model had to be told while it was exported.
        general: the answer that leaves a mask open, of those that are asked of a whole one.
        skipped: where the model passes over what picks nothing, and was exported as if it did not.
        told: whether it was told so for all data, not for such as decide so.
        widened: whether it was exported with more rows than the example's one, so that their number is free.
    """

    program: torch.export.ExportedProgram
    recording: Recording
    notes: list[str]
    forgets: bool = False
    skips: bool = False
    limits: list[sympy.Basic] = field(default_factory=list)
    fixed: dict[str, list[int]] = field(default_factory=dict)
    decided: Answers = field(default_factory=dict)
    general: Answers = field(default_factory=dict)
    skipped: Answers = field(default_factory=dict)
    told: bool = False
    widened: bool = False

    @property
    def graph(self) -> torch.fx.Graph:
        """Of the whole model."""
        return self.program.graph_module.graph


def captured(
    module: torch.nn.Module,
    arguments: Arguments,
    dynamic: dict[str, Any] | None,
    *,
    fixed: str = "",
    told: Answers | None = None,
) -> Capture:
    """``module`` exported with its first axes of equal size free, or as free as export allows.

    Args:
        module: the model.
        arguments: of the example.
        dynamic: of ``torch.export``, where other axes are to be free.
        fixed: why no axis is to be free, if none is.
        told: what it is to take for decided by the data, whatever they are; None for what the example decides, where
            that has to be known, and nothing else.
    """
    arguments = _apart(arguments)
    forgetting = [True, False] if kept_tensors(module) else [False]  # a model may also need what it keeps
    examples: list[tuple[Arguments, dict[str, Any] | None]] = [(arguments, dynamic)]
    if dynamic is None and not fixed:
        signature = inspect.signature(module.forward)
        examples = [(wide, batch_axes(wide, signature)) for wide in more_than_one(arguments)] + examples
    ways = list(product(forgetting, examples, (False, True)))
    found, errors = _first(module, ways, told or {})
    for compares in (False, True):
        if found is None and told is None and any(isinstance(x, GuardOnDataDependentSymNode) for x in errors):
            try:
                answers = decisions(module, arguments, compares)
            except Exception:  # what the model raises, export has raised
                answers = {}
            found, errors = _first(module, ways, answers, compares) if answers else (None, errors)
    if found is None:
        raise refused(errors[-2]) from errors[-2]
    attempt, program = found
    graph = program.graph_module.graph
    attempt.known.refuse_moving(program)
    notes: list[str] = []
    if fixed:
        notes.append(f"sizes are fixed to the example's: {fixed}")
    elif attempt.sizes is None:
        alike = zip(ways, errors, strict=False)
        first = next(error for (forgets, _, _), error in alike if forgets == attempt.forgets)  # with free sizes
        notes.append(f"sizes are fixed to the example's: {first_line(first)}")
    if attempt.packings.cut:
        notes.append("pad_packed_sequence gives as many steps as there were; torch cuts them to the longest sequence")
    if attempt.valueless.counts:
        notes.append("bincount gives as many entries as its minlength; torch gives more where a number is larger")
    size = first_size(attempt.arguments)
    left = fixed_inputs(program, size) if dynamic is None and size > 1 else []
    if left and not notes:
        which = f"sizes of {', '.join(left)}" if has_free_sizes(graph) else "sizes"
        notes.append(f"{which} are fixed to the example's: the model computes with them as Python numbers")
    notes += [
        f"{name} in the result is {'written as the arrays that it holds' if holds_any else 'None: it holds no array'}"
        for name, holds_any in attempt.objects.items()
    ]
    with forgotten(module, attempt.forgets):
        axes = fixed_axes(module, attempt.arguments, program, left)
        limits = limits_of(graph, attempt.asked)
        of_one = any(map(is_of_one_only, limits)) and not any(squeezed(graph))  # which JAX does where it is written
        if of_one and same_of_one(module, attempt.arguments, program):
            limits = [limit for limit in limits if not is_of_one_only(limit)]
        notes += dict.fromkeys(with_both_rates(module, attempt.arguments, attempt.draws, graph))
    capture = Capture(
        program,
        attempt.recording,
        notes,
        attempt.forgets,
        attempt.known.skips,
        limits,
        axes,
        attempt.decided,
        attempt.general,
        attempt.skipped,
        told is not None,
        attempt.arguments is not arguments,
    )
    if capture.widened and not all(holds(limit, 1) for limit in capture.limits):
        return captured(
            module, arguments, None, fixed="the model does something else with more than one row", told=told
        )
    if told is None:
        lines = dict.fromkeys(map(place_text, capture.decided))
        notes += [f"NaN where the data decide otherwise than in the example: {line}" for line in lines]
    asked = capture.decided | capture.skipped
    if asked and constants(program):
        raise PortError(f"port: a result that is no array is decided by the data: {place_text(next(iter(asked)))}")
    _rewrite(capture)
    return capture


def _first(
    module: torch.nn.Module, ways: list[Any], answers: Answers, compares: bool = False
) -> tuple[tuple["_Attempt", torch.export.ExportedProgram] | None, list[Exception]]:
    """The first way to export a model that succeeds, and what the ways before it raised."""
    errors: list[Exception] = []
    for forgets, (arguments, sizes), eager in ways:
        spare: set[tuple[str, int]] = set()
        while True:
            attempt = _Attempt(module, arguments, forgets, sizes, eager, answers, compares)
            attempt.known.spare = spare
            try:
                return (attempt, attempt.exported()), errors
            except Exception as error:
                loop = attempt.known.loop
                if isinstance(error, LookupError) and loop is not None and loop not in spare:
                    spare.add(loop)  # which asks for one expert more than there are
                    continue
                errors.append(error)
                break
    return None, errors


class _Attempt:
    """One way to export a model."""

    def __init__(
        self,
        module: torch.nn.Module,
        arguments: Arguments,
        forgets: bool,
        sizes: dict[str, Any] | None,
        eager: bool,
        answers: Answers,
        compares: bool,
    ) -> None:
        self.module, self.arguments, self.sizes = module, arguments, sizes
        self.forgets, self.eager, self.answers, self.compares = forgets, eager, answers, compares
        self.recording, self.packings, self.known, self.valueless = Recording(), Packings(), Known(module), Valueless()
        self.asked: set[sympy.Basic] = set()
        self.draws = Draws(module)
        self.decided: Answers = {}
        self.general: Answers = {}
        self.skipped: Answers = {}
        self.objects: dict[str, bool] = {}

    def exported(self) -> torch.export.ExportedProgram:
        args, kwargs = torch_tree.tree_map(_unmarked, self.arguments)
        decided = Decided(self.answers, self.known, self.decided, self.general, self.skipped, self.compares)
        with ExitStack() as stack:
            for context in (
                with_own_gradients(self.recording.own_gradients),
                as_eager() if self.eager else nullcontext(),
                forgotten(self.module, self.forgets),
                quiet(),
                located(),
                counted(self.module),
                named(self.module, kwargs),
                unchecked(),
                unmoved(),
                torch.backends.opt_einsum.flags(enabled=False),  # it would look at sizes, and fix those that are free
                unpacked(self.packings),
                differentiable(),
                transformed(self.recording.own_gradients),
                flexible(),
                averaged(),
                torch.enable_grad(),
                sizes_asked(decided.of_size),
                looked_at(self.asked),
            ):
                stack.enter_context(context)
            changes = stack.enter_context(kept(self.module))
            stack.enter_context(recorded(self.module, self.recording, changes))
            stack.enter_context(containing(self.module, self.objects))
            branches = [decided] if self.answers else []
            for noting in (Distinct(), self.valueless, self.known, self.draws, *branches):
                stack.enter_context(noting)
            program = torch.export.export(self.module, args, kwargs, strict=False, dynamic_shapes=self.sizes)
        if (place := decided.unused()) is not None:
            raise PortError(f"port: the data decide: {place_text(place)}; {DECIDES}")
        return program


def _rewrite(capture: Capture) -> None:
    """Put the graph into the form that is written down, and call its nodes by their names there."""
    same: dict[str, torch.fx.Node] = {}
    buffers = {*capture.program.graph_signature.inputs_to_buffers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # symbolic sizes stand in the graph as they are
        for part in capture.program.graph_module.modules():  # branches of torch.cond among them
            if isinstance(part, torch.fx.GraphModule):
                try:
                    inlined(part)
                    if part is capture.program.graph_module and capture.decided:
                        (unguarded if capture.told else guarded)(capture.program)
                    same |= unbroadcast(part.graph)
                    copied_out(part.graph)
                    decomposed(part)
                    unseen(part.graph, functionalized(part.graph), buffers)
                    kept_whole(part.graph)
                    row_ends(part.graph)
                    grouped(part.graph)
                    padded(part.graph)
                    joined(part.graph)
                    normalized(part.graph)
                except NotImplementedError as error:
                    raise PortError(f"port: {error} cannot be written in JAX") from error
    final = _placeholder_names(capture.program)
    for node in sorted(capture.graph.nodes, key=lambda node: "traced" not in node.meta):
        if node.op != "placeholder":
            final.setdefault(traced_name(node), node.name)
    final |= {name: final.get(traced_name(node), node.name) for name, node in same.items()}
    for node in capture.graph.nodes:
        if "behind" in node.meta:
            node.meta["behind"] = final[node.meta["behind"]]
    capture.recording.rename(final)


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


def _unmarked(x: Any) -> Any:
    """A tensor of its own, with the same numbers: export marks free sizes on it, and where it fails the marks stay."""
    return x.detach().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x


def _placeholder_names(program: torch.export.ExportedProgram) -> dict[str, str]:
    """The final names of placeholders by the ones they were traced under."""
    kinds = torch.export.graph_signature.InputKind
    traced = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind not in (kinds.CONSTANT_TENSOR, kinds.CUSTOM_OBJ, kinds.TOKEN) and hasattr(spec.arg, "name")
    ]
    return {f"arg{i}_1": name for i, name in enumerate(traced)}
