"""Classes for the modules of a model: one for each torch class and body."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import Any

import torch

from parity.porting.errors import PortError
from parity.porting.operators.expression import constant, plain, skeleton
from parity.porting.source.body import Body, Unsupported
from parity.porting.source.call import Call
from parity.porting.source.drafts import Draft, class_of
from parity.porting.source.inheritance import ARRAYS
from parity.porting.source.layers import CONTAINERS, assignment, has_twin, layer, zeros
from parity.porting.source.levels import kind_of, levels
from parity.porting.source.naming import access
from parity.porting.source.optional import joined
from parity.porting.source.statements import Writer
from parity.porting.source.tree import is_chain


class Author:
    """Writes the classes of a model, those of the inner modules first."""

    def __init__(self, model: torch.nn.Module, root: Call, used_names: set[str]) -> None:
        self.model, self.root, self.used_names = model, root, used_names
        self.modules: dict[str, torch.nn.Module] = dict(model.named_modules(remove_duplicate=False))
        self.paths = {id(module): path for path, module in reversed(list(self.modules.items()))}
        self.unsupported: list[Unsupported] = []
        self.drafts: dict[str, Draft] = {}
        self.classes: dict[tuple[Any, str], tuple[str, list[Draft]]] = {}
        self.sources: list[str] = []
        self.arrays: dict[str, torch.Tensor] = {}
        self.scope = ""  # the module whose class is being written
        self.placed: set[str] = set()  # paths of shared modules that are written as the one they are
        self.called = {call.path for call in _all(root)}
        self.entered = self.called | {parent for path in self.called for parent in _parents(path)}
        self.ties = self._tied()
        self.derived = {call.path for call in _written(root) if any(inner.path == call.path for inner in call.calls())}
        self.leaves = {id(call.module) for call in _all(root) if call.leaf and call.path not in self.derived}

    def write(self, face: Any) -> list[str]:
        """The source of every class, the model's own last."""
        calls: dict[str, list[Call]] = defaultdict(list)
        for call in _written(self.root):
            calls[call.path].append(call)
        for path, module in self.modules.items():
            if path not in calls and self._needs_class(path, module):
                calls[path] = []
        for level in levels(calls.keys(), self.modules, self.paths):
            for path in level:
                self._draft(path, calls[path], face)
            self._grouped([self.drafts[path] for path in level])
        return self.sources

    def _needs_class(self, path: str, module: torch.nn.Module) -> bool:
        """Whether a module that is never called holds something to be carried along, or is the way to one called."""
        if path not in self.paths.values() or self._is_layer(module) or type(module) in CONTAINERS:
            return False
        inside_leaf = any(self._is_layer(self.modules[p]) for p in _parents(path))
        return not inside_leaf and self._wanted(path, module)

    def _is_layer(self, module: torch.nn.Module) -> bool:
        return has_twin(module) or id(module) in self.leaves

    # One module.

    def _draft(self, path: str, calls: list[Call], face: Any) -> None:
        module = self.modules[path]
        draft = self.drafts[path] = Draft(path, module, calls)
        self.scope = path
        if calls and isinstance(module, torch.nn.Sequential) and all(is_chain(call) for call in calls):
            draft.bases = "nn.Sequential"
            draft.constructor.append(f"super().__init__({self._members(path, module)})")
            draft.constructor += self._joined(path)
            return
        for call in calls:
            writer = Writer(call, draft.extras, self.method, {}, self.unsupported, self.modules)
            body = writer.body() if path else face.body(writer)
            same = next((name for name, known in draft.methods.items() if _same(known, body)), None)
            name = same or ("__call__" if not draft.methods else f"call_{len(draft.methods) + 1}")
            draft.methods[name] = body
            draft.method_of[call.index] = name
        draft.constructor += self._constructor(draft)

    def method(self, call: Call) -> tuple[str, list[Any]]:
        """The method that does what ``call`` did, and the sizes it wants besides arrays."""
        draft = self.drafts.get(call.path)
        if draft is None or not draft.methods:
            return "__call__", []
        name = draft.method_of[call.index]
        return name, draft.methods[name].sizes

    def _constructor(self, draft: Draft) -> Iterator[str]:
        module, path = draft.module, draft.path
        tied = {name for name, _ in self.ties}
        inherited: Collection[str] = ()
        if path in self.derived:
            (draft.bases, _, given), inherited = layer(module).partition("("), ARRAYS
            yield f"super().__init__({given}"
        for name, parameter in module._parameters.items():
            full = f"{path}.{name}".lstrip(".")
            if parameter is not None and full not in tied and name not in inherited:
                kind = "nnx.Param" if parameter.requires_grad or parameter.is_floating_point() else "nn.Buffer"
                yield assignment(name, f"{kind}({zeros(parameter)})")
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set and name not in inherited:
                yield assignment(name, f"nn.Buffer({zeros(buffer)})")
        for name, array in draft.extras.arrays.items():
            self.arrays[f"{path}.{name}".lstrip(".")] = array
            yield assignment(name, f"nn.Buffer({zeros(array)})")
        for name, child in module._modules.items():
            if child is None:
                continue
            child_path = f"{path}.{name}".lstrip(".")
            original = self.paths[id(child)]
            if not self._wanted(original, child):
                continue
            if original != child_path and _inside(original, path):
                self.placed.add(child_path)
                yield assignment(name, access(path, original, self.modules))
                continue
            if original == child_path or self._interchangeable(child, original):
                yield assignment(name, self._built(original if original in self.drafts else child_path, child))
        for name, built in draft.extras.layers.items():
            yield assignment(name, built)
        if draft.extras.switched:
            yield f"self.deterministic = {not module.training}"
        if draft.extras.random:
            yield 'self.rngs = rngs["default"].fork()'
        yield from self._joined(path)

    def _joined(self, path: str) -> Iterator[str]:
        """What makes one of parameters and modules that have two places, in the innermost class around both."""
        for name, original in self.ties:
            if self._class_around(name, original) == path:
                owner, _, attribute = name.rpartition(".")
                value = access(path, original, self.modules)
                yield assignment(attribute, value, access(path, owner, self.modules))
        for shared, original in self._shared_modules():
            if self._class_around(shared, original) == path and shared not in self.placed:
                place, value = access(path, shared, self.modules), access(path, original, self.modules)
                if place.endswith("]"):
                    yield f"{place} = {value}"
                else:
                    owner, _, name = shared.rpartition(".")
                    yield assignment(name, value, access(path, owner, self.modules))

    def _class_around(self, a: str, b: str) -> str:
        """The innermost module around both that is a class, of those begun so far."""
        path = _common(a, b)
        while path and path not in self.drafts:
            path = path.rpartition(".")[0]
        return path

    def _shared_modules(self) -> list[tuple[str, str]]:
        found = []
        for path, module in self.modules.items():
            original = self.paths[id(module)]
            parent = path.rpartition(".")[0]
            known = original == path or self._interchangeable(module, original)
            if not known and self._wanted(original, module) and self.paths[id(self.modules[parent])] == parent:
                found.append((path, original))
        return found

    def _interchangeable(self, module: torch.nn.Module, original: str) -> bool:
        """Whether another instance would do: it holds no arrays, and what it is made of is known."""
        return not module.state_dict() and (self._is_layer(module) or original in self.drafts)

    def _wanted(self, path: str, child: torch.nn.Module) -> bool:
        """Whether the module is called, or holds arrays."""
        return path in self.entered or bool(child.state_dict())

    def _built(self, path: str, child: torch.nn.Module) -> str:
        """The expression that constructs ``child``."""
        if path in self.drafts:
            draft = self.drafts[path]
            inside = [part for part in (draft.arguments, "rngs=rngs" if draft.needs_rngs() else "") if part]
            return f"{draft.class_name}({', '.join(inside)})"
        if isinstance(child, torch.nn.ParameterList):
            if any(isinstance(entry, torch.nn.Module) for entry in child):
                entries = [self._entry(f"{path}.{i}", entry) for i, entry in enumerate(child)]
                return f"nnx.List([{', '.join(entries)}])"
            return f"nn.ParameterList([{', '.join(zeros(p) for p in child)}])"
        if isinstance(child, torch.nn.ParameterDict):
            held = ", ".join(f'("{name}", {zeros(p)})' for name, p in child.items())
            return f"nn.ParameterDict([{held}])"
        if self._is_layer(child):
            return layer(child)
        if isinstance(child, torch.nn.ModuleDict):
            return f"nn.ModuleDict({self._members(path, child)})"
        if type(child) in CONTAINERS:
            return self._listed(path, child)
        shared = self.paths[id(child)] != path  # and put in its place when the one that it is has been built
        if not shared and child.state_dict():
            raise PortError(f"port: {path} ({type(child).__name__}) is never called, and nothing says how to build it")
        return "nn.Identity()"

    def _entry(self, path: str, entry: torch.Tensor | torch.nn.Module) -> str:
        """A parameter, or a module, in a list that holds both."""
        return self._built(path, entry) if isinstance(entry, torch.nn.Module) else f"nnx.Param({zeros(entry)})"

    def _members(self, path: str, container: torch.nn.Module) -> str:
        """The modules of a container as its arguments: in a row, or by name where the names are no numbers."""
        parts = {name: self._member(path, name, module) for name, module in _present(container)}
        numbered = list(parts) == [str(i) for i in range(len(parts))]
        if numbered and not isinstance(container, torch.nn.ModuleDict):
            return _in_row(list(parts.values()))
        named = ", ".join(f'"{name}": {part}' for name, part in parts.items())
        return f"{{{named}}}"

    def _member(self, path: str, name: str, module: torch.nn.Module) -> str:
        """One module of a container; one that has been built already, by the attribute that has it."""
        member = f"{path}.{name}".lstrip(".")
        original, scope = self.paths[id(module)], self.scope
        built = self._wanted(original, module) and _inside(original, scope)
        if original != member and built and not _inside(original, path):
            self.placed.add(member)
            return access(scope, original, self.modules)
        return self._built(original if original in self.drafts else member, module)

    def _listed(self, path: str, child: torch.nn.Module) -> str:
        inner = self._members(path, child)
        if isinstance(child, torch.nn.ModuleList) and None in child:
            members = ["None" if x is None else self._member(path, name, x) for name, x in child._modules.items()]
            return f"nnx.List([{', '.join(members)}])"
        if inner.startswith("{"):
            return f"nn.{type(child).__name__}({inner})"
        parts = [self._member(path, name, module) for name, module in _present(child)]
        called = path in self.called
        if len(parts) > 1 and len(set(map(plain, parts))) == 1:
            if called:
                return f"nn.Sequential(*({parts[0]} for _ in range({constant(len(parts), 'depth')})))"
            return f"nnx.List([{parts[0]} for _ in range({constant(len(parts), 'depth')})])"
        return f"nn.Sequential({inner})" if called else f"nnx.List([{inner}])"

    def _tied(self) -> list[tuple[str, str]]:
        """Parameters that are another's: the second path of each, and the first."""
        first: dict[int, str] = {}
        pairs = []
        for path, parameter in self.model.named_parameters(remove_duplicate=False):
            original = first.setdefault(id(parameter), path)
            owner = path.rpartition(".")[0]
            if original != path and self.paths[id(self.modules[owner])] == owner:
                pairs.append((path, original))
        return pairs

    # Classes of many modules.

    def _grouped(self, drafts: list[Draft]) -> None:
        groups: dict[tuple[str, str], list[Draft]] = defaultdict(list)
        for draft in drafts:
            groups[kind_of(draft.module), skeleton(draft.text())].append(draft)
        for members in joined(list(groups.values())):
            self.sources.append(class_of(members, self._class_name(type(members[0].module))))

    def _class_name(self, kind: type) -> str:
        wanted = kind.__name__ if kind.__name__.isidentifier() and kind not in CONTAINERS else "Block"
        wanted = "Model" if kind in CONTAINERS and kind is type(self.model) else wanted
        name, count = wanted, 1
        while name in self.used_names or name in ("F", "nn"):
            count += 1
            name = f"{wanted}_{count}" if wanted[-1].isdigit() else f"{wanted}{count}"
        self.used_names.add(name)
        return name


