"""Changes right around the step of an optimizer's own class: within the hooks and methods that a user has put around
it, which clip, or move a learning rate, and see none of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Group = dict[str, Any]


@contextmanager
def innermost(
    optimizer: torch.optim.Optimizer, before: Callable[[], None], after: Callable[[], None]
) -> Iterator[None]:
    """Within it a step calls ``before`` last and ``after`` first of all that is called around it."""
    entered = optimizer.register_step_pre_hook(lambda *_: before())
    left = optimizer.register_step_post_hook(lambda *_: after())
    behind = optimizer._optimizer_step_post_hooks
    behind |= {key: behind.pop(key) for key in [*behind][:-1]}  # the new one first
    try:
        yield
    finally:
        entered.remove()
        left.remove()


def step_with(optimizer: torch.optim.Optimizer, values: Callable[[Group], Group]) -> None:
    """A step for which each group has ``values(group)`` besides its own."""
    saved: list[Group] = []

    def before() -> None:
        saved[:] = []
        for group in optimizer.param_groups:
            new = values(group)
            saved.append({key: group[key] for key in new})
            group.update(new)

    def after() -> None:
        for group, own in zip(optimizer.param_groups, saved, strict=True):
            group.update(own)

    with innermost(optimizer, before, after):
        optimizer.step()


def steps_made(optimizer: torch.optim.Optimizer) -> int:
    """How many steps the optimizer has counted, which are fewer than batches where gradients accumulate."""
    return max((int(entries.get("step", 0)) for entries in optimizer.state.values()), default=0)
