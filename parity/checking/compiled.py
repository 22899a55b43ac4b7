"""What is wrong of a port only where it is compiled."""

from collections.abc import Callable

from parity.checking.evaluation import Evaluation, TorchSide
from parity.checking.fault import Fault
from parity.checking.judgement import judged
from parity.comparison import Comparison


def by_compiling(
    side: TorchSide, plainly: Callable[[], Evaluation], rows: list[Comparison], factor: float
) -> list[Fault]:
    """The fault of a port that is right where it runs operator by operator; none where it is wrong there, too.

    Args:
        side: torch's.
        plainly: runs the port so.
        rows: of the compiled port; those that failed are to pass.
        factor: how many times the error that rounding explains passes.
    """
    wrong = {(row.kind, row.name): row for row in rows if not row.passed}
    try:
        again = {(row.kind, row.name): row for row in judged(side, plainly(), factor)}
    except Exception:  # made for tracers only
        return []
    if not wrong or not all(key in again and again[key].passed for key in wrong):
        return []
    (kind, name), row = next(iter(wrong.items()))
    others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    what = name if kind == "output" else f"the {kind} of {name}"
    said = f"under jax.jit {what}{others} {'are' if others else 'is'} wrong, without it right: the same code"
    hint = "the compiler's doing, or of what the code does only while it is traced, such as drawing numbers in Python"
    return [Fault("", 0, kind, row.reason, "compilation", f"{said} ({hint})", row)]