def _same(a: Body, b: Body) -> bool:
    return a.parameters == b.parameters and a.lines == b.lines and list(map(str, a.sizes)) == list(map(str, b.sizes))


def _all(call: Call) -> Iterator[Call]:
    for child in call.calls():
        yield child
        if not child.leaf:
            yield from _all(child)


def _written(call: Call) -> Iterator[Call]:
    """The calls of modules that become classes, inner ones first."""
    for child in call.calls():
        if not child.leaf:
            yield from _written(child)
    if not (type(call.module) in CONTAINERS and call.path):
        yield call


def _present(container: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    return [(name, module) for name, module in container._modules.items() if module is not None]


def _in_row(parts: list[str]) -> str:
    """Parts as arguments; those in a row that are built alike as one, repeated."""
    row: list[str] = []
    for _, group in groupby(parts, plain):
        alike = list(group)
        enough = 3 if alike[0].startswith("nn.") else 2  # two of torch's layers are read faster than a loop
        looped = len(alike) >= enough and alike[0].endswith(")")
        row += [f"*({alike[0]} for _ in range({constant(len(alike), 'depth')}))"] if looped else alike
    return ", ".join(row)


def _parents(path: str) -> Iterator[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def _inside(path: str, scope: str) -> bool:
    return not scope or path.startswith(f"{scope}.")


def _common(a: str, b: str) -> str:
    shared = []
    for x, y in zip(a.split(".")[:-1], b.split(".")[:-1], strict=False):
        if x != y:
            break
        shared.append(x)
    return ".".join(shared)
