"""Sizes of inputs that a port has as numbers: those of which the model would make something else.

What a model computes of a size that is not free stands in the graph as it was for the example. So the graph and the
model are both run on inputs of other sizes. Where they give the same, or both refuse, the size need not be looked at;
elsewhere the port refuses any other than the example's.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as torch_tree

from parity.checking.evaluation import seeded
from parity.checking.perturbation import copied, own
from parity.checking.results import contained
from parity.porting.graph.free_sizes import Arguments, at_one, is_free
from parity.porting.graph.nodes import in_place, packet, written
from parity.porting.graph.packing import RECURRENT_OPERATORS

REFUSING = {
    *("add", "addmm", "baddbmm", "batch_norm", "bmm", "cat", "conv1d", "conv2d", "conv3d", "conv_transpose1d"),
    *("conv_transpose2d", "conv_transpose3d", "div", "group_norm", "instance_norm", "layer_norm", "linear"),
    *("matmul", "mm", "mul", "rms_norm", "scaled_dot_product_attention", "stack", "sub", "where"),
    *RECURRENT_OPERATORS,
}
"""Operators that refuse in JAX what they refuse in torch.

But not behind a ``flatten``, which is written with the sizes that it had: there the rows may be cut otherwise.
"""

SAME = 1e-5
"""How far results may be apart, by their largest number, that are made by the same operators in the same order."""


def fixed_axes(
    module: torch.nn.Module, arguments: Arguments, program: torch.export.ExportedProgram, first: list[str]
) -> dict[str, list[int]]:
    """The axes, by the inputs' names, whose size has to be the example's.

    Args:
        module: the model.
        arguments: on which it was exported.
        program: what export made of it, as it was made.
        first: the inputs whose first axis has to be, in any case.
    """
    found = {name: {0} for name in first}
    # Where sequences have lengths, a port gives as many steps as it is given, and torch does not.
    if not any(packet(node) in RECURRENT_OPERATORS and node.args[1] is not None for node in program.graph.nodes):
        probe = _Probe(module, arguments, program)
        for name, axis in chain.from_iterable(map(probe.differing, probe.groups())):
            found.setdefault(name, set()).add(axis)
    return {name: sorted(axes) for name, axes in found.items()}


def same_of_one(module: torch.nn.Module, arguments: Arguments, program: torch.export.ExportedProgram) -> bool:
    """Whether the graph makes of inputs whose free sizes are one what the model does: export takes none for one.

    Args:
        module: the model.
        arguments: on which it was exported.
        program: what export made of it, as it was made.
    """
    probe = _Probe(module, arguments, program)
    given = probe.single()
    expected, found = probe.of_model(given), probe.of_graph(given)
    return expected is not None and isinstance(found, list) and _same(found, expected)


Axes = list[tuple[int, int]]
"""Which input, and which axis of it."""


class _Probe:
    """A model and its graph, run on inputs of other sizes."""

    def __init__(self, module: torch.nn.Module, arguments: Arguments, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.model = copied(module, shared=True)
        kinds = torch.export.graph_signature.InputKind
        specs = program.graph_signature.input_specs
        self.names = [spec.arg.name for spec in specs if spec.kind is kinds.USER_INPUT]
        assert program.call_spec.in_spec is not None
        args, kwargs = arguments
        order = program.call_spec.in_spec.children()[1].context  # export sorts keyword arguments as the model has them
        self.leaves, self.spec = torch_tree.tree_flatten((args, {name: kwargs[name] for name in order}))
        self.nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}

    def groups(self) -> list[Axes]:
        """The axes that are not free, together where they are of one size."""
        found: dict[int, Axes] = {}
        for i, (name, x) in enumerate(zip(self.names, self.leaves, strict=True)):
            if isinstance(x, torch.Tensor) and self.nodes[name].users:
                for axis, size in enumerate(self.nodes[name].meta["val"].shape):
                    if not is_free(size):
                        found.setdefault(int(size), []).append((i, axis))
        return list(found.values())

    def differing(self, axes: Axes) -> Iterator[tuple[str, int]]:
        """Those of ``axes`` that have to keep their size."""
        differs = self._differs(axes)
        places = sorted({axis for _, axis in axes})
        if differs is None and len(places) > 1:  # they may be of one size by chance
            each = [[entry for entry in axes if entry[1] == place] for place in places]
            axes = [entry for some in each if self._differs(some) for entry in some]
        elif not differs:
            axes = []
        yield from ((self.names[i], axis) for i, axis in axes)

    def single(self) -> list[Any]:
        """The inputs with each free size cut to one."""

        def cut(name: str, x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            seen = self.nodes[name].meta["val"].shape
            return x[tuple(slice(at_one(size) if is_free(size) else None) for size in seen)]

        return [cut(name, x) for name, x in zip(self.names, self.leaves, strict=True)]

    def _differs(self, axes: Axes) -> bool | None:
        """Whether the port may do something else where ``axes`` have another size; None where the model has none."""
        i, axis = axes[0]
        size = self.leaves[i].shape[axis]
        # Any size shows what is computed of it; some models need it even, or have an end to it.
        for other in filter(None, (size + size // 2 + 1, 2 * size, size - 1)):
            given = self._resized(axes, other)
            expected = self.of_model(given)
            found = self.of_graph(given)
            if expected is not None:
                return not isinstance(found, list) or not _same(found, expected)
            if found is not None:
                return True
        return None

    def _resized(self, axes: Axes, size: int) -> list[Any]:
        """The inputs, ``size`` long along ``axes``; their numbers are the example's again."""
        given = list(self.leaves)  # whoever is given them makes them his own
        for i, axis in axes:
            given[i] = given[i].index_select(axis, torch.arange(size) % given[i].shape[axis])
        return given

    def of_model(self, given: list[Any]) -> list[torch.Tensor] | None:
        """What the model makes of inputs; None where it refuses them."""
        args, kwargs = torch_tree.tree_unflatten([own(x) for x in given], self.spec)
        try:
            with torch.no_grad(), seeded(0):
                output = contained(self.model(*args, **kwargs))
        except Exception:
            return None
        return [x for x in torch_tree.tree_leaves(output) if isinstance(x, torch.Tensor)]

    def of_graph(self, given: list[Any]) -> list[torch.Tensor] | Node | None:
        """What the graph makes of inputs; where it refuses them, the node at which the port may not; or None."""
        interpreter = _Interpreter(self.program.graph_module)
        try:
            with torch.no_grad(), seeded(0):
                output = interpreter.run(*self._placeholders(given))
        except Exception:
            return None if interpreter.is_certain() else interpreter.at
        return [x for x in torch_tree.tree_leaves(output) if isinstance(x, torch.Tensor)]

    def _placeholders(self, given: list[Any]) -> Iterator[Any]:
        kinds = torch.export.graph_signature.InputKind
        inputs = iter(given)
        written_into = {written(node) for node in self.program.graph.nodes if in_place(node)}
        for spec in self.program.graph_signature.input_specs:
            if spec.kind is kinds.USER_INPUT:
                yield own(next(inputs))
                continue
            held = self.program.state_dict if spec.target in self.program.state_dict else self.program.constants
            x = held[spec.target]
            owned = spec.kind is not kinds.PARAMETER or self.nodes[spec.arg.name] in written_into
            yield own(x) if owned else x.detach()


class _Interpreter(torch.fx.Interpreter):
    """Runs a graph, and knows where it is."""

    at: Node | None = None
    flattened = False

    def is_certain(self) -> bool:
        """Whether the port refuses where the graph does, if that is here."""
        return self.at is None or (packet(self.at) in REFUSING and not self.flattened)

    def run_node(self, n: Node) -> Any:
        self.flattened |= self.at is not None and packet(self.at) == "flatten"
        self.at = n
        return super().run_node(n)


def _same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    if [x.shape for x in found] != [x.shape for x in expected]:
        return False

    def near(x: torch.Tensor, y: torch.Tensor) -> bool:
        if not (x.is_floating_point() or x.is_complex()):
            return torch.equal(x, y)
        finite = y[y.isfinite()].abs()
        limit = SAME * float(finite.max()) if finite.numel() else 0.0
        return torch.allclose(x, y, rtol=0, atol=limit, equal_nan=True)

    return all(x.dtype == y.dtype and near(x, y) for x, y in zip(found, expected, strict=True))
