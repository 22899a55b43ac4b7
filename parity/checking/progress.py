"""A progress bar for checks that take a while."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PATIENCE = 2.0
"""Seconds after which the bar appears."""


@contextmanager
def progress(total: int, console: Console | None = None) -> Iterator[Callable[[str], None]]:
    """A function to be told of each layer that is done; on a terminal, past two seconds, it draws a bar on stderr."""
    console = console or Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=total)
    started, shown = time.monotonic(), False

    def done(path: str) -> None:
        nonlocal shown
        bar.update(task, advance=1, description=path)
        if not shown and console.is_terminal and time.monotonic() - started > PATIENCE:
            shown = True
            bar.start()

    try:
        yield done
    finally:
        if shown:
            bar.stop()
