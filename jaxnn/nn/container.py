"""Modules made of modules."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from flax import nnx

from jaxnn.nn.module import Module, children


class _Container(Module):
    """Modules under the names they are given, in order."""

    def _add(self, name: str, module: object) -> None:
        if not isinstance(module, nnx.Module):
            raise TypeError(f"{type(self).__name__}: {name} must be a module, got {type(module).__name__}")
        setattr(self, name, module)

    def __len__(self) -> int:
        return sum(1 for _ in children(self))


class _Numbered(_Container):
    """The first module stands under the path ``0``, the next under ``1``."""

    def __iter__(self) -> Iterator[Any]:
        return (module for _, module in children(self))

    def __getitem__(self, index: int | slice) -> Any:
        return list(self)[index]

    def append(self, module: nnx.Module) -> "_Numbered":
        """Add ``module`` at the end."""
        self._add(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[nnx.Module]) -> "_Numbered":
        """Add ``modules`` at the end."""
        for module in modules:
            self.append(module)
        return self


class Sequential(_Numbered):
    """Its modules one after the other, each fed with the one before; given a dict, they stand under its keys.

    Source: ``torch.nn.Sequential``.
    """

    def __init__(self, *args: Any) -> None:
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self._add(name, module)
        else:
            self.extend(args)

    def __call__(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input


class ModuleList(_Numbered):
    """A list of modules. Source: ``torch.nn.ModuleList``."""

    def __init__(self, modules: Iterable[nnx.Module] | None = None) -> None:
        self.extend(modules or ())

    def __repr__(self) -> str:
        """Equal neighbours stand once, with their count, as torch prints them."""
        lines, start, printed = [], 0, [repr(module) for module in self]
        for text, run in groupby(printed):
            count = len(list(run))
            label = f"({start}): {text}" if count == 1 else f"({start}-{start + count - 1}): {count} x {text}"
            lines.append("\n  " + label.replace("\n", "\n  "))
            start += count
        return f"{type(self).__name__}({''.join(lines)}" + ("\n)" if lines else ")")


class ModuleDict(_Container):
    """Modules by name. Source: ``torch.nn.ModuleDict``."""

    def __init__(self, modules: Mapping[str, nnx.Module] | None = None) -> None:
        for name, module in (modules or {}).items():
            self._add(name, module)

    def __getitem__(self, name: str) -> Any:
        return dict(children(self))[name]

    def __setitem__(self, name: str, module: nnx.Module) -> None:
        self._add(name, module)

    def __contains__(self, name: str) -> bool:
        return any(name == known for known, _ in children(self))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        """The names, in order."""
        return [name for name, _ in children(self)]

    def values(self) -> list[Callable[..., Any]]:
        """The modules, in order."""
        return [module for _, module in children(self)]  # type: ignore[misc]

    def items(self) -> list[tuple[str, Any]]:
        """Names and modules, in order."""
        return list(children(self))
