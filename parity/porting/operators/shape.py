"""Axes moved, joined, cut and repeated."""

from typing import Any

import torch

from parity.porting.operators.expression import ATOM, SUM, Expression
from parity.porting.operators.operation import Operation
from parity.porting.operators.registry import register_operator
from parity.porting.operators.subscripts import widened
from parity.porting.source.loops.lists import spread


def sizes(op: Operation, wanted: Any) -> list[Any]:
    """``wanted`` with -1 for the one symbolic size."""
    wanted = list(wanted)
    symbolic = [i for i, size in enumerate(wanted) if isinstance(size, torch.SymInt)]
    if len(symbolic) == 1 and -1 not in wanted:
        wanted[symbolic[0]] = -1
    return wanted


def _keeps_shape(op: Operation) -> bool:
    # As text: to compare free sizes would fix them.
    return list(map(str, op.output.shape)) == list(map(str, op.arguments["self"].shape))


def _reshaped(op: Operation, wanted: Any) -> Expression:
    operand = op.arguments["self"]
    return operand if _keeps_shape(op) else op.method(operand, "reshape", *sizes(op, wanted))


@register_operator("aten.view.default", "aten.reshape", "aten._unsafe_view", "aten.reshape_as", "aten.view_as")
def _reshape(op: Operation) -> Expression:
    wanted = (
        list(op.output.shape) if "_as" in op.name else list(next(v for k, v in op.arguments.items() if k != "self"))
    )
    return _reshaped(op, wanted)


@register_operator("aten.flatten", "aten.unflatten", "aten.squeeze", "aten.unsqueeze")
def _to_output(op: Operation) -> Expression:
    operand: Any = op.arguments["self"]
    if "unsqueeze" in op.name:
        dim = op.dim if op.dim >= 0 else op.dim + operand.ndim + 1
        return widened(operand, dim) or op.call("jnp.expand_dims", operand, dim)
    if "unflatten" in op.name or "flatten" in op.name:
        if list(op.output.shape) == list(operand.shape):
            return operand
        return _reshaped(op, op.output.shape)
    dims = op.arguments.get("dim")
    if dims is None:
        dims = [i for i, size in enumerate(operand.shape) if size == 1]
    dims = [dims] if isinstance(dims, int) else list(dims)
    dims = [d % operand.ndim for d in dims if operand.ndim and operand.shape[d] == 1]
    if not dims:
        return operand
    return op.method(operand, "squeeze", dims[0] if len(dims) == 1 else dims)


@register_operator("aten.permute")
def _permute(op: Operation) -> Expression:
    ndim = op.arguments["self"].ndim
    return op.method(op.arguments["self"], "transpose", *(d % ndim for d in op.dims))


@register_operator("aten.transpose", "aten.swapaxes", "aten.swapdims")
def _transpose(op: Operation) -> Expression:
    operand = op.arguments["self"]
    first, second = (value for key, value in op.arguments.items() if key != "self")
    if operand.ndim < 2:
        return operand
    if operand.ndim == 2 and first % 2 != second % 2:
        return Expression(f"{operand.within(ATOM)}.T", ATOM, operand.names)
    if {first % operand.ndim, second % operand.ndim} == {operand.ndim - 1, operand.ndim - 2}:
        return Expression(f"{operand.within(ATOM)}.mT", ATOM, operand.names)
    return op.method(operand, "swapaxes", first, second)


