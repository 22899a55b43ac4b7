"""What stands around an export, so that it sees the model as it is and leaves it so."""

import inspect
import io
import logging
import os
import sys
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any
from unittest import mock

import torch
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode

from parity import standing_in


@contextmanager
def quiet() -> Iterator[None]:
    """Without what export logs, warns of and prints: all of it is in its error."""
    level = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def unchecked() -> Iterator[None]:
    """Without torch's looks at values that decide nothing of the result.

    Distributions validate their arguments, and ``nn.Transformer`` compares its mask with a causal one to choose a
    faster kernel. No value is known while a model is exported.
    """
    validates, detects = torch.distributions.Distribution._validate_args, transformer._detect_is_causal_mask
    torch.distributions.Distribution.set_default_validate_args(False)
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(validates)
        transformer._detect_is_causal_mask = detects


@contextmanager
def unmoved() -> Iterator[None]:
    """Lets ``module.to(dtype)`` do nothing where nothing changes: what stands for parameters cannot be replaced."""
    original = torch.nn.Module._apply

    def apply(self: torch.nn.Module, function: Any, recurse: bool = True) -> torch.nn.Module:
        held = [x for found in (self.parameters(recurse), self.buffers(recurse)) for x in found]
        moved = map(function, held)
        same = all(new.dtype == old.dtype and new.device == old.device for new, old in zip(moved, held, strict=True))
        return self if same else original(self, function, recurse)

    torch.nn.Module._apply = apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module._apply = original  # type: ignore[method-assign]


@contextmanager
def counted(module: torch.nn.Module) -> Iterator[None]:
    """Lets ``len(x)`` be ``x.shape[0]`` in the files of the model's classes: Python makes a number of a free size."""
    kinds = {kind for part in module.modules() for kind in type(part).__mro__}
    files = {kind.__module__ for kind in kinds if not kind.__module__.startswith("torch.")} - {"builtins"}
    spaces = [vars(sys.modules[name]) for name in files if name in sys.modules and "len" not in vars(sys.modules[name])]
    for space in spaces:
        space["len"] = _length
    try:
        yield
    finally:
        for space in spaces:
            del space["len"]


def _length(x: Any) -> Any:
    return x.shape[0] if isinstance(x, torch.Tensor) and x.ndim else len(x)


@contextmanager
def named(module: torch.nn.Module, kwargs: dict[str, Any]) -> Iterator[None]:
    """Shows the arguments that ``forward`` takes by ``**kwargs`` in its signature: export frees no size of others."""
    function: Any = getattr(module.forward, "__func__", module.forward)
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in kwargs if name not in signature.parameters
    ]
    takes_any = parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    if not takes_any or not more or not inspect.isfunction(function):
        yield
        return
    with mock.patch.object(
        function, "__signature__", signature.replace(parameters=[*parameters[:-1], *more, parameters[-1]]), create=True
    ):
        yield


@contextmanager
def located() -> Iterator[None]:
    """Notes the lines of functions that ``forward`` calls too: export notes those of ``forward`` alone."""
    tracer: Any = torch.fx.proxy.TracerBase
    own = tracer.__dict__.get("_filter_traceback_frames")
    machinery = os.path.dirname(torch.__file__), os.path.dirname(__file__), standing_in.__file__
    layers = os.path.dirname(torch.nn.__file__)

    def kept(_: Any, frames: traceback.StackSummary) -> traceback.StackSummary:
        first = next((i for i, frame in enumerate(frames) if frame.name == "forward"), len(frames))
        users = [
            frame
            for frame in frames[first:]
            if not frame.filename.startswith(machinery)
            or (frame.name == "forward" and frame.filename.startswith(layers))
        ]
        return traceback.StackSummary.from_list(users)

    tracer._filter_traceback_frames = kept
    try:
        yield
    finally:
        if own is None:
            del tracer._filter_traceback_frames
        else:
            tracer._filter_traceback_frames = own


