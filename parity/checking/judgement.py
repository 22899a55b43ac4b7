"""Verdicts on a whole pass."""

import numpy as np

from parity.checking.evaluation import Evaluation, TorchSide
from parity.comparison import FACTOR, Comparison, compare


def judged(side: TorchSide, jax_side: Evaluation, factor: float = FACTOR, floor: float = 4.0) -> list[Comparison]:
    """A row for every output, gradient and buffer of the torch side; one that JAX lacks fails."""
    truth, (near, far) = side.exact(), side.neighbours()
    rows = []
    for kind, part in (
        ("output", "outputs"),
        ("gradient", "parameter_gradients"),
        ("gradient", "input_gradients"),
        ("buffer", "buffers"),
    ):
        found = getattr(jax_side, part)
        for name, value in getattr(side.single, part).items():
            if name not in found:
                rows.append(
                    Comparison(kind, name, value.shape, np.inf, 0.0, np.inf, 0.0, False, "JAX has none of this name")
                )
                continue
            exact, *around = (getattr(evaluation, part)[name] for evaluation in (truth, near, far))
            rows.append(
                compare(
                    name,
                    found[name],
                    value,
                    exact,
                    kind=kind,
                    neighbours=(around[0], around[1]),
                    factor=factor,
                    floor=floor,
                )
            )
    extra = len(jax_side.outputs) - len(side.single.outputs)
    if extra > 0:
        reason = f"JAX returns {extra} more arrays than torch"
        rows.append(Comparison("output", "outputs", (), np.inf, 0.0, np.inf, 0.0, False, reason))
    return rows
