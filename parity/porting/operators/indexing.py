"""Elements picked out and written back."""

from typing import Any

import torch

from parity.porting.operators.expression import ATOM, Expression
from parity.porting.operators.operation import Operation, Tensor
from parity.porting.operators.registry import register_operator
from parity.porting.operators.subscripts import picked, whole

END = 2**63 - 1


def slice_entry(op: Operation, operand: Tensor) -> Expression | None:
    """``start:end:step``, None for the whole axis."""
    start, end, step = op.arguments.get("start"), op.arguments.get("end"), op.arguments.get("step", 1)
    size = operand.shape[op.dim]
    start = None if isinstance(start, int) and start == 0 else start
    if (isinstance(end, int) and (end == END or (isinstance(size, int) and end >= size))) or (
        isinstance(end, torch.SymInt) and isinstance(size, torch.SymInt) and str(end) == str(size)
    ):
        end = None
    if start is None and end is None and step == 1:
        return None
    parts = ["" if x is None else op.expression(x) for x in (start, end)]
    names = frozenset().union(*(part.names for part in parts if isinstance(part, Expression)))
    text = ":".join(part.text if isinstance(part, Expression) else "" for part in parts)
    return Expression(text + (f":{op.expression(step).text}" if step != 1 else ""), ATOM, names)


@register_operator("aten.slice.Tensor")
def _slice(op: Operation) -> Expression:
    operand = op.arguments["self"]
    entry = slice_entry(op, operand)
    return operand if entry is None else picked(operand, op.dim, entry)


@register_operator("aten.select.int")
def _select(op: Operation) -> Expression:
    return picked(op.arguments["self"], op.dim, op.expression(op.index))


@register_operator("aten.narrow")
def _narrow(op: Operation) -> Expression:
    stop = op.start + op.length
    text = f"{op.expression(op.start).text}:{op.expression(stop).text}"
    return picked(op.arguments["self"], op.dim, Expression(text, ATOM, op.expression(stop).names))


def updated(
    op: Operation, operand: Expression, index: str, names: frozenset[str], value: Any, verb: str = "set"
) -> Expression:
    """``operand.at[index].set(value)``."""
    written = op.expression(value)
    return Expression(
        f"{operand.within(ATOM)}.at[{index}].{verb}({written.text})", ATOM, operand.names | names | written.names
    )


@register_operator("aten.select_scatter", "aten.slice_scatter")
def _scatter_back(op: Operation) -> Expression:
    operand = op.arguments["self"]
    entry = op.expression(op.index) if "select" in op.name else slice_entry(op, operand)
    if entry is None:
        return op.src
    dim = op.dim % operand.ndim
    return updated(op, operand, ":, " * dim + entry.text, entry.names, op.src)


def _index(op: Operation, operand: Tensor, indices: list[Any]) -> Expression:
    parts = [":" if x is None else op.expression(x).text for x in indices]
    names = frozenset().union(*(op.expression(x).names for x in indices if x is not None))
    return Expression(", ".join(parts), ATOM, names)


_MASKED = (
    "a boolean mask as index: the shape would depend on the data; what picks entries, changes each alike and sums, "
    "averages or puts them back by the same mask can be written, else use torch.where(mask, x, 0)"
)


