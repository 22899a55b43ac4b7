"""What a model drops out and draws in its other mode: in training where it is exported in evaluation, and back.

Export sees one mode. ``F.dropout(x, p if self.training else 0.0)`` has no rate in evaluation, and stochastic depth has
no trace there at all, so the model runs once more in the other mode, and what is drawn at the same line is compared.
Where a method reads the mode, it also runs in its own, and the lines that compute in one of both only are said, unless
the other computes the same on other lines.
"""

import inspect
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any
from unittest import mock

import torch
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as torch_tree

from parity.checking.generators import all_seeded
from parity.checking.perturbation import copied, own
from parity.checking.tree import by_class
from parity.porting.errors import first_line
from parity.porting.graph.deciding import place_text
from parity.porting.graph.differentiation import is_derivative
from parity.porting.graph.exporting import quiet
from parity.porting.graph.flexible import flexible
from parity.porting.graph.free_sizes import Arguments
from parity.porting.graph.nodes import packet, traced_name
from parity.porting.graph.values import Values
from parity.porting.lines import TORCH, is_of_model
from parity.porting.source.layers import has_twin

Site = tuple[tuple[str, int], ...]

_DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}
_OTHERS = frozenset({
    "bernoulli", "bernoulli_", "binomial", "cauchy_", "exponential_", "geometric_", "gumbel_softmax", "log_normal_",
    "multinomial", "normal", "normal_", "poisson", "rand", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "random_", "randperm", "rrelu", "rrelu_", "uniform_",
})  # fmt: skip
_LAYERS = f"{TORCH}nn/modules/"
_CALL = torch.nn.Module._call_impl.__code__


@dataclass
class Draw:
    """One call of what draws.

    Attributes:
        function: its name.
        rate: with which it drops out; that of others is one.
        node: by the name that the tracer gave it, if one traces.
    """

    function: str
    rate: float
    node: str = ""


