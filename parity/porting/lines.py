"""Which line of a model runs."""

import os
import sys

import torch

TORCH = os.path.join(os.path.dirname(torch.__file__), "")
"""Where torch's own files are; torchvision's, whose folder begins alike, are not there."""

_PARITY = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


def is_of_model(file: str) -> bool:
    """Whether a file is neither torch's nor this package's."""
    return not file.startswith((TORCH, _PARITY))


def model_line() -> tuple[str, int]:
    """File and number of the innermost line of the model that runs."""
    frame = sys._getframe(1)
    while frame is not None and not is_of_model(frame.f_code.co_filename):
        frame = frame.f_back  # type: ignore[assignment]
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)
