"""Training runs side by side: the same weights, the same batches in the same order."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optax
import torch
from flax import nnx

from parity.arrays import to_numpy
from parity.checking import generators
from parity.checking.branching import branches_taken
from parity.checking.clipping import SMALL, Clipped, clipping_noted
from parity.checking.evaluation import as_tensor
from parity.checking.fault import Fault
from parity.checking.innermost import Group, step_with, steps_made
from parity.checking.interception import refuse_within_jit
from parity.checking.keeping import kept
from parity.checking.pairing import aliases, under_torchs
from parity.checking.parting import explained, rerunning
from parity.checking.perturbation import doubled, nudged, perturbed
from parity.checking.report import Report
from parity.checking.runs import WINDOW, Batch, Parting, Step, TorchOptimizer, jax_steps, torch_steps
from parity.checking.tree import aligned_paths
from parity.comparison import FACTOR, FAR, Comparison, compare

WITNESSES = 3
"""So many more float32 runs of torch, each from weights moved by a unit in the last place, are asked before a run that
has left its path is called wrong."""

HUGE = 1e12
"""Where a float32 run has grown so large, the next steps overflow."""

SHORT, LASTING, GROSS = 8, 4, 10.0
"""In a run of more than ``SHORT`` steps an error less than ``GROSS`` times what is allowed must last ``LASTING``
steps."""

PLAYS = (
    "the model draws numbers from Python's or NumPy's generator: the port was compiled anew for each step; "
    "compiled once, it would repeat those of the first"
)


@dataclass
class Runs:
    """Both runs, as far as they are kept.

    Attributes:
        report: the verdict.
        torch_state: torch's parameters and buffers behind the last step.
        jax_state: JAX's.
    """

    report: Report
    torch_state: dict[str, np.ndarray] = field(default_factory=dict)
    jax_state: dict[str, np.ndarray] = field(default_factory=dict)


@branches_taken()
def check_training(
    torch_model: torch.nn.Module,
    jax_model: nnx.Module,
    torch_optimizer: TorchOptimizer,
    optax_transform: optax.GradientTransformation,
    loss: Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]],
    batches: Iterable[Batch],
    steps: int | None = None,
    *,
    seed: int = 0,
    factor: float = FACTOR,
) -> Report:
    """Train both models from the weights they have and compare them step by step; neither model is changed.

    Losses, parameters, running statistics and what the optimizer keeps are compared behind every step. The report
    names the step and the tensor at which the runs part.

    The truth is the same run in float64. A run that rounding alone would send elsewhere (a high learning rate) is not
    held against JAX: the distance of further torch runs, from weights moved by a unit in the last place or half of
    one, counts as explained.

    Args:
        torch_model: in the mode (train or eval) to be run in.
        jax_model: its port, with the same weights.
        torch_optimizer: makes the optimizer from the parameters, such as ``lambda p: torch.optim.SGD(p, lr=0.1)``.
        optax_transform: the same, such as ``jaxnn.optim.SGD(lr=0.1)``.
        loss: ``loss(model, *batch)``; a pair where torch and JAX need one each.
        batches: tuples of arrays, used in order and from the front again when they run out.
        steps: how many; as many as there are batches unless given.
        seed: of the generators of torch, Python and NumPy.
        factor: how many times the error that rounding explains may pass.
    """
    return compare_runs(
        torch_model, jax_model, torch_optimizer, optax_transform, loss, batches, steps, seed=seed, factor=factor
    ).report


def compare_runs(
    torch_model: torch.nn.Module,
    jax_model: nnx.Module,
    torch_optimizer: TorchOptimizer,
    optax_transform: optax.GradientTransformation,
    loss: Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]],
    batches: Iterable[Batch],
    steps: int | None = None,
    *,
    seed: int = 0,
    factor: float = FACTOR,
    follows: bool = False,
) -> Runs:
    """As :func:`check_training`, with the state both runs end in; where the runs cannot but part (``follows``), because
    something is wrong before any update, no reason is looked for."""
    refuse_within_jit("check_training")
    torch_loss, jax_loss = loss if isinstance(loss, tuple) else (loss, loss)
    batches = [tuple(as_tensor(x) for x in batch) for batch in batches]
    if not batches:
        raise ValueError("check_training: batches must hold at least one batch, got none")
    order = [batches[i % len(batches)] for i in range(len(batches) if steps is None else steps)]
    exact = [tuple(doubled(x) for x in batch) for batch in order]

    twins = aliases(torch_model, jax_model, aligned_paths(torch_model, jax_model))
    state = dict((*torch_model.named_parameters(remove_duplicate=False), *torch_model.named_buffers()))

    before = (
        Step(np.empty(0), {pair.name: to_numpy(state[pair.name]) for pair in twins.values() if pair.name in state}),
        Step(np.empty(0), under_torchs({name: pair.ours for name, pair in twins.items()}, twins)),
    )

    def run(witnesses: int, exact_clipping: bool = False) -> _Judge:
        drawn: list[torch.Tensor] = []

        def draws(_: int) -> list[torch.Tensor]:
            return drawn

        def torch_run(model: torch.nn.Module, batches: Sequence[Batch]) -> Any:
            return torch_steps(model, torch_optimizer, torch_loss, batches, draws)

        single = torch_steps(copy.deepcopy(torch_model), torch_optimizer, torch_loss, order)
        others = [torch_run(doubled(torch_model), exact)]
        for far in (1.0, FAR):
            moved = perturbed(torch_model, far, _generator(seed))
            others.append(torch_steps(moved, torch_optimizer, torch_loss, exact, draws, _in_single))
        others += [torch_run(nudged(torch_model, _generator(seed + 1 + i)), order) for i in range(witnesses)]
        port = jax_steps(jax_model, optax_transform, jax_loss, order, draws, twins)
        judge = _Judge(factor, before, len(order))
        with generators.all_seeded(seed), kept(jax_model), clipping_noted(exact_clipping) as judge.clipped:
            for _ in order:
                before_step = generators.place()

                def stepped(run: Iterator[Step], place: Any = before_step) -> Step:
                    """A step that draws what torch's has drawn."""
                    generators.set_place(place)
                    return next(run)

                theirs = stepped(single)
                behind = generators.place()
                judge.plays |= generators.comparable(behind[1]) != generators.comparable(before_step[1])
                drawn[:] = theirs.draws
                judge.step(theirs, *map(stepped, others), found=stepped(port))
                generators.set_place(behind)
        return judge

    judge = run(0)
    if judge.numeric:
        # Few runs may agree by luck on where a chaotic one goes; more are asked only then.
        judge = run(WITNESSES)
    reason = ""
    if judge.numeric and judge.clipped.part:
        unlike = run(WITNESSES, exact_clipping=True)
        if unlike.passed:
            reason = str(judge.clipped)
            judge = unlike if judge.clipped.part <= SMALL else judge
    found = judge.runs()
    if reason and not found.report.passed:
        assert judge.fault is not None
        found.report.faults = [replace(judge.fault, suspect="clipping", reason=f"{judge.fault.what}; {reason}")]
    elif reason:
        found.report.notes.append(f"{reason}, and for nothing else; jaxnn.optim.clip_grad_norm_ has torch's")
    elif judge.parting is not None and judge.fault is not None:
        run_again = rerunning(torch_model, torch_optimizer, torch_loss, order, seed)
        models = None if follows else (torch_model, jax_model, torch_loss, jax_loss)
        found.report.faults = explained(judge.fault, judge.parting, run_again, models, order)
    return found


