"""What things are called: attributes by their path, values by the line of torch source that made them."""

import keyword
import re

import torch
from torch.fx import Node

RESERVED = {
    "self", "jnp", "jax", "nnx", "nn", "F", "rngs", "range", "slice", "bool", "dict", "getattr", *keyword.kwlist,
}  # fmt: skip


def access(scope: str, path: str, modules: dict[str, torch.nn.Module]) -> str:
    """``self`` with the attributes and indices that lead from ``scope`` to ``path``."""
    if scope and not path.startswith(f"{scope}."):
        path = _alias(scope, path, modules)
    rest = path[len(scope) :].lstrip(".")
    text, at = "self", scope
    for name in rest.split(".") if rest else ():
        parent = modules.get(at)
        if type(parent) in (torch.nn.ModuleDict, torch.nn.ParameterDict):
            text += f'["{name}"]'
        elif name.isdigit() and at != scope and is_indexed(parent):
            text += f"[{name}]"
        elif name.isidentifier() and not keyword.iskeyword(name):
            text += f".{name}"
        else:
            text = f'getattr({text}, "{name}")'
        at = f"{at}.{name}".lstrip(".")
    return text


def is_indexed(module: torch.nn.Module | None) -> bool:
    """Whether the members are reached by number, as in a plain list or chain; a class of its own has attributes."""
    chained = isinstance(module, torch.nn.Sequential) and type(module).forward is torch.nn.Sequential.forward
    return chained or type(module) in (torch.nn.ModuleList, torch.nn.ParameterList)


def _alias(scope: str, path: str, modules: dict[str, torch.nn.Module]) -> str:
    """Another path of the same module, parameter or buffer, within ``scope``."""
    owner, _, name = path.rpartition(".")
    wanted = modules[path] if path in modules else getattr(modules[owner], name)
    inside = modules[scope]
    named = (
        inside.named_modules(remove_duplicate=False)
        if path in modules
        else (*inside.named_parameters(remove_duplicate=False), *inside.named_buffers(remove_duplicate=False))
    )
    return next((f"{scope}.{name}" for name, thing in named if thing is wanted), path)


def source_lines(node: Node) -> list[str]:
    """The lines of torch source that led to ``node``, innermost last."""
    lines = (node.meta.get("stack_trace") or "").strip().splitlines()
    return [line.strip() for line in lines if not line.strip().startswith(("File ", "^", "~"))]


def source_places(node: Node | None) -> list[tuple[str, int]]:
    """The files and numbers of these lines."""
    trace = (node.meta.get("stack_trace") or "") if node is not None else ""
    return [(file, int(line)) for file, line in re.findall(r'File "([^"]*)", line (\d+)', trace)]


def source_line(node: Node) -> str:
    """The innermost line of torch source of ``node``."""
    lines = source_lines(node)
    return lines[-1] if lines else ""


def naming_line(node: Node) -> str:
    """The line of torch source that gives ``node`` a name: what a function returns, its caller names."""
    places = [line for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File ")]
    lines = source_lines(node)
    if len(places) != len(lines):
        return source_line(node)
    while len(lines) > 1 and lines[-1].startswith("return ") and not places[-1].endswith(" in forward"):
        del lines[-1], places[-1]
    return lines[-1] if lines else ""


def assigned(line: str, part: int | None = None) -> str | None:
    """What a line of Python assigns to; of several names, nested ones among them, the one at ``part``."""
    match = re.match(r"^(\(*[A-Za-z_]\w*(?:\s*,\s*\(*[A-Za-z_]\w*\)*)*,?)\s*(?::[^=]*)?[-+*/@]?=(?!=)", line)
    if match is None:
        return None
    names = [name.strip(" ()") for name in match[1].split(",")]
    if part is None:
        return names[0] if len(names) == 1 else None
    if len(names) == 1:
        return None
    return names[part] if part < len(names) and names[part] not in ("", "_") else None


def singular(name: str) -> str:
    """What one of ``name`` is called."""
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    if name.endswith("s") and not name.endswith("ss") and len(name) > 1:
        return name[:-1]
    if name.rpartition("_")[2] in ("layer", "block", "stage"):
        return name  # as BERT's ``encoder.layer``, a list
    return f"{name}_layer" if len(name) > 1 and not name.isdigit() else "layer"
