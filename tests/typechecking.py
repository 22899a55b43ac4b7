"""jaxtyping's annotations as checks, made after the call."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float, as everywhere in Python


def after_call(function: Callable) -> Callable:
    """Check arguments and result together once the function has returned.

    jaxtyping checks the arguments alone first (a function that returns ``Any``) and everything again at the end. Only
    the second is wanted here: an argument that the library refuses must meet the library's own error.
    """
    return function if function.__annotations__.get("return") is Any else checked(function)
