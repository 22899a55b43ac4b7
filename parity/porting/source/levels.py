"""The order in which classes are written: those of inner modules first."""

from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

import torch


def kind_of(module: torch.nn.Module) -> str:
    """The name of a module's class: torch makes a class of the same name for each layer with a parametrization."""
    return type(module).__name__


def levels(
    paths: Collection[str], modules: dict[str, torch.nn.Module], originals: dict[int, str]
) -> Iterator[list[str]]:
    """``paths`` in steps, those of one class together unless one of them is within another.

    Args:
        paths: of modules that become classes.
        modules: by path; one that is shared, by each of its paths.
        originals: the first path of each module, by identity.
    """
    inner = {
        path: {originals[id(part)] for part in modules[path].modules()}.intersection(paths) - {path} for path in paths
    }
    kinds: dict[str, set[str]] = {kind_of(modules[path]): set() for path in paths}
    for path, within in inner.items():
        kinds[kind_of(modules[path])] |= {kind_of(modules[x]) for x in within}
    try:
        for level in list(_steps(kinds)):
            yield [path for path in paths if kind_of(modules[path]) in level]
    except CycleError:
        for level in _steps(inner):
            yield [path for path in paths if path in level]


def _steps(needs: dict[Any, set[Any]]) -> Iterator[tuple[Any, ...]]:
    """Keys in steps, each after all that it needs."""
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    while sorter.is_active():
        level = sorter.get_ready()
        yield level
        sorter.done(*level)
