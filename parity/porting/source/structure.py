"""The containers of a model's results, and the classes among them, as Python writes them."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

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


def classes(spec: Any) -> dict[str, str]:
    """The source of every class that :func:`structured` names, by its name; those used by others first."""
    found: dict[str, str] = {}
    for child in () if spec.type is None else spec.children():
        found |= classes(child)
    kind = _kind(spec)
    if kind is not None:
        found.setdefault(kind.__name__, _source(kind, spec))
    return found


def _kind(spec: Any) -> type | None:
    """The dataclass or named tuple that the container is."""
    kind = spec.context if isinstance(spec.context, type) else spec.type
    if not isinstance(kind, type):
        return None
    return kind if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields") else None


def _keys(spec: Any) -> list[str] | None:
    """The names of what a container holds, where they are names."""
    keys = spec.context
    if isinstance(keys, list | tuple) and keys and isinstance(keys[0], list | tuple):
        keys = keys[0]  # a dataclass also notes which fields were None
    named = isinstance(keys, list | tuple) and len(keys) == spec.num_children and all(isinstance(k, str) for k in keys)
    return list(keys) if named else None


def _source(kind: Any, spec: Any) -> str:
    if hasattr(kind, "_fields"):
        said = kind.__doc__.splitlines()[0]
        doc = [] if said.startswith(f"{kind.__name__}(") else [f'    """{said}"""', ""]
        held = [f"    {name}: {_annotation(part)}" for name, part in zip(kind._fields, spec.children(), strict=True)]
        return "\n".join([f"class {kind.__name__}(NamedTuple):", *doc, *held])
    held = [f"    {field.name}: Any = None" for field in dataclasses.fields(kind)]
    head = ["@jax.tree_util.register_dataclass", "@dataclass", f"class {kind.__name__}:"]
    return "\n".join([*head, *held])


def _annotation(spec: Any) -> str:
    if spec.type is None:
        return "jax.Array"
    kind = _kind(spec)
    if kind is not None:
        return kind.__name__
    inner = {_annotation(part) for part in spec.children()}
    return f"list[{inner.pop()}]" if spec.type is list and len(inner) == 1 else spec.type.__name__


def guards(name: str, value: Any) -> list[str]:
    """What refuses another value of an argument that is a constant of the port."""
    differs = f"{name} is not {value!r}" if value is None or isinstance(value, bool) else f"{name} != {value!r}"
    message = f'raise ValueError(f"{name} is fixed to {value!s}, got {{{name}}}")'.replace("'", "")
    return [f"if {differs}:".replace("'", '"'), wrapped(message, 4)]
