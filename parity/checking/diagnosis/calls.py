"""The torch functions a layer calls, noted, and one of them done otherwise."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as torch_tree

from parity.arrays import to_numpy
from parity.checking.leaves import with_paths
from parity.replay import Draws

BUILTIN = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), "input weight bias stride padding dilation groups"),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        "input weight bias stride padding output_padding groups dilation",
    ),
    "linear": "input weight bias",
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), "input kernel_size stride padding dilation ceil_mode"),
    "adaptive_avg_pool1d": "input output_size",
    "gelu": "input approximate",
    "avg_pool1d": "input kernel_size stride padding ceil_mode count_include_pad",
    **dict.fromkeys(
        ("avg_pool2d", "avg_pool3d"), "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
    ),
    "scaled_dot_product_attention": "query key value attn_mask dropout_p is_causal scale enable_gqa",
    "lstm": "input hx weights bias num_layers dropout training bidirectional batch_first",
    "gru": "input hx weights bias num_layers dropout training bidirectional batch_first",
    "rnn_tanh": "input hx weights bias num_layers dropout training bidirectional batch_first",
    "rnn_relu": "input hx weights bias num_layers dropout training bidirectional batch_first",
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), "input hx w_ih w_hh b_ih b_hh"),
    **dict.fromkeys(("add", "sub", "mul", "div", "matmul", "bmm", "pow", "minimum", "maximum"), "input other"),
    **dict.fromkeys(("softmax", "log_softmax"), "input dim dtype"),
    **dict.fromkeys(("cat", "stack"), "tensors dim"),
    "flatten": "input start_dim end_dim",
    "masked_fill": "input mask value",
    **dict.fromkeys(("mean", "sum", "amax", "var", "std"), "input dim"),
    "chunk": "input chunks dim",
    "split": "input split_size dim",
    "transpose": "input dim0 dim1",
    "topk": "input k dim largest sorted",
    **dict.fromkeys(("tril", "triu"), "input diagonal"),
    "flip": "input dims",
    "repeat_interleave": "input repeats dim",
    "roll": "input shifts dims",
    "softplus": "input beta threshold",
    "prelu": "input weight",
    "logsigmoid": "input",
    "pixel_shuffle": "input upscale_factor",
    "pixel_unshuffle": "input downscale_factor",
}
"""The parameters of functions that have no signature."""

_ALIASES = {
    "__add__": "add", "__radd__": "add", "__iadd__": "add", "add_": "add", "__sub__": "sub", "__mul__": "mul",
    "__rmul__": "mul", "__imul__": "mul", "mul_": "mul", "__truediv__": "div", "__matmul__": "matmul", "__pow__": "pow",
    "true_divide": "div", "concat": "cat", "concatenate": "cat", "masked_fill_": "masked_fill", "relu_": "relu",
    "_log_softmax": "log_softmax", "_softmax": "softmax", "view": "reshape", "swapaxes": "transpose",
    "__lt__": "lt", "__le__": "le", "__gt__": "gt", "__ge__": "ge", "less": "lt", "greater": "gt",
    "max_pool1d_with_indices": "max_pool1d", "boolean_dispatch": "max_pool",
}  # fmt: skip


@dataclass
class Call:
    """One call of one torch function.

    Attributes:
        name: of the function; methods and operators go by the function's.
        index: the how-manyeth call of the pass.
        arguments: by name, where names are known; else empty.
        function: as it was called.
        positional: as it was called with.
        keywords: the same.
        owner: the path of the layer whose code calls it.
        varies: which positional arguments come of what has gradients.
    """

    name: str
    index: int
    function: Callable[..., Any]
    positional: tuple[Any, ...]
    keywords: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    owner: str = ""
    varies: tuple[bool, ...] = ()

    def run(self, **changes: Any) -> Any:
        """The call with other arguments."""
        if not changes:
            return self.function(*self.positional, **self.keywords)
        arguments = self.arguments | changes
        if self.name in BUILTIN:
            order = BUILTIN[self.name].split()
            count = len(self.positional)
            head = [arguments.pop(name) for name in order[:count]]
            return self.function(*head, **{k: v for k, v in arguments.items() if k in self.keywords or k in changes})
        return self.function(**arguments)

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)


Mutation = tuple[str, str, Callable[[Call], Any]]
"""A suspect, the mistake in words, and the call as it would be with that mistake."""


Mutated = dict[int, Callable[[Call], Any]]
"""How to do some of a pass's calls, by their indices."""


class Calls(TorchFunctionMode):
    """Notes every call of a torch function; or does those of ``mutated`` otherwise."""

    def __init__(self, mutated: Mutated | None = None) -> None:
        super().__init__()
        self.mutated = mutated
        self.noted: list[Call] = []
        self.count = 0
        self.hidden = 0
        self.owners = [""]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call, passed on."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "size", "dim", "is_floating_point", "numel", "__len__", "__hash__"):
            return func(*args, **kwargs)
        name = _ALIASES.get(name, name)
        index, self.count = self.count, self.count + 1
        if self.mutated is not None and index in self.mutated:
            return self.mutated[index](_bound(name, index, func, args, kwargs))
        if self.mutated is None and not self.hidden:
            kept = torch_tree.tree_map(lambda x: x.detach() if type(x) is torch.Tensor else x, (args, kwargs))
            varies = tuple(isinstance(x, torch.Tensor) and x.requires_grad for x in args)
            self.noted.append(replace(_bound(name, index, func, *kept), owner=self.owners[-1], varies=varies))
        return func(*args, **kwargs)


