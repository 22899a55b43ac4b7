"""The containers of a model's results, and the classes among them, as Python writes them."""

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Any

from parity.porting.errors import PortError
from parity.porting.source.formatting import wrapped


def structured(spec: Any, leaves: Iterator[Any], text: Callable[[Any], str], row: Callable[[list[Any]], str]) -> str:
    """The result: tuples, lists, dicts, named tuples and dataclasses as they were.

    Args:
        spec: of ``torch.utils._pytree``.
        leaves: what the containers hold, in its order.
        text: how a leaf is written.
        row: how a list of leaves is.
    """
    if spec.type is None:
        return text(next(leaves))
    if spec.type is list and all(child.type is None for child in spec.children()):
        return row([next(leaves) for _ in spec.children()])
    parts = [structured(child, leaves, text, row) for child in spec.children()]
    keys = _keys(spec)
    kind = _kind(spec)
    if kind is not None:
        if keys is None:
            return f"{kind.__name__}({', '.join(parts)})"
        return f"{kind.__name__}({', '.join(f'{key}={part}' for key, part in zip(keys, parts, strict=True))})"
    if spec.type is list:
        return f"[{', '.join(parts)}]"
    if keys is not None:
        return f"{{{', '.join(f'{key!r}: {part}' for key, part in zip(keys, parts, strict=True))}}}".replace("'", '"')
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def classes(spec: Any, leaves: Iterator[str]) -> dict[str, str]:
    """The source of every class that :func:`structured` names, by its name; those used by others first.

    Args:
        spec: of ``torch.utils._pytree``.
        leaves: the types of what the containers hold, in its order.
    """
    found: dict[type, list[list[str]]] = {}
    _annotation(spec, leaves, found)
    sources: dict[str, str] = {}
    for kind, rows in found.items():
        sources.setdefault(kind.__name__, _source(kind, [_common(column) for column in zip(*rows, strict=True)]))
    return sources


def _annotation(spec: Any, leaves: Iterator[str], found: dict[type, list[list[str]]]) -> str:
    """The type of what :func:`structured` writes; those of what each object of a class holds are added to ``found``."""
    if spec.type is None:
        return next(leaves)
    parts = [_annotation(child, leaves, found) for child in spec.children()]
    kind = _kind(spec)
    if kind is not None:
        found.setdefault(kind, []).append(parts)
        return kind.__name__
    if spec.type is list:
        return f"list[{_common(parts)}]" if parts else "list"
    return "tuple" if _keys(spec) is None else "dict"


def _common(types: Collection[str]) -> str:
    """What is true of all."""
    kinds = {*types} - {"None"}
    optional = " | None" if "None" in types and kinds else ""
    return "Any" if len(kinds) > 1 else "".join(kinds or {"None"}) + optional


def _kind(spec: Any) -> type | None:
    """The dataclass or named tuple that the container is."""
    kind = spec.context if isinstance(spec.context, type) else spec.type
    if not isinstance(kind, type):
        return None
    return kind if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields") else None


def _keys(spec: Any) -> list[Any] | None:
    """The names of what a container holds, where it has names; the keys of a dict, whatever they are."""
    keys = spec.context
    if spec.type in (dict, OrderedDict, defaultdict):
        return _sorted_keys(keys[1] if spec.type is defaultdict else keys)
    if isinstance(keys, list | tuple) and keys and isinstance(keys[0], list | tuple):
        keys = keys[0]  # a dataclass also notes which fields were None
    named = isinstance(keys, list | tuple) and len(keys) == spec.num_children and all(isinstance(k, str) for k in keys)
    return list(keys) if named else None


def _sorted_keys(keys: list[Any]) -> list[Any]:
    """The keys of a dict, in its order.

    Raises:
        PortError: JAX cannot sort them, or they cannot be written.
    """
    try:
        sorted(keys)
    except TypeError:
        raise PortError(f"port: the model returns a dict whose keys JAX cannot sort: {keys}") from None
    if not all(_is_literal(key) for key in keys):
        raise PortError(f"port: the model returns a dict whose keys cannot be written: {keys}")
    return keys


def _is_literal(key: Any) -> bool:
    return all(map(_is_literal, key)) if type(key) is tuple else type(key) in (str, int, float, bool, bytes, type(None))


def _source(kind: Any, types: list[str]) -> str:
    if hasattr(kind, "_fields"):
        said = kind.__doc__.splitlines()[0]
        doc = [] if said.startswith(f"{kind.__name__}(") else [f'    """{said}"""', ""]
        held = [f"    {name}: {held}" for name, held in zip(kind._fields, types, strict=True)]
        return "\n".join([f"class {kind.__name__}(NamedTuple):", *doc, *held])
    held = [f"    {field.name}: Any = None" for field in dataclasses.fields(kind)]
    head = ["@jax.tree_util.register_dataclass", "@dataclass", f"class {kind.__name__}:"]
    return "\n".join([*head, *held])


def guards(name: str, value: Any) -> list[str]:
    """What refuses another value of an argument that is a constant of the port."""
    differs = f"{name} is not {value!r}" if value is None or isinstance(value, bool) else f"{name} != {value!r}"
    message = f'raise ValueError(f"{name} is fixed to {value!s}, got {{{name}}}")'.replace("'", "")
    return [f"if {differs}:".replace("'", '"'), wrapped(message, 4)]
