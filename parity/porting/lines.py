"""Which line of a model runs."""

import os
import sys

import torch

_MACHINERY = tuple(os.path.join(os.path.dirname(x), "") for x in (torch.__file__, os.path.dirname(__file__)))


def model_line() -> tuple[str, int]:
    """File and number of the innermost line that is neither torch's nor this package's."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_MACHINERY):
        frame = frame.f_back  # type: ignore[assignment]
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)
