"""``torch.func`` and ``torch.vmap`` as the operators that they come to: export sees one sample, and no derivative."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch._functorch import apis, eager_transforms
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.overrides import TorchFunctionMode, _len_torch_function_stack, _pop_mode, _push_mode
from torch.utils import _pytree as torch_tree
from torch.utils._python_dispatch import _disable_current_modes

from parity.standing_in import forwarding, in_place_of

_levels: Any = torch._C._functorch

_FACTORIES = (
    apis.vmap,
    apis.grad,
    apis.grad_and_value,
    eager_transforms.jacrev,
    eager_transforms.jacfwd,
    eager_transforms.hessian,
)


def is_transforming() -> bool:
    """Whether what runs is within a function that ``torch.func`` transforms: its tensors are no nodes of the graph."""
    return _levels.peek_interpreter_stack() is not None


@contextmanager
def transformed(used: set[str]) -> Iterator[None]:
    """Within, a transformed function is traced by itself, and put into the graph; noted in ``used``."""

    def factory(function: Any) -> Callable[..., Any]:
        def made(*given: Any, **options: Any) -> Any:
            return _traced(originals[function](*given, **options), used)

        return made

    originals: dict[Any, Callable[..., Any]] = {}
    with ExitStack() as stack:
        for function in _FACTORIES:
            originals[function] = stack.enter_context(in_place_of(function, forwarding(function), factory(function)))
        yield


def _traced(function: Callable[..., Any], used: set[str]) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if is_transforming():
            return function(*args, **kwargs)
        used.add("torch.func")
        leaves, spec = torch_tree.tree_flatten((args, kwargs))
        places = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor)]
        result: list[Any] = []

        def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
            filled = dict(zip(places, tensors, strict=True))
            inner_args, inner_kwargs = torch_tree.tree_unflatten([filled.get(i, x) for i, x in enumerate(leaves)], spec)
            outputs, out_spec = torch_tree.tree_flatten(function(*inner_args, **inner_kwargs))
            result[:] = [outputs, out_spec]
            return [x for x in outputs if isinstance(x, torch.Tensor)]

        given = [leaves[i] for i in places]
        with _alone(given), _Stops():
            graph = make_fx(flat, tracing_mode="real")(*given)
        outputs, out_spec = result
        found = iter(_Again(graph).run(*given))
        filled = [next(found) if isinstance(x, torch.Tensor) else x for x in outputs]
        return torch_tree.tree_unflatten(filled, out_spec)

    return run


@contextmanager
def _alone(given: list[torch.Tensor]) -> Iterator[None]:
    """Without the modes that trace the model around the function, but for the one that makes its tensors."""
    fake = torch._guards.detect_fake_mode(given)
    if fake is None:
        raise NotImplementedError("torch.func of a function without a tensor")
    modes = [_pop_mode() for _ in range(_len_torch_function_stack())]
    try:
        with _disable_current_modes(), fake:
            yield
    finally:
        for mode in reversed(modes):
            _push_mode(mode)


class _Stops(TorchFunctionMode):
    """Marks where the function itself detaches a tensor: its derivatives detach what they keep of the way forward."""

    _DETACHING = frozenset([torch.Tensor.detach, torch.detach, torch.Tensor.data.__get__])  # type: ignore[attr-defined]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._set_grad_enabled and not args[0]:
            raise NotImplementedError("torch.no_grad in a function that torch.func transforms; x.detach() can be")
        detaches = func in self._DETACHING
        result = args[0].detach() if detaches else func(*args, **(kwargs or {}))
        if detaches:
            value = result
            while _levels.is_functorch_wrapped_tensor(value):
                value = _levels.get_unwrapped(value)
            mode: Any = get_proxy_mode()
            proxy = mode.tracer.unwrap_proxy(value) if mode is not None else None
            if not isinstance(proxy, torch.fx.Proxy):
                raise NotImplementedError("a detached tensor in a function that torch.func transforms")
            proxy.node.meta["stops"] = True
        return result


class _Again(Interpreter):
    """Runs what was traced once more, for the graph of the model."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)

    def run_node(self, n: Node) -> Any:
        if n.target is torch.ops.aten.detach.default and "stops" not in n.meta:
            return self.env[n.args[0]]
        return super().run_node(n)