class _Judge:
    """Compares step after step; a tensor that has failed is not looked at again."""

    def __init__(self, factor: float, before: tuple[Step, Step], steps: int) -> None:
        self.factor = factor
        self.steps = 0
        self.rows: dict[str, Comparison] = {}
        self.losses: list[tuple[float, float]] = []
        self.before = self.last = before
        self.fault: Fault | None = None
        self.parting: Parting | None = None
        self.overflowed = 0
        self.plays = False
        self.clipped = Clipped()
        self.total = steps
        self.doubtful: dict[str, list[Comparison]] = {}

    def step(self, single: Step, truth: Step, near: Step, far: Step, *witnesses: Step, found: Step) -> None:
        """Judge what one step has left on both sides."""
        self.steps += 1
        self.losses.append((float(single.loss), float(found.loss)))
        if self.overflowed or _exploded(single, found, *witnesses):
            self.overflowed = self.overflowed or self.steps
            return
        sides = [step.arrays() for step in (truth, near, far)]
        also = [step.arrays() for step in witnesses]
        ours, failed = found.arrays(), []
        for name, theirs in single.arrays().items():
            if name in self.rows and not self.rows[name].passed:
                continue
            shown = f"{name}, step {self.steps}"
            if name not in ours:
                continue  # a port may keep its arrays otherwise; what it does shows in the loss
            around = (sides[1][name], sides[2][name])
            row = compare(
                shown,
                ours[name],
                theirs,
                sides[0][name],
                kind="training",
                neighbours=around,
                factor=self.factor,
                witnesses=[arrays[name] for arrays in also],
            )
            self.rows[name] = self._lasting(name, row)
            if not self.rows[name].passed:
                failed.append(name)
        self.before, self.last = self.last, (single, found)
        if failed and self.fault is None:
            self.fault = self._named(failed)
            self.parting = Parting(self.steps - 1, failed, [self.before[0]], [self.before[1]])
        if self.parting is not None and len(self.parting.theirs) <= WINDOW:
            self.parting.theirs.append(single)
            self.parting.ours.append(found)

    def _lasting(self, name: str, row: Comparison) -> Comparison:
        """``row``, but as passed where its excess is small and may be gone a few steps on: a single number of a run
        that rounding disturbs has its lucky and its unlucky steps, an error stays."""
        self.doubtful[name] = doubtful = [*self.doubtful.get(name, []), row] if not row.passed else []
        if row.passed or row.jax_error > GROSS * row.allowed or self.total <= SHORT:
            return row
        return doubtful[0] if len(doubtful) >= LASTING else replace(row, passed=True, reason="")

    def _named(self, failed: list[str]) -> Fault:
        """The first step at which anything is wrong, in words."""
        name, others = failed[0], len(failed) - 1
        more = f" (with {others} other tensor{'s' if others > 1 else ''})" if others else ""
        what = f"the runs part at step {self.steps}, in {name}{more}: {self.rows[name].reason}"
        return Fault("", 0, "training", what, row=self.rows[name])

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(row.passed for row in self.rows.values())

    @property
    def numeric(self) -> bool:
        """Whether anything failed by its numbers alone."""
        return any(not row.passed and np.isfinite(row.jax_error) for row in self.rows.values())

    def runs(self) -> Runs:
        """The report, and where both sides ended."""
        rows = list(self.rows.values())
        first = self.fault.row.name if self.fault is not None and self.fault.row is not None else None
        first = first or next((row.name for row in rows if not row.passed), None)
        report = Report(rows, first, self.losses)
        if self.overflowed:
            report.notes.append(f"from step {self.overflowed} on the run overflows; it is compared no further")
        if self.plays and self.steps > 1:
            report.notes.append(PLAYS)
        single, found = self.last
        return Runs(report, single.state, found.state)


