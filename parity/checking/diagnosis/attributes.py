"""What a layer holds besides its parameters, such as a factor that was drawn or a table that was computed, and the port
holds otherwise."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx

from parity.arrays import to_numpy
from parity.checking.alignment import distance
from parity.checking.diagnosis.calls import Experiment
from parity.checking.interception import TAG
from parity.checking.pairing import pairs

Trial = tuple[str, str, Callable[[], dict[str, Any]]]

PLAIN = (bool, int, float, complex, str)

ALIKE = 1e-5
"""Numbers so near, relative to their size, are the same multiple of each other."""


def mutations(experiment: Experiment, twin: Any) -> Iterator[Trial]:
    """Torch's layer with what the port holds under the same name, or of the same shape where none has the name."""
    theirs, ours = _members(experiment.layer), _members(twin)
    paired = {pair.slot.name for pair in pairs(experiment.layer, twin)[0]}
    changed: dict[str, Any] = {}
    for name, value in theirs.items():
        others = [ours[name]] if name in ours else [x for key, x in ours.items() if key not in {*theirs, *paired}]
        for other in others:
            said = _said(name, value, other, same_name=name in ours)
            if said and name not in changed:
                changed[name] = _like(value, other)
                yield "other constant", said, partial(_with, experiment, {name: changed[name]})
            elif said:
                yield "other constant", said, partial(_with, experiment, {name: _like(value, other)})
    if len(changed) > 1:
        said = f"{', '.join(changed)} are other constants than torch's"
        yield "other constant", said, partial(_with, experiment, changed)


def _members(layer: Any) -> dict[str, Any]:
    """Numbers, words, tuples of these and arrays by name; parameters left out."""
    members = dict(vars(layer)) if hasattr(layer, "__dict__") else {}
    if isinstance(layer, torch.nn.Module):
        members = {key: x for key, x in members.items() if key not in _OF_MODULES} | layer._buffers
    known = {key: x.get_value() if isinstance(x, nnx.Variable) else x for key, x in members.items() if key != TAG}
    return {key: x for key, x in known.items() if isinstance(x, PLAIN) or _is_row(x) or _numbers(x) is not None}


_OF_MODULES = {*vars(torch.nn.Module())}


def _is_row(x: Any) -> bool:
    return isinstance(x, tuple | list) and bool(x) and all(isinstance(each, PLAIN) for each in x)


def _numbers(x: Any) -> np.ndarray | None:
    if isinstance(x, torch.Tensor):
        return to_numpy(x)
    if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return None
    return np.asarray(x) if isinstance(x, jax.Array | np.ndarray | np.generic) else None


def _said(name: str, theirs: Any, ours: Any, *, same_name: bool) -> str:
    """How ``ours`` differs, if it might stand for ``theirs`` and does."""
    whose = f"its {name}" if same_name else f"what stands for torch's {name}"
    a, b = _numbers(ours), _numbers(theirs)
    if b is None or b.ndim == 0:
        single = a is None or a.ndim == 0
        if not same_name or not single or isinstance(theirs, str) != isinstance(ours, str):
            return ""
        one, two = (x.item() if hasattr(x, "item") else x for x in (ours, theirs))
        if _is_row(one) and _is_row(two):
            one, two = tuple(one), tuple(two)
        return f"{whose} is {_shown(one)}, torch's is {_shown(two)}" if one != two else ""
    if a is None or a.shape != b.shape or (a.dtype.kind in "fc") != (b.dtype.kind in "fc") or np.array_equal(a, b):
        return ""
    if a.dtype.kind not in "fc" or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return f"{whose} holds other numbers than torch's in {int((a != b).sum())} of {a.size} places"
    if distance(a, b) < ALIKE:
        return ""
    factor = float(np.vdot(b, a).real / max(float(np.vdot(b, b).real), 1e-300))
    if factor and distance(a, factor * b) < ALIKE * abs(factor):
        return f"{whose} is torch's times {factor:.6g}"
    shift = np.mean(a - b)
    if distance(a, b + shift) < ALIKE:
        return f"{whose} is torch's plus {shift:.6g}"
    off = int((np.abs(a - b) > ALIKE * np.abs(b)).sum())
    how = f"in {off} of {a.size} places, by {distance(a, b):.2g} of their size"
    return f"{whose} holds other numbers than torch's {how}, as if drawn anew or computed otherwise"


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _like(theirs: Any, ours: Any) -> Any:
    """``ours`` as what ``theirs`` is."""
    if isinstance(theirs, torch.Tensor):
        return torch.as_tensor(np.array(_numbers(ours))).to(theirs.dtype)
    if isinstance(theirs, np.ndarray | np.generic):
        return np.array(_numbers(ours), theirs.dtype) if isinstance(theirs, np.ndarray) else type(theirs)(ours)
    return type(theirs)(ours.item() if hasattr(ours, "item") else ours)


def _with(experiment: Experiment, values: dict[str, Any]) -> dict[str, Any]:
    def change(layer: torch.nn.Module) -> None:
        for name, value in values.items():
            setattr(layer, name, value)

    return experiment.outputs(change=change)