class Draws(TorchFunctionMode):
    """Notes the draws that a model makes itself, by the lines that led there; what stays a layer knows its rate."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        # By what they hold: where modules are shared, export calls others that hold the same.
        self.layers = {id(vars(part)) for part in module.modules() if has_twin(part)}
        self.found: dict[Site, list[Draw]] = defaultdict(list)
        self.lines: dict[CodeType, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.values: Values | None = None  # if the lines are to be noted, with what is computed on them

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:  # within a function that asks for it, a mode is off
            with mock.patch.object(F, "has_torch_function", return_value=False), self:
                return func(*args, **kwargs)
        result = func(*args, **kwargs)
        rate = _rate(func, args, kwargs)
        if self.values is not None:
            self._note(self.values, func, args, kwargs, result, rate)
        if rate is not None and not torch.compiler.is_dynamo_compiling() and (site := _site(self.layers)):
            self.found[site].append(Draw(func.__name__, rate, _node(result)))
        return result

    def _note(self, values: Values, func: Any, args: Any, kwargs: Any, result: Any, rate: float | None) -> None:
        """Note a call with the lines that led to it; what is drawn and dropped does not count for what is computed."""
        name = getattr(func, "__name__", "")
        tensors = [x for x in torch_tree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        drops = name in _DROPOUTS or name == "feature_dropout"
        number = values.add(func, (args, kwargs) if rate is None else tensors, None if drops else result)
        if drops:
            values.same(tensors[0], result)
        if name != "__get__":
            for code, line in _model_lines():
                self.lines[code][line].add(number)


def _rate(func: Any, args: Any, kwargs: Any) -> float | None:
    """The rate of dropout in this very call; None of what draws nothing."""
    name = getattr(func, "__name__", "")
    if name in _DROPOUTS and func is getattr(F, name):
        bound = inspect.signature(func).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
    elif name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"):
        given = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
        given["training"] = given.get("train", given.get("training"))
    elif name == "scaled_dot_product_attention" and ("dropout_p" in kwargs or len(args) > 4):
        given = {"p": kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0), "training": True}
    elif name in ("rrelu", "rrelu_"):
        given = {"p": 1.0, "training": kwargs.get("training", args[3] if len(args) > 3 else False)}
    else:
        return 1.0 if name in _OTHERS else None
    return float(given["p"]) if given["training"] else 0.0


def _site(layers: set[int]) -> Site:
    """The lines of the model that led here, innermost first; none where one of ``layers`` is asked."""
    lines: list[tuple[str, int]] = []
    inside = 0  # of them are in modules; above the outermost module are those that called it, or export
    frame: Any = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        in_layer = not lines and file.startswith(_LAYERS) and frame.f_code.co_name == "forward"
        if in_layer and id(vars(frame.f_locals["self"])) in layers:
            return ()
        if is_of_model(file):
            lines.append((file, frame.f_lineno))
        elif frame.f_code is _CALL:
            inside = len(lines)
        frame = frame.f_back
    return tuple(lines[:inside])


def _model_lines() -> Iterator[tuple[CodeType, int]]:
    frame: Any = sys._getframe(3)
    while frame is not None:
        if is_of_model(frame.f_code.co_filename):
            yield frame.f_code, frame.f_lineno
        frame = frame.f_back


def _node(result: Any) -> str:
    mode = get_proxy_mode()
    proxy = mode.tracer.unwrap_proxy(result) if mode is not None and isinstance(result, torch.Tensor) else None
    if not isinstance(proxy, torch.fx.Proxy):
        return ""
    proxy.node.meta["traced"] = proxy.node.name  # export gives some nodes other names
    return proxy.node.name


def with_both_rates(module: torch.nn.Module, arguments: Arguments, draws: Draws, graph: Graph) -> Iterator[str]:
    """Give what drops out in ``graph`` its rates in training and in evaluation as ``rates`` in their ``meta``.

    Args:
        module: the model; read, not changed.
        arguments: of the example.
        draws: those noticed while it was exported.
        graph: of it.

    Returns:
        What is to be said of draws that the port makes in one mode only, or in both where the model does not.
    """
    written = [part for part in module.modules() if id(vars(part)) not in draws.layers]
    asks = any(_asks(type(part)) for part in written)
    if not draws.found and not asks and not any(map(_has_rate, written)):
        return
    differentiates = any(map(is_derivative, graph.nodes))
    elsewhere, error = _run(module, arguments, differentiates, not module.training, asks)
    other = elsewhere.found
    nodes = {traced_name(node): node for node in graph.nodes}
    now, then = ("training", "evaluation") if module.training else ("evaluation", "training")
    for site, found in draws.found.items():
        rates = [draw.rate for draw in other.get(site, [])]
        if len(rates) != len(found):
            rates = rates[:1] * len(found) if len(set(rates)) == 1 else []
        for draw, rate in zip(found, rates, strict=False):
            known = _set_rates(nodes.get(draw.node), (draw.rate, rate) if module.training else (rate, draw.rate))
            if _is_dropout(draw) and rate != draw.rate and not known:
                yield f"the rate in {then} is {rate}; the port has the one in {now}: {_line(site)}"
        undropped = any(_is_dropout(draw) and not draw.rate for draw in found)
        if not rates and undropped and not module.training:
            because = f": {first_line(error)}" if error else ""
            yield f"the rate in training is not known{because}; it is the one in evaluation: {_line(site)}"
        if not rates and not error and not all(map(_is_dropout, found)):
            yield f"drawn in {now}, not in {then}; the port draws in both: {_line(site)}"
    for site, found in other.items():
        if site not in draws.found and any(draw.rate for draw in found):
            yield f"drawn in {then}, not in {now}; the port, exported in {now}, draws in neither: {_line(site)}"
    if asks:
        here, failed = _run(module, arguments, differentiates, module.training, asks)
        yield from _unlike(f"computed in {then}, not in {now}; the port does in neither", elsewhere, here, failed)
        yield from _unlike(f"computed in {now}, not in {then}; the port does in both", here, elsewhere, error)


def _unlike(what: str, draws: Draws, others: Draws, error: Exception | None) -> Iterator[str]:
    """The first line of each function that computed in a run and not in the other, which ended; what draws is said."""
    sites = [*draws.found, *others.found]
    said, leading = {site[0] for site in sites}, {line for site in sites for line in site}
    computed = others.values.computed if others.values is not None else set()
    for code, lines in draws.lines.items() if error is None else ():
        other = others.lines.get(code, lines)
        only = {(code.co_filename, x) for x, values in lines.items() if x not in other and values - computed} - leading
        if only and not {(code.co_filename, x) for x in lines} & said:
            yield f"{what}: {place_text((*min(only), 0))}"


def _run(
    module: torch.nn.Module, arguments: Arguments, differentiates: bool, training: bool, notes_lines: bool
) -> tuple[Draws, Exception | None]:
    """What the model draws in that mode, and what stopped it if anything did.

    It runs on arrays without numbers, which takes no time; on the example where the numbers matter.
    """
    bare = copied(module, _without_numbers), torch_tree.tree_map(_without_numbers, arguments)
    draws, error = _noted(*bare, differentiates, training, notes_lines)
    if error is None:
        return draws, None
    whole = copied(module, shared=True), torch_tree.tree_map(own, arguments)
    return _noted(*whole, differentiates, training, notes_lines)


def _without_numbers(x: Any) -> Any:
    return x.detach().to("meta") if isinstance(x, torch.Tensor) else x


def _noted(
    subject: torch.nn.Module, arguments: Arguments, differentiates: bool, training: bool, notes_lines: bool
) -> tuple[Draws, Exception | None]:
    """What ``subject``, which may be spoilt, draws in that mode, and what stopped it if anything did."""
    draws = Draws(subject.train(training))
    if notes_lines:
        draws.values = Values(subject, arguments)
    try:
        for part in subject.modules():
            if isinstance(part, torch.nn.modules.batchnorm._NormBase):
                part.eval()  # it draws nothing, and may refuse a single row
        args, kwargs = arguments
        with quiet(), all_seeded(0), flexible(), torch.set_grad_enabled(differentiates), draws:
            subject(*args, **kwargs)
    except Exception as error:  # as of a model that wants targets while it trains
        return draws, error
    return draws, None


def _set_rates(node: Node | None, rates: tuple[float, float]) -> bool:
    """Rates of a dropout in training and in evaluation, also as its arguments: unlike calls must not look alike.

    Returns:
        Whether ``node`` is one.
    """
    name = "" if node is None else packet(node).removesuffix("_")
    if node is None or not (name.endswith("dropout") or name in ("rrelu", "scaled_dot_product_attention")):
        return False
    node.meta["rates"] = rates
    if name.endswith("dropout"):
        node.update_arg(1, max(rates))
    elif name != "rrelu" and len(node.args) > 4:
        node.update_arg(4, max(rates))
    elif name != "rrelu":
        node.update_kwarg("dropout_p", max(rates))
    return True


def _is_dropout(draw: Draw) -> bool:
    return draw.function in _DROPOUTS or draw.function in ("feature_dropout", "scaled_dot_product_attention")


def _line(site: Site) -> str:
    return place_text((*site[0], 0))


def _has_rate(part: Any) -> bool:
    """Whether a module, as an attention, keeps a rate that its forward makes use of in training only."""
    return isinstance(getattr(part, "dropout", None), float) and part.dropout > 0


@by_class
def _asks(kind: Any) -> bool:
    """Whether a method of a class that is none of torch's reads in which mode the module is."""
    functions = (
        inspect.unwrap(x)
        for base in kind.__mro__
        if not base.__module__.startswith("torch.")
        for x in vars(base).values()
        if inspect.isfunction(x)
    )
    return any("training" in _names(function.__code__) for function in functions)


def _names(code: CodeType) -> set[str]:
    inner = (_names(x) for x in code.co_consts if isinstance(x, CodeType))
    return set(code.co_names).union(*inner)
