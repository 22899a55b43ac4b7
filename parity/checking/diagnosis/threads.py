"""How many of torch's threads a search is to use."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def as_many_as_help(run: Callable[[], Any]) -> Iterator[None]:
    """Torch's threads where ``run`` is faster with them, else one: threads with little to do wait for one another in a
    spin, which on a busy machine takes a small model ten times as long."""
    pool = torch.get_num_threads()

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    try:
        if pool > 1:
            alone, together = seconds(1), seconds(pool)
            torch.set_num_threads(pool if together < alone else 1)
        yield
    finally:
        torch.set_num_threads(pool)
