"""The mistake that explains a layer's output."""

from typing import TYPE_CHECKING, Any

import numpy as np

from parity.arrays import to_numpy
from parity.checking.diagnosis import outputs as relations
from parity.checking.diagnosis import statistics, weights
from parity.checking.diagnosis.calls import Experiment
from parity.checking.diagnosis.candidates import (
    NOISE,
    Explanation,
    Outputs,
    apart,
    candidates,
    left_by,
    of_many_numbers,
    possible,
)
from parity.checking.diagnosis.mutations import mutations
from parity.checking.diagnosis.threads import as_many_as_help
from parity.checking.pairing import pairs

if TYPE_CHECKING:
    from parity.checking.suspicion import Suspicion

EXPLAINED = 0.15
"""A mistake explains an output if with it no more than this part of the difference is left."""

OF_ONE = 1e-3
"""The same where the output is one number, which one mistake in seven gives to within ``EXPLAINED``."""


def explain(suspicion: "Suspicion") -> tuple[str | None, str]:
    """The suspect and the sentence for a layer at fault; None and an empty sentence where nothing explains it."""
    known = _known(suspicion)
    if known is not None:
        return known
    ours = suspicion.jax_outputs
    if suspicion.kind == "code":
        ours = _unforced(suspicion) or ours
    if suspicion.kind == "buffer":
        return statistics.explain(suspicion)
    # Where NaN stands for numbers, all of the output is to be explained.
    before = min(apart(ours, suspicion.torch_outputs), 1.0)
    by_weights, mended = _by_weights(suspicion, before)
    if by_weights is not None:
        if mended is None:
            return by_weights
        now = f"; with the checkpoint's weights the layer {'still differs' if mended else 'cannot be run'}"
        # What else is wrong shows now that the weights are no longer in the way.
        ours = mended or ours
        before = min(apart(ours, suspicion.torch_outputs), 1.0)
    experiment = Experiment(
        suspicion.torch_layer, suspicion.arguments, suspicion.draws, suspicion.twins if suspicion.kind == "code" else ()
    )
    coarse = relations.coarseness(ours, suspicion.torch_outputs)
    many = of_many_numbers(ours, suspicion.torch_outputs, before)
    best: Explanation | None = None
    enough = max(4e-7, 1e-3 * before)
    with as_many_as_help(experiment.outputs):
        for candidate in candidates(experiment, suspicion.jax_layer, ours, before, many=many):
            if best is None or candidate.left < 0.5 * best.left:
                best = candidate
            if best.left <= enough:
                best = _plainer(experiment, ours, best, enough)
                break
    allowed = EXPLAINED if many else OF_ONE
    if best is not None and best.left <= allowed * before:
        where = f"; torch's layer with this mistake gives the port's output (to {best.left:.0e})"
        besides = f"; besides, {by_weights[1]}" if by_weights is not None else ""
        return best.suspect, best.sentence + where + besides
    if by_weights is not None:
        return by_weights[0], by_weights[1] + now
    if coarse is not None:
        return coarse
    found = relations.relation(ours, suspicion.torch_outputs)
    if found is not None:
        return found
    return None, ""


def _plainer(experiment: Experiment, ours: Outputs, found: Explanation, enough: float) -> Explanation:
    """That a term is missing, where what was found is a number that makes it vanish."""
    for call in experiment.noted if found.suspect in ("scale", "exponent") else ():
        for suspect, sentence, mutate in possible(mutations(call)) if call.name in ("add", "sub") else ():
            if suspect.startswith("missing"):
                left = left_by(ours, lambda m=mutate, c=call: experiment.outputs({c.index: m}))
                if left <= enough:
                    return Explanation(suspect, f"{experiment.place(call)}{sentence}", left)
    return found


def _known(suspicion: "Suspicion") -> tuple[str | None, str] | None:
    """What needs no search: modes, dtypes, exceptions."""
    layer, twin = suspicion.torch_layer, suspicion.jax_layer
    mode = _mode(twin)
    if mode is not None and mode != layer.training and not list(layer.children()):
        words = ("training", "evaluation") if layer.training else ("evaluation", "training")
        return "train for eval mode", f"torch's layer is in {words[0]} mode, the port's in {words[1]} mode"
    if suspicion.kind == "draws":
        if "does not" in suspicion.detail:
            who = "torch" if suspicion.detail.startswith("torch") else "the port"
            return (
                "train for eval mode",
                f"{who} draws at random (as dropout does in training), the other side does not",
            )
        return "randomness", suspicion.detail
    for name, theirs in suspicion.torch_outputs.items():
        ours = suspicion.jax_outputs.get(name)
        if ours is not None and ours.dtype != theirs.dtype and ours.dtype.kind not in "iu":
            return "dtype promotion", f"{name} is {ours.dtype}, torch's is {theirs.dtype}"
    return None


def _mode(layer: Any) -> bool | None:
    for name, training_if in (("deterministic", False), ("use_running_average", False), ("training", True)):
        value = getattr(layer, name, None)
        if isinstance(value, bool):
            return value == training_if
    return None


def _by_weights(suspicion: "Suspicion", before: float) -> tuple[tuple[str, str] | None, Outputs | None]:
    """Whether the layer holds other numbers than the checkpoint, and its outputs with those put right if they are still
    wrong then."""
    found, _ = pairs(suspicion.torch_layer, suspicion.jax_layer)
    moving = {
        name
        for name, before_call in suspicion.torch_layer.named_buffers(recurse=False)
        if name in suspicion.torch_buffers and not np.array_equal(to_numpy(before_call), suspicion.torch_buffers[name])
    }
    # The port's running statistics have moved on in the call; what they were is not known, nor does it matter.
    wrong = [pair for pair in weights.differing(found) if pair.name not in moving]
    if not wrong:
        return None, None
    everything = {
        name: to_numpy(x)
        for name, x in (
            *suspicion.torch_layer.named_parameters(recurse=False),
            *suspicion.torch_layer.named_buffers(recurse=False),
        )
    }
    said = [
        weights.from_elsewhere(pair, suspicion.path, suspicion.whole) or weights.relation(pair, everything)
        for pair in wrong
    ]
    saved = [pair.slot.get() for pair in wrong]
    mended: Outputs = {}
    try:
        for pair in wrong:
            pair.slot.set(pair.layout.from_torch(pair.theirs))
        mended = suspicion.rerun_named()
    except Exception:  # what stands in the port has another shape
        pass
    finally:
        for pair, value in zip(wrong, saved, strict=True):
            pair.slot.set(np.asarray(value))
    names = wrong[0].name if len(wrong) == 1 else "weights"
    suspect, sentence = said[0]
    if len(said) > 1:
        kinds = {s for s, _ in said}
        suspect = said[0][0] if len(kinds) == 1 else next((s for s in kinds if s.startswith("swapped")), said[0][0])
        sentence = "; ".join(s for _, s in said[:4])
    if mended and apart(mended, suspicion.torch_outputs) <= max(EXPLAINED * before, NOISE):
        return (suspect, f"{sentence}; with the checkpoint's {names} the layer matches"), None
    return (suspect, sentence), mended


def _unforced(suspicion: "Suspicion") -> Outputs:
    try:
        return suspicion.rerun_named()
    except Exception:
        return {}
