"""Batch and instance normalization as functions: the running statistics that they keep while they train."""

import ast
import inspect
import operator
import textwrap
from typing import Any

import torch
from torch.fx import Node

from parity.porting.graph.nodes import packet
from parity.porting.source.call import Call

aten = torch.ops.aten

KINDS = ("batch_norm", "instance_norm")

_LIBRARY = torch.library.Library("parity", "FRAGMENT")
for _kind in KINDS:
    _LIBRARY.define(
        f"{_kind}(Tensor input, Tensor running_mean, Tensor running_var, Tensor? weight, Tensor? bias, bool always, "
        "float momentum, float eps) -> Tensor[]"
    )

TRAINING = 5
"""Which argument of the functions says whether they train."""


def with_statistics(call: Call) -> None:
    """Let normalization that trains, always or as its module does, return the running statistics, and keep them."""
    items: list[Node | Call] = []
    for item in call.items:
        if isinstance(item, Call):
            if not item.leaf:
                with_statistics(item)
            items.append(item)
        elif packet(item) in KINDS and all(isinstance(x, Node) for x in item.args[3:5]):
            said = item.args[TRAINING] is not call.module.training or is_said(call.module)
            items += [item] if said and not item.args[TRAINING] else _split(item, said)
        else:
            items.append(item)
    call.items = items


def is_said(module: torch.nn.Module) -> bool:
    """Whether the module's code itself says that its normalization trains or does not, whatever the mode."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(module))))
    except (OSError, TypeError):
        return False
    calls = [x for x in ast.walk(tree) if isinstance(x, ast.Call) and getattr(x.func, "attr", "") in KINDS]
    given = [
        next((key.value for key in call.keywords if key.arg in ("training", "use_input_stats")), None)
        or (call.args[TRAINING] if len(call.args) > TRAINING else None)
        for call in calls
    ]
    return bool(given) and all(x is None or isinstance(x, ast.Constant) for x in given)


def _split(node: Node, always: bool) -> list[Node | Call]:
    """Make ``node`` the first result of a call that returns the statistics too; gives all that stands for it."""
    graph = node.graph
    input, weight, bias, *statistics, _, momentum, eps, _ = node.args
    held = [statistic.meta["val"] for statistic in statistics]
    with graph.inserting_before(node):
        target = getattr(torch.ops.parity, packet(node)).default
        whole = graph.call_function(target, (input, *statistics, weight, bias, always, momentum, eps))
        whole.meta = dict(node.meta) | {"val": [node.meta["val"], *held]}
    made: list[Any] = [whole, node]
    for i, (name, statistic, value) in enumerate(zip(("mean", "variance"), statistics, held, strict=True)):
        with graph.inserting_after(made[-1]):
            part = graph.call_function(operator.getitem, (whole, i + 1))
        with graph.inserting_after(part):
            copy = graph.call_function(aten.copy_.default, (statistic, part))
        copy.meta = dict(node.meta) | {"val": value}
        part.meta = copy.meta | {"called": name}
        made += [part, copy]
    node.target, node.args, node.kwargs = operator.getitem, (whole, 0), {}
    return made