@contextmanager
def as_eager() -> Iterator[None]:
    """Models that ask are told that nobody compiles or exports: some do another thing then, and some a wrong one."""
    compiling, exporting = torch.compiler.is_compiling, torch.compiler.is_exporting
    torch.compiler.is_compiling = torch.compiler.is_exporting = lambda: False
    try:
        yield
    finally:
        torch.compiler.is_compiling, torch.compiler.is_exporting = compiling, exporting


@contextmanager
def forgotten(module: torch.nn.Module, forgets: bool) -> Iterator[None]:
    """If it ``forgets``, without the tensors that ``module`` keeps of earlier calls.

    They would be numbers, not what they are made of.
    """
    caches = [(cache, cache.copy()) for cache in kept_tensors(module)] if forgets else []
    for cache, _ in caches:
        cache.clear()
    try:
        yield
    finally:
        for cache, content in caches:
            cache.clear()
            cache.update(content)


def kept_tensors(module: torch.nn.Module) -> list[dict[Any, torch.Tensor]]:
    """The dicts of tensors that modules have besides their parameters and buffers."""
    usual = vars(torch.nn.Module())
    held = [x for part in module.modules() for name, x in vars(part).items() if name not in usual and type(x) is dict]
    return [x for x in held if x and all(isinstance(entry, torch.Tensor) for entry in x.values())]


@contextmanager
def kept(module: torch.nn.Module) -> Iterator[Callable[[], set[str]]]:
    """Modules as they were, whatever attributes, caches and buffers ``forward`` gives them: export has no values.

    Gives what names the attributes that have been changed so far; export itself takes some of them back.
    """
    held = [(path, part, dict(vars(part))) for path, part in module.named_modules()]
    plain = dict, OrderedDict, list, set
    containers = [
        (f"{path}.{name}".lstrip("."), x, x.copy())
        for path, _, before in held
        for name, x in before.items()
        if type(x) in plain
    ]
    usual = vars(torch.nn.Module())

    def changed() -> set[str]:
        found = {path for path, x, content in containers if _members(x) != _members(content)}
        for path, part, before in held:
            new = (name for name, x in vars(part).items() if x is not before.get(name, _NOTHING))
            found |= {f"{path}.{name}".lstrip(".") for name in new}
        return {path for path in found if path.rpartition(".")[2] not in usual}

    try:
        yield changed
    finally:
        for _, part, before in held:
            vars(part).clear()
            vars(part).update(before)
        for _, x, content in containers:
            x.clear()
            x.extend(content) if isinstance(x, list) else x.update(content)


_NOTHING = object()


def _members(container: Any) -> list[int]:
    """What a container holds, by identity."""
    return [id(x) for x in (container.values() if isinstance(container, dict) else container)]


_DATA: Any = torch.Tensor.data


class Distinct(TorchFunctionMode):
    """Gives operators that may return their very argument another name for it, and ``x.data`` for ``x.detach()``.

    The tracer knows a tensor by its identity. Without this, what is read after ``dropout(x)`` in evaluation mode would
    read the result where the model says ``x``, and after ``x.float()`` of a float32 tensor likewise. Of ``x.data`` it
    knows nothing.
    """

    _MAY_RETURN_ARGUMENT = frozenset(
        [
            *(getattr(torch.Tensor, name) for name in ("to", "contiguous", "type", "type_as", "float", "double")),
            *(
                getattr(torch.Tensor, name)
                for name in ("half", "bfloat16", "int", "long", "bool", "reshape", "flatten")
            ),
            *(getattr(torch.nn.functional, name) for name in ("dropout", "dropout1d", "dropout2d", "dropout3d")),
            *(getattr(torch.nn.functional, name) for name in ("alpha_dropout", "feature_alpha_dropout")),
            torch.dropout,
            torch.flatten,
            torch.reshape,
        ]
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _DATA.__get__:
            return args[0].detach()
        if func == _DATA.__set__ and args[0].shape == args[1].shape and args[0].dtype == args[1].dtype:
            return args[0].detach().copy_(args[1])
        if func in self._MAY_RETURN_ARGUMENT and args and not torch.compiler.is_dynamo_compiling():
            args = (torch.ops.aten.alias.default(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))
