"""Batch normalization as a function: what follows the mode of its module, as ``training=self.training`` does."""

import ast
import inspect
import operator
import textwrap
from typing import Any

import torch
from torch.fx import Graph, Node

from parity.porting.functionalization import packet

aten = torch.ops.aten

_LIBRARY = torch.library.Library("parity", "FRAGMENT")
_LIBRARY.define(
    "batch_norm(Tensor input, Tensor running_mean, Tensor running_var, Tensor? weight, Tensor? bias, float momentum, "
    "float eps) -> Tensor[]"
)

TRAINING = 5
"""Which argument of the function says whether it trains."""


def with_statistics(graph: Graph, module: torch.nn.Module) -> None:
    """Let batch normalization that follows the mode of its module return the running statistics, and keep them."""
    for node in list(graph.nodes):
        if node.op == "call_function" and packet(node) == "batch_norm" and _follows(node, _owner(node, module)):
            _split(graph, node)


def _owner(node: Node, module: torch.nn.Module) -> torch.nn.Module:
    entered = list((node.meta.get("nn_module_stack") or {}).values())
    return module.get_submodule(entered[-1][0].partition("@")[0]) if entered else module  # ``name@1``: a later call


def _follows(node: Node, owner: torch.nn.Module) -> bool:
    statistics, training = node.args[3:5], node.args[TRAINING]
    if isinstance(owner, torch.nn.modules.batchnorm._NormBase) or not all(isinstance(x, Node) for x in statistics):
        return False
    return training is owner.training and not _is_said(owner)


def _is_said(owner: torch.nn.Module) -> bool:
    """Whether the module's code itself says that it trains or does not, whatever the mode."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(owner))))
    except (OSError, TypeError):
        return False
    calls = [x for x in ast.walk(tree) if isinstance(x, ast.Call) and getattr(x.func, "attr", "") == "batch_norm"]
    given = [
        next((key.value for key in call.keywords if key.arg == "training"), None)
        or (call.args[TRAINING] if len(call.args) > TRAINING else None)
        for call in calls
    ]
    return bool(given) and all(x is None or isinstance(x, ast.Constant) for x in given)


def _split(graph: Graph, node: Node) -> None:
    """Make ``node`` the first result of a call that returns the statistics too."""
    input, weight, bias, *statistics, _, momentum, eps, _ = node.args
    held = [statistic.meta["val"] for statistic in statistics]
    with graph.inserting_before(node):
        target = torch.ops.parity.batch_norm.default
        whole = graph.call_function(target, (input, *statistics, weight, bias, momentum, eps))
        whole.meta = dict(node.meta) | {"val": [node.meta["val"], *held]}
    before: Any = node
    for i, (name, statistic, value) in enumerate(zip(("mean", "variance"), statistics, held, strict=True)):
        with graph.inserting_after(before):
            part = graph.call_function(operator.getitem, (whole, i + 1))
        with graph.inserting_after(part):
            before = graph.call_function(aten.copy_.default, (statistic, part))
        before.meta = dict(node.meta) | {"val": value}
        part.meta = before.meta | {"called": name}
    node.target, node.args, node.kwargs = operator.getitem, (whole, 0), {}
