"""Callables named on the command line."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class TargetError(ValueError):
    """A name that leads to no callable."""


def load_target(name: str) -> Callable[..., Any]:
    """What ``package.module:callable`` or ``path/file.py:callable`` names; only its module is imported.

    Raises:
        TargetError: there is no such module, or it has no such callable.
    """
    source, separator, attribute = name.rpartition(":")
    if not separator or not source or not attribute:
        raise TargetError(f"{name!r} must be package.module:callable or path/file.py:callable")
    module = _from_file(Path(source)) if source.endswith(".py") else _from_package(source)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise TargetError(f"{source} has no callable {attribute!r}")
    return found


def _from_package(name: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise TargetError(f"there is no module {error.name!r}") from None


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TargetError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module
