"""Modules made of modules."""

from collections.abc import Callable, Iterator
from typing import Any

from flax import nnx

from jaxnn.nn.module import Module, children


class Sequential(Module):
    """Its modules one after the other, each fed with the one before.

    The first module stands under the path ``0``, the next under ``1``; given a dict, under its keys.

    Source: ``torch.nn.Sequential``.
    """

    def __init__(self, *args: Any) -> None:
        named = (
            args[0].items()
            if len(args) == 1 and isinstance(args[0], dict)
            else ((str(i), m) for i, m in enumerate(args))
        )
        for name, module in named:
            if not isinstance(module, nnx.Module):
                raise TypeError(f"Sequential: {name} must be a module, got {type(module).__name__}")
            setattr(self, name, module)

    def __call__(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return (module for _, module in children(self))  # type: ignore[misc]

    def __len__(self) -> int:
        return len(list(children(self)))

    def __getitem__(self, index: int) -> Any:
        return list(self)[index]