def _bound(name: str, index: int, func: Any, args: Any, kwargs: Any) -> Call:
    call = Call(name, index, func, args, kwargs)
    if name in BUILTIN:
        call.arguments = dict(zip(BUILTIN[name].split(), args, strict=False)) | kwargs
        return call
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (ValueError, TypeError):
        return call
    bound.apply_defaults()
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in inspect.signature(func).parameters.values()):
        return call
    call.arguments = dict(bound.arguments)
    return call


class Experiment:
    """One torch layer on one call's inputs, run again and again with something changed."""

    def __init__(
        self,
        layer: torch.nn.Module,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        draws: Sequence[torch.Tensor],
        hidden: Sequence[str] = (),
    ) -> None:
        self.layer = layer
        self.arguments = arguments
        self.draws = list(draws)
        self.hidden = hidden
        self.noted: list[Call] = []

    def calls(self, *, differentiated: bool = False) -> list[Call]:
        """The functions the layer calls outside the layers in it that are hidden; all that its inputs and parameters
        lead to has gradients if ``differentiated``."""
        calls = Calls()
        layer = copy.deepcopy(self.layer)
        for path in self.hidden:
            inner = layer.get_submodule(path)
            inner.register_forward_pre_hook(lambda *_: _shift(calls, 1))
            inner.register_forward_hook(lambda *_: _shift(calls, -1), always_call=True)
        for path, inner in layer.named_modules():
            inner.register_forward_pre_hook(lambda *_, p=path: calls.owners.append(p))
            inner.register_forward_hook(lambda *_: _left(calls), always_call=True)  # the model may catch what it raises
        with calls:
            self._run(layer, varied=differentiated)
        self.noted = calls.noted
        return calls.noted

    def place(self, call: Call) -> str:
        """Where the call stands, for a layer that makes many: ``in its third add: ``."""
        if not self.hidden:
            return ""
        same = [c.index for c in self.noted if (c.name, c.owner) == (call.name, call.owner)]
        where = f"{call.owner}'s {call.name}" if call.owner else call.name
        return f"in {where}, {same.index(call.index) + 1} of {len(same)}: " if len(same) > 1 else f"in {where}: "

    def outputs(
        self,
        mutated: Mutated | None = None,
        change: Callable[[torch.nn.Module], Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> dict[str, Any]:
        """The layer's outputs by name, with some calls done otherwise or the layer itself changed."""
        layer = copy.deepcopy(self.layer)
        if change is not None:
            with torch.no_grad():
                change(layer)
        with Calls(mutated) if mutated is not None else nullcontext():
            output = self._run(layer, dtype)
        return named(output)

    def tensors(self, mutated: Mutated) -> dict[str, torch.Tensor]:
        """As :meth:`outputs`, with the gradients of what stands in the calls that are done otherwise."""
        layer = copy.deepcopy(self.layer)
        with Calls(mutated):
            return named_tensors(self._run(layer))

    def buffers(self, change: Callable[[torch.nn.Module], Any] | None = None) -> dict[str, Any]:
        """The statistics behind the call."""
        layer = copy.deepcopy(self.layer)
        if change is not None:
            change(layer)
        self._run(layer)
        return {name: to_numpy(x) for name, x in layer.named_buffers(recurse=False)}

    def _run(self, layer: torch.nn.Module, dtype: torch.dtype | None = None, *, varied: bool = False) -> Any:
        def own(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            x = x.detach().requires_grad_(varied and x.is_floating_point()).clone()
            return x.to(dtype) if dtype is not None and x.is_floating_point() else x

        if dtype is not None:
            layer = layer.to(dtype)
        layer.requires_grad_(varied)  # so that no graph is kept, unless the layer differentiates
        args, kwargs = torch_tree.tree_map(own, self.arguments)
        with torch.enable_grad(), _plain_attention(), Draws(self.draws):
            return layer(*args, **kwargs)


def named(output: Any) -> dict[str, Any]:
    """The tensors of an output as arrays, by where they stand in it."""
    return {name: to_numpy(x) for name, x in named_tensors(output).items()}


def named_tensors(output: Any) -> dict[str, torch.Tensor]:
    """The same as tensors."""
    leaves = with_paths(output)
    return {f"output{torch_tree.keystr(path)}": x for path, x in leaves if isinstance(x, torch.Tensor)}


def _shift(calls: Calls, by: int) -> None:
    calls.hidden += by


def _left(calls: Calls) -> None:
    calls.owners.pop()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Layers of attention call their parts, not one fused kernel."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