@register_operator("aten.index.Tensor", "aten._unsafe_index.Tensor")
def _index_tensor(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if any(x is not None and x.dtype == torch.bool for x in op.indices):
        raise NotImplementedError(_MASKED)
    index = _index(op, operand, list(op.indices))
    read = f"{whole(operand)}[{index.text}]"
    if op.host.node.meta.get("padded"):
        read = f'{operand.within(ATOM)}.at[{index.text}].get(mode="fill", fill_value=1)'
    return Expression(read, ATOM, operand.names | index.names)


@register_operator("aten.index_put", "aten._index_put_impl")
def _index_put(op: Operation) -> Expression:
    operand, indices = op.arguments["self"], list(op.indices)
    verb = "add" if op.accumulate else "set"
    masks = [x for x in indices if x is not None and x.dtype == torch.bool]
    if masks:
        if len(indices) > 1 or op.values.value.numel() != 1 or op.accumulate:
            raise NotImplementedError("values put where a boolean mask is true, one for each")
        mask = masks[0]
        behind = operand.ndim - mask.ndim
        shaped = (
            Expression(f"{mask.within(ATOM)}[..., {', '.join(['None'] * behind)}]", ATOM, mask.names)
            if behind
            else mask
        )
        return op.cast(op.call("jnp.where", shaped, op.values, operand), op.output.dtype)
    index = _index(op, operand, indices)
    return updated(op, operand, index.text, index.names, op.values, verb)


@register_operator("aten.index_select")
def _index_select(op: Operation) -> Expression:
    return op.call("jnp.take", op.arguments["self"], op.index, axis=op.dim)


@register_operator("aten.take_along_dim", "aten.gather")
def _gather(op: Operation) -> Expression:
    operand = op.arguments["self"]
    index = op.arguments.get("index", op.arguments.get("indices"))
    dim = op.dim % operand.ndim
    cuts = [
        ":" if i == dim or str(a) == str(b) else f":{op.expression(b).text}"
        for i, (a, b) in enumerate(zip(operand.shape, index.shape, strict=True))
    ]
    if "gather" in op.name and any(cut != ":" for cut in cuts):
        operand = Expression(f"{operand.within(ATOM)}[{', '.join(cuts)}]", ATOM, operand.names)
    return op.call("jnp.take_along_axis", operand, index, axis=op.dim)


@register_operator("aten.scatter", "aten.scatter_add")
def _scatter(op: Operation) -> Expression:
    operand, index = op.arguments["self"], op.index
    source = op.arguments.get("src", op.arguments.get("value"))
    if isinstance(source, Tensor) and [str(s) for s in source.shape] != [str(s) for s in index.shape]:
        cuts = ", ".join(f":{op.expression(size).text}" for size in index.shape)
        source = Expression(f"{source.within(ATOM)}[{cuts}]", ATOM, source.names)
    # The other axes are indexed by their own positions.
    dim, grid = op.dim % max(operand.ndim, 1), op.expression(list(index.shape))
    places = Expression(
        ", ".join(
            index.text if i == dim else f"jnp.arange({op.expression(index.shape[i]).text}){_shaped(i, operand.ndim)}"
            for i in range(operand.ndim)
        ),
        ATOM,
        index.names | grid.names,
    )
    verb = op.arguments.get("reduce") or ("add" if "scatter_add" in op.name else "set")
    return updated(op, operand, places.text, places.names, source, verb)


@register_operator("aten.scatter_reduce.two", "aten.index_reduce")
def _reduce(op: Operation) -> Expression:
    source = op.arguments.get("src", op.arguments.get("source"))
    operands = op.arguments["self"], op.dim, op.index, source, op.reduce
    own = None if op.arguments.get("include_self", True) else False
    return op.call(f"F.{op.name.split('.')[1].rstrip('_')}", *operands, include_self=own)


def _shaped(axis: int, ndim: int) -> str:
    behind = ndim - axis - 1
    return f"[:, {', '.join(['None'] * behind)}]" if behind else ""


@register_operator("aten.index_add", "aten.index_copy", "aten.index_fill.int_Scalar")
def _index_update(op: Operation) -> Expression:
    operand = op.arguments["self"]
    value = op.arguments.get("source", op.arguments.get("value"))
    if op.arguments.get("alpha", 1) != 1:
        value = op.binary("*", value, op.alpha, 16)
    verb = "add" if "index_add" in op.name else "set"
    return updated(op, operand, ":, " * (op.dim % operand.ndim) + op.index.text, op.index.names, value, verb)


@register_operator(
    "aten.masked_select", "aten.unique_consecutive", "aten._unique2", "aten.unique_dim",
    "aten.bincount", "aten.repeat_interleave.Tensor", "aten.repeat_interleave.self_Tensor",
)  # fmt: skip
def _data_dependent(op: Operation) -> Expression:
    raise NotImplementedError("a shape that depends on the data")


@register_operator("aten.bucketize.Tensor", "aten.searchsorted.Tensor")
def _bucketize(op: Operation) -> Expression:
    side = "right" if op.right else op.arguments.get("side") or "left"
    if "bucketize" in op.name:
        return op.call("jnp.searchsorted", op.boundaries, op.arguments["self"], side=side)
    if op.sorted_sequence.ndim > 1:
        if op.sorter is not None or op.sorted_sequence.ndim != 2:
            raise NotImplementedError("searchsorted in several sequences of several axes, or with a sorter")
        search = f'jax.vmap(lambda row, x: jnp.searchsorted(row, x, side="{side}"))'
        return op.call(search, op.sorted_sequence, op.arguments["self"])
    return op.call("jnp.searchsorted", op.sorted_sequence, op.arguments["self"], side=side, sorter=op.sorter)


@register_operator("aten.where.default", "aten.nonzero", "aten.nonzero_numpy")
def _places(op: Operation) -> Expression:
    if not op.host.node.meta.get("padded"):
        raise NotImplementedError("places of a mask, whose number depends on the data")
    mask = next(iter(op.arguments.values()))
    size, shape = (Expression(f"{mask.within(ATOM)}.{name}", ATOM, mask.names) for name in ("size", "shape"))
    function = "argwhere" if op.name == "aten.nonzero.default" else "nonzero"
    return op.call(f"jnp.{function}", mask, size=size, fill_value=shape)


@register_operator("aten.masked_scatter")
def _masked_scatter(op: Operation) -> Expression:
    return op.call("F.masked_scatter", op.arguments["self"], op.mask, op.source)


@register_operator("aten.put")
def _put(op: Operation) -> Expression:
    operand = op.arguments["self"]
    verb = "add" if op.accumulate else "set"
    flat = updated(op, op.method(operand, "ravel"), op.index.text, op.index.names, op.source, verb)
    return op.method(flat, "reshape", *operand.shape)


@register_operator("aten.isin")
def _isin(op: Operation) -> Expression:
    elements, tested = list(op.arguments.values())[:2]
    return op.call("jnp.isin", elements, tested, invert=op.invert or None)