@register_operator("aten.t", "aten.numpy_T", "aten.mT", "aten.adjoint", "aten.mH", "aten.matrix_H")
def _t(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if operand.ndim < 2:
        return operand
    text = f"{operand.within(ATOM)}.{'T' if 'numpy_T' in op.name or operand.ndim == 2 else 'mT'}"
    if "adjoint" in op.name or "H" in op.name.split(".")[1]:
        text += ".conj()"
    return Expression(text, ATOM, operand.names)


@register_operator("aten.movedim", "aten.moveaxis")
def _movedim(op: Operation) -> Expression:
    source, destination = (value for key, value in op.arguments.items() if key != "self")
    return op.call("jnp.moveaxis", op.arguments["self"], source, destination)


@register_operator("aten.expand", "aten.expand_as", "aten.broadcast_to")
def _expand(op: Operation) -> Expression:
    if list(op.output.shape) == list(op.arguments["self"].shape):
        return op.arguments["self"]
    return op.call("jnp.broadcast_to", op.arguments["self"], list(op.output.shape))


@register_operator("aten.repeat", "aten.tile")
def _repeat(op: Operation) -> Expression:
    counts = next(v for k, v in op.arguments.items() if k != "self")
    operand = op.arguments["self"]
    return operand if _keeps_shape(op) else op.call("jnp.tile", operand, list(counts))


@register_operator("aten.repeat_interleave.self_int")
def _repeat_interleave(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if op.dim is None:
        return op.call("jnp.repeat", op.method(operand, "reshape", -1), op.repeats)
    return op.call("jnp.repeat", operand, op.repeats, axis=op.dim)


def _listed(op: Operation, parts: list[Expression]) -> Expression:
    """``[a, b]``, or a list that has a name."""
    return op.host.listed(parts) if op.host is not None else spread({}, [], parts)


@register_operator("aten.cat", "aten.concat", "aten.concatenate")
def _cat(op: Operation) -> Expression:
    # Torch lets an empty vector join anything.
    parts = [x for x in op.tensors if not (x.ndim == 1 and x.shape[0] == 0 and op.output.ndim > 1)]
    parts = [op.cast(x, op.output.dtype) for x in parts]
    axis = {"axis": op.dim} if op.dim else {}
    row = _listed(op, parts)
    if len(parts) == 1 and row.text == f"[{parts[0].text}]":
        return parts[0]
    return op.call("jnp.concatenate", row, **axis)


@register_operator("aten.stack", "aten.hstack", "aten.vstack", "aten.dstack", "aten.column_stack")
def _stack(op: Operation) -> Expression:
    parts = [op.cast(x, op.output.dtype) for x in op.tensors]
    dim = op.arguments.get("dim")
    return op.call(f"jnp.{op.name.split('.')[1]}", _listed(op, parts), **({"axis": dim} if dim else {}))


@register_operator(
    "aten.split", "aten.split_with_sizes", "aten.chunk", "aten.tensor_split", "aten.unsafe_split", "aten.unsafe_chunk"
)
def _split(op: Operation) -> Expression:
    parts = [part.shape[op.dim] for part in op.output]
    axis = {"axis": op.dim} if op.dim else {}
    if all(isinstance(size, int) and size == parts[0] for size in parts):
        return op.call("jnp.split", op.arguments["self"], len(parts), **axis)
    borders, total = [], 0
    for size in parts[:-1]:
        total = total + size
        borders.append(total)
    names = op.expression(borders)
    return op.call(
        "jnp.split", op.arguments["self"], Expression(f"[{names.text[1:-1].rstrip(',')}]", ATOM, names.names), **axis
    )


@register_operator("aten.unbind")
def _unbind(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if op.dim == 0:
        return operand
    return op.call("jnp.moveaxis", operand, op.dim, 0)


@register_operator("aten.flip")
def _flip(op: Operation) -> Expression:
    return op.call("jnp.flip", op.arguments["self"], list(op.dims))


@register_operator("aten.fliplr", "aten.flipud")
def _flip_named(op: Operation) -> Expression:
    return op.call(f"jnp.{op.name.split('.')[1]}", op.arguments["self"])


@register_operator("aten.roll")
def _roll(op: Operation) -> Expression:
    shifts, dims = op.shifts, list(op.dims)
    if not dims:
        return op.call("jnp.roll", op.arguments["self"], shifts[0] if len(shifts) == 1 else shifts)
    if len(dims) == 1:
        return op.call("jnp.roll", op.arguments["self"], shifts[0], axis=dims[0])
    return op.call("jnp.roll", op.arguments["self"], list(shifts), axis=dims)


@register_operator("aten.rot90")
def _rot90(op: Operation) -> Expression:
    return op.call("jnp.rot90", op.arguments["self"], op.k, tuple(op.dims))


@register_operator("aten.tril", "aten.triu")
def _triangle(op: Operation) -> Expression:
    extra = (op.diagonal,) if op.diagonal else ()
    return op.call(f"jnp.{op.name.split('.')[1].rstrip('_')}", op.arguments["self"], *extra)


@register_operator("aten.diagonal", "aten.diagonal_copy")
def _diagonal(op: Operation) -> Expression:
    axes = (op.dim1, op.dim2) if (op.dim1, op.dim2) != (0, 1) else ()
    return op.call("jnp.diagonal", op.arguments["self"], *([op.offset] if op.offset or axes else []), *axes)


@register_operator("aten.diag")
def _diag(op: Operation) -> Expression:
    return op.call("jnp.diag", op.arguments["self"], op.diagonal)


@register_operator("aten.gradient")
def _gradient(op: Operation) -> Expression:
    spacing = op.arguments.get("spacing")
    if op.edge_order != 1:
        return op.call("F.gradient", op.arguments["self"], spacing=spacing, dim=op.dim, edge_order=op.edge_order)
    spacing = spacing if isinstance(spacing, list) else [] if spacing in (None, 1) else [spacing]
    found = op.call("jnp.gradient", op.arguments["self"], *spacing, axis=op.dim)
    single = isinstance(op.dim, int) or (op.dim is None and len(op.output) == 1)
    return Expression(f"[{found.text}]", ATOM, found.names) if single else found


@register_operator("aten.diag_embed")
def _diag_embed(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if operand.ndim == 1:
        found = op.call("jnp.diag", operand, *([op.offset] if op.offset else []))
    else:
        row = f"lambda row: jnp.diag(row, {op.offset})" if op.offset else "jnp.diag"
        found = op.call(f'jnp.vectorize({row}, signature="(n)->(m,m)")', operand)
    return _moved(op, found, (-2, -1), _two_axes(op, operand.ndim + 1))


@register_operator("aten.diagonal_scatter")
def _diagonal_scatter(op: Operation) -> Expression:
    operand, places = op.arguments["self"], op.call("jnp.arange", op.src.shape[-1])
    pair = _two_axes(op, operand.ndim)
    index = ", ".join(
        places.text if start <= 0 else op.binary("+", places, start, SUM).text for start in (-op.offset, op.offset)
    )
    back = _moved(op, operand, pair, (-2, -1))
    text = f"{back.within(ATOM)}.at[..., {index}].set({op.src.text})"
    found = Expression(text, ATOM, operand.names | places.names | op.src.names)
    return _moved(op, found, (-2, -1), pair)


def _two_axes(op: Operation, ndim: int) -> tuple[int, int]:
    """Those of the diagonal, counted from the end."""
    return op.dim1 % ndim - ndim, op.dim2 % ndim - ndim


def _moved(op: Operation, operand: Expression, source: tuple[int, int], target: tuple[int, int]) -> Expression:
    return operand if source == target else op.call("jnp.moveaxis", operand, source, target)


@register_operator("aten.meshgrid")
def _meshgrid(op: Operation) -> Expression:
    indexing = op.arguments.get("indexing", "ij")
    parts = [part if part.ndim else op.method(part, "reshape", 1) for part in op.tensors]
    names = frozenset().union(*(part.names for part in parts))
    arrays = Expression(", ".join(part.text for part in parts), ATOM, names)
    return op.call("jnp.meshgrid", arrays, indexing=indexing)


@register_operator("aten.unfold")
def _unfold(op: Operation) -> Expression:
    operand = op.arguments["self"]
    axis = op.dimension % operand.ndim
    count = op.output.shape[axis]
    windows = op.call("jnp.arange", count)
    starts = f"{windows.text}[:, None]" if op.step == 1 else f"{op.expression(op.step).text} * {windows.text}[:, None]"
    index = Expression(f"{starts} + jnp.arange({op.expression(op.size).text})", 15, windows.names)
    taken = op.call("jnp.take", operand, index, axis=axis)
    return op.call("jnp.moveaxis", taken, axis + 1, -1) if axis + 1 < operand.ndim else taken


@register_operator("aten.broadcast_tensors")
def _broadcast_tensors(op: Operation) -> Expression:
    names = frozenset().union(*(part.names for part in op.tensors))
    return op.call("jnp.broadcast_arrays", Expression(", ".join(part.text for part in op.tensors), ATOM, names))
