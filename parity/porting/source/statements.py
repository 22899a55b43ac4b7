"""The body of one call as Python statements."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.porting.graph.differentiation import is_derivative
from parity.porting.graph.functionalization import is_lasting
from parity.porting.graph.nodes import is_symbolic, known_as, written_path
from parity.porting.graph.own_gradients import is_owned
from parity.porting.graph.recording import Reference
from parity.porting.operators.expression import Expression, length, plain
from parity.porting.source.body import Body
from parity.porting.source.call import Call
from parity.porting.source.derivatives import outside
from parity.porting.source.loops.growing import Growing, grown
from parity.porting.source.loops.lists import Listed, arguments, spread
from parity.porting.source.loops.matching import calls_of, nodes_of
from parity.porting.source.loops.rounds import Rounds, in_rounds
from parity.porting.source.loops.runs import Loop, looped, structure
from parity.porting.source.naming import access
from parity.porting.source.own_gradients import owned_inputs
from parity.porting.source.phrases import call_of, operator_of, part_of
from parity.porting.source.scope import Scope

INLINE, LINE, DEPTH = 56, 100, 5


class Writer(Scope):
    """Writes the statements of one call.

    Inlines values used once while lines stay short; gives the others the names they have in the torch source.
    """

    def nested(self, call: Call) -> Writer:
        """A writer of a function inside the method: it reads the names around it and makes none of them anew."""
        inner = Writer(call, self.extras, self.method, self.constants, self.unsupported, self.modules)
        inner.outer = self.outer | set(self.bound)
        inner.functions = dict(self.functions)
        return inner

    def settle_before(self, node: Node) -> None:
        """Give what waits for its reader a name now."""
        self._bind_before(node, self.pending.pop(node))

    def settle_readers(self, nodes: Iterable[Node]) -> None:
        """Write down what waits and reads the names of ``nodes``, before a loop gives them to something else."""
        names = {self.names[node] for node in nodes if node in self.names}
        for node in [node for node, waiting in self.pending.items() if names & waiting.names]:
            self.settle_before(node)

    # The plan: who uses what, when.

    def body(
        self, returned: Callable[[Writer], Expression] | None = None, root_outputs: list[Node] | None = None
    ) -> Body:
        """The method's parameters and lines."""
        outputs = root_outputs if root_outputs is not None else self.call.outputs
        self.items = in_rounds(self, looped(self, grown(self, self.call.items)), outputs)
        for node in outputs:
            self.uses[node] += 1
            self.last[node] = len(self.items)
        for i, item in reversed(list(enumerate(self.items))):
            if not self._is_live(item):
                continue  # what only functions in the method compute
            for node in self.needs(item):
                self.uses[node] += 1
                self.last.setdefault(node, i)
        parameters = [self._parameter(given) for given in arguments(self.call)] if root_outputs is None else []
        for position, item in enumerate(self.items):
            self.position = position
            if self._is_live(item):
                self._settle_what_changes(item)
                self._write(item)
        self.position = len(self.items)
        if returned is not None:
            result = returned(self)
        else:
            row = spread(self.lists, list(outputs), [self.value(node) for node in outputs]).text
            result = Expression(row.removeprefix("[").removesuffix("]") if row.startswith("[") else row)
        assigned, _, value = (self.lines or [""])[-1].partition(" = ")
        if assigned == result.text and length(value) <= LINE:
            self.lines[-1] = f"return {value}"
        else:
            self.lines.append(f"return {result.text}")
        return Body(parameters + [name for _, name in self.sizes], self.lines, [size for size, _ in self.sizes])

    def _is_live(self, item: Any) -> bool:
        """Whether somebody reads what a statement computes, those behind it counted, or it leaves something behind."""
        return any(self.uses[node] for node in _within(item)) or any(map(is_lasting, _within(item)))

    def _parameter(self, node: Node | Listed) -> str:
        if isinstance(node, Listed):
            name = self.unused(node.name)
            self.lists[node.nodes] = name
            for i, part in enumerate(node.nodes):
                self.bind(part, f"{name}[{i}]")
            return name
        given = self.call.record.names.get(known_as(node)) if self.call.record else None
        target = node.meta.get("path")
        wanted = given or (target.rpartition(".")[2] if target else None) or self.source_name(node) or "x"
        self.last.setdefault(node, 0)
        self.before = True  # a parameter nobody reads has a name of its own too
        name = self.bind(node, self.free(wanted))
        self.before = False
        return name

    def needs(self, item: Any) -> list[Node]:
        """The arrays that a statement reads."""
        if is_derivative(item):
            return outside(self, item)
        if is_owned(item):
            return owned_inputs(item)
        if isinstance(item, Loop | Rounds | Growing):
            return item.needs()
        if isinstance(item, Call):
            return self.given(item)
        leaves = torch_tree.tree_leaves((item.args, item.kwargs))
        return [x for x in leaves if isinstance(x, Node) and not is_symbolic(x)]

    def given(self, call: Call) -> list[Node]:
        """The arrays that a call takes."""
        if not call.leaf:
            return call.inputs
        return [
            node for node in map(self.referred(call), torch_tree.tree_leaves(structure(call))) if isinstance(node, Node)
        ]

    def referred(self, call: Call) -> Callable[[Any], Any]:
        """What finds the node that a reference in the record of ``call`` stands for."""
        by_name = {name: node for node in call.inputs for name in (node.name, known_as(node))}

        def resolve(x: Any) -> Any:
            if not isinstance(x, Reference):
                return x
            if x.name in by_name:
                return by_name[x.name]
            everywhere = next((n for n in next(iter(call.nodes())).graph.nodes if n.name == x.name), None)
            if len(call.inputs) == 1 and (everywhere is None or everywhere not in self.names):
                return call.inputs[0]
            return everywhere

        return resolve

    # Statements.

    def _write(self, item: Any) -> None:
        if isinstance(item, Loop | Rounds | Growing):
            item.write(self)
        elif isinstance(item, Call):
            self._write_call(item)
        elif item in self.names or item in self.pending:
            pass  # unpacked already
        elif item.target is not operator.getitem and isinstance(item.meta.get("val"), list | tuple):
            self._write_several(item)
        else:
            path = written_path(item)
            if not self.uses[item] and path is None:
                return
            expression = self._built(lambda: operator_of(self, item))
            if path is not None:
                self._flush()
                self.lines.append(f"{self.attribute(path)}.set_value({expression.text})")
                expression = Expression(f"{self.attribute(path)}[...]")
            self._settle(item, expression, self.source_name(item))

    def _write_call(self, call: Call) -> None:
        expression = self.called(call)
        if not call.outputs:
            self.lines.append(expression.text)
        elif call.leaf:
            assert call.record is not None
            by_name = {node.name: node for node in call.outputs}
            structure = torch_tree.tree_map(
                lambda x: by_name.get(x.name) if isinstance(x, Reference) else None, call.record.output
            )
            if isinstance(structure, Node):
                self._settle(structure, expression, self.call_name(call))
            else:
                self.lines.append(f"{self._targets(structure, call)} = {expression.text}")
        elif len(call.outputs) == 1:
            self._settle(call.outputs[0], expression, self.call_name(call))
        else:
            self.lines.append(f"{self._targets(tuple(call.outputs), call)} = {expression.text}")

    def _targets(self, structure: Any, call: Call | None = None) -> str:
        if isinstance(structure, Node):
            if not self.uses[structure]:
                return "_"
            name = self.free(self.source_name(structure) or "x")
            return self.bind(structure, name)
        if isinstance(structure, tuple | list):
            if not any(self.uses[part] for part in torch_tree.tree_leaves(structure) if isinstance(part, Node)):
                return "_"
            parts = [self._targets(part) for part in structure]
            nested = [isinstance(s, tuple | list) and p != "_" for p, s in zip(parts, structure, strict=True)]
            inner = [f"({p})" if wrap else p for p, wrap in zip(parts, nested, strict=True)]
            return ", ".join(inner) + ("," if len(inner) == 1 else "")
        return "_"

    def _write_several(self, node: Node) -> None:
        parts = [user for user in node.users if user.target is operator.getitem]
        used = [part for part in parts if self.uses[part]]
        whole = self.uses[node] > len(used)
        if not used and not whole:
            return
        if len(used) == 1 and not whole:
            expression = self._built(lambda: part_of(operator_of(self, node), used[0]))
            self._settle(used[0], expression, self.source_name(used[0]))
            return
        expression = self._built(lambda: operator_of(self, node))
        if whole:  # as a list
            self._bind_statement(node, expression, self.source_name(node) or "parts")
            return
        structure: list[Any] = [None] * len(node.meta["val"])
        for part in used:
            structure[part.args[1]] = part
        names = [self._targets(part) for part in structure]
        self.lines.append(f"{', '.join(names)}{',' if len(names) == 1 else ''} = {expression.text}")

    def _settle(self, node: Node, expression: Expression, name: str | None) -> None:
        """Keep the expression for its only reader, or write it down."""
        text = plain(expression.text)
        once = self.uses[node] == 1 and not self._in_loop(node)
        if not self.uses[node]:
            return
        if once and len(expression) <= INLINE and _depth(text) <= DEPTH:
            self.pending[node] = expression
        elif _is_name(text) and text in self.bound:
            self.names[node] = text  # another name for the same array
            self.last[self.bound[text]] = max(self.last.get(self.bound[text], -1), self.last[node])
        else:
            self._bind_statement(node, expression, name)

    def _in_loop(self, node: Node) -> bool:
        return any(isinstance(item, Loop | Rounds) and node in item.needs() for item in self.items[self.position + 1 :])

    def _bind_statement(self, node: Node, expression: Expression, name: str | None) -> None:
        self.taken = [t for t in self.taken if t is not node]
        target = self.free(name or "x")
        self.bind(node, target)
        self.lines.append(f"{target} = {expression.text}")

    def _flush(self) -> None:
        """Write down what waits, before something that it might read changes."""
        for node in list(self.pending):
            self._bind_before(node, self.pending.pop(node))

    def _bind_before(self, node: Node, expression: Expression) -> None:
        self.before = True
        self._bind_statement(node, expression, self.source_name(node))
        self.before = False

    def _settle_what_changes(self, item: Any) -> None:
        """Write down what waits and uses what a call is about to change, or changes what ``item`` reads."""
        places = [
            access(self.call.path, call.path, self.modules) for call in _calls(item) if call.path != self.call.path
        ]
        if isinstance(item, Node):
            changed = map(written_path, self.needs(item))
            places = [self.attribute(path).rpartition(".")[0] for path in changed if path is not None]
        needed = set(self.needs(item))
        for node, waiting in list(self.pending.items()):
            uses = node not in needed and any(re.search(rf"{re.escape(place)}(?!\w)", waiting.text) for place in places)
            if uses and (isinstance(item, Node) or any(map(is_lasting, _within(item)))):
                self.settle_before(node)

    def _built(self, build: Callable[[], Expression]) -> Expression:
        """The expression; what it would compute twice is named first, and where it gets long, its longest parts."""
        kept = dict(self.pending)
        while True:
            self.taken = []
            expression = build()
            consumed = [node for node in self.taken if not _is_name(kept[node].text) and _twice(kept[node], expression)]
            if not consumed and len(expression) > LINE:
                consumed = [node for node in self.taken if len(kept[node]) > 12]
            if not consumed:
                return expression
            longest = max(consumed, key=lambda node: len(kept[node]))
            self.pending = dict(kept)
            del self.pending[longest]
            self._bind_before(longest, kept.pop(longest))

    def called(self, call: Call) -> Expression:
        """A call as an expression."""
        return self._built(lambda: call_of(self, call))


def _calls(item: Any) -> list[Call]:
    """The calls that a statement is made of."""
    if isinstance(item, Rounds):
        return [call for part in chain(*item.rounds) for call in _calls(part)]
    return [] if isinstance(item, Node) else calls_of(item)


def _within(item: Any) -> Iterator[Node]:
    """Every operator within a statement."""
    for part in chain(*item.rounds) if isinstance(item, Rounds) else [item]:
        yield from nodes_of(part)


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[\w.]+(\[\.\.\.\])?", text) is not None


def _twice(part: Expression, whole: Expression) -> bool:
    return plain(whole.text).count(plain(part.text)) > 1


def _depth(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += character in "([" or -(character in ")]")
        deepest = max(deepest, depth)
    return deepest
