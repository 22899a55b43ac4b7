"""Parameter groups: which parameters share which hyperparameters, by dotted name."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from jaxnn.functional._argument import ArgumentError

Group = dict[str, Any]


def param_groups(groups: Iterable[Mapping[str, Any]]) -> tuple[Group, ...]:
    """Check a list of parameter groups, the first step of every optimizer's ``param_groups=``.

    Args:
        groups: one mapping a group, as in torch. ``"params"`` says which parameters: a regular expression searched for
            in the dotted name, a predicate of the dotted name, or a list of names. A group without ``"params"`` takes
            every parameter that no other group takes. The other keys replace the optimizer's hyperparameters.

    Returns:
        The groups, each a dict.

    Raises:
        TypeError: ``groups`` is not an iterable of mappings, or ``"params"`` is none of the three.
        ValueError: there is no group, more than one takes the rest, or a name stands twice in a group.

    Example:
        >>> from jaxnn import optim
        >>> groups = optim.param_groups([{"params": r"bias$", "weight_decay": 0.0}, {"lr": 0.1}])
        >>> optim.SGD(lr=0.01, weight_decay=0.1, param_groups=groups).groups[1]["lr"]
        0.1

    Source: the ``params`` argument of ``torch.optim.Optimizer``.
    """
    if isinstance(groups, Mapping | str) or hasattr(groups, "dtype") or not isinstance(groups, Iterable):
        raise TypeError(f"param_groups must be an iterable of dicts, got {type(groups).__name__}")
    checked = tuple(groups)
    if not checked:
        raise ArgumentError("param_groups must hold at least one group, got none")
    for group in checked:
        if not isinstance(group, Mapping):
            raise TypeError(f"param_groups must hold dicts, got {type(group).__name__}")
        _check_selector(group.get("params"))
    if sum(group.get("params") is None for group in checked) > 1:
        raise ArgumentError("param_groups: only one group may leave out 'params' and take the rest")
    return tuple(dict(group) for group in checked)


def _check_selector(selector: Any) -> None:
    if selector is None or isinstance(selector, str | re.Pattern) or callable(selector):
        return
    if not isinstance(selector, Sequence) or not all(isinstance(name, str) for name in selector):
        raise TypeError(
            "param_groups: 'params' must be a regular expression, a predicate of the dotted name or a list of names, "
            f"got {type(selector).__name__}"
        )
    if len(set(selector)) < len(selector):
        raise ArgumentError(f"param_groups: a name stands twice in {list(selector)}")


def _takes(selector: str | re.Pattern | Callable[[str], bool] | Sequence[str], name: str) -> bool:
    if isinstance(selector, str | re.Pattern):
        return re.search(selector, name) is not None
    return bool(selector(name)) if callable(selector) else name in selector


def dotted_names(params: PyTree) -> list[str]:
    """The dotted name of each leaf, in the order JAX flattens them: ``{"a": {"b": x}}`` has ``"a.b"``."""
    paths = [path for path, _ in jax.tree.flatten_with_path(params)[0]]
    # nnx.Optimizer initialises with Variables and updates with their values; both are the same parameter.
    inner = [path[:-1] if path and path[-1] == jax.tree_util.GetAttrKey("value") else path for path in paths]
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path in inner]


def assign(groups: Sequence[Group], names: Sequence[str]) -> list[int]:
    """Which group each name belongs to.

    Raises:
        ValueError: a parameter belongs to no group or to several, or a listed name is not a parameter.
    """
    selectors = [group.get("params") for group in groups]
    rest = [i for i, selector in enumerate(selectors) if selector is None]
    chosen = []
    for name in names:
        takers = [i for i, selector in enumerate(selectors) if selector is not None and _takes(selector, name)] or rest
        if len(takers) > 1:
            raise ArgumentError(f"param_groups: {name!r} belongs to groups {takers}; a parameter belongs to one")
        if not takers:
            raise ArgumentError(f"param_groups: {name!r} belongs to no group; a group without 'params' takes the rest")
        chosen.append(takers[0])
    for listed in selectors:
        if isinstance(listed, list | tuple) and (unknown := sorted(set(listed) - set(names))):
            raise ArgumentError(f"param_groups: {unknown} are not parameters, those are {list(names)}")
    return chosen