def _exploded(torch_step: Step, *others: Step) -> bool:
    """Whether torch's run leaves the numbers of its dtype: which step is the last is a matter of rounding then."""
    largest = max(float(np.max(np.abs(x), initial=0)) for x in torch_step.arrays().values() if x.dtype.kind == "f")
    if not largest < HUGE:
        return True
    infinite = any(not np.isfinite(x).all() for step in others for x in step.arrays().values() if x.dtype.kind == "f")
    return infinite and largest > HUGE**0.5


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _in_single(optimizer: torch.optim.Optimizer, _: int) -> None:
    """A step whose corrections for averages that start at zero are taken in float32, as JAX's may be: 1 - 0.999 is off
    by a hundred thousandth there."""
    count = steps_made(optimizer) + 1

    def values(group: Group) -> Group:
        if "betas" not in group:
            return {}
        exact = [1 - float(beta) ** count for beta in group["betas"][:2]]
        single = [float(1 - np.float32(beta) ** np.float32(count)) for beta in group["betas"][:2]]
        factor = exact[0] / single[0] * (single[1] / exact[1]) ** 0.5
        # A decay that is the rate's times another number has no such correction.
        decay = {"weight_decay": group["weight_decay"] / factor} if group.get("decoupled_weight_decay") else {}
        return {"lr": group["lr"] * factor, **decay}

    step_with(optimizer, values)
