"""Entries told by where they lie in memory."""

from typing import Any

from parity.porting.operators.expression import ATOM, Expression
from parity.porting.operators.indexing import updated
from parity.porting.operators.operation import Operation
from parity.porting.operators.registry import register_operator


@register_operator("aten.as_strided")
def _as_strided(op: Operation) -> Expression:
    operand = op.arguments["self"]
    memory: Expression = operand
    if not operand.value.is_contiguous():
        strides = operand.value.stride()
        order = sorted(range(operand.ndim), key=lambda axis: -strides[axis])
        if not operand.value.permute(order).is_contiguous():
            raise NotImplementedError("as_strided of memory that is not all of one array")
        memory = op.method(operand, "transpose", *order)
    places = _spread(op, op.arguments.get("storage_offset") or 0)
    return Expression(f"{op.method(memory, 'reshape', -1).text}[{places.text}]", ATOM, operand.names | places.names)


@register_operator("aten.as_strided_scatter")
def _as_strided_scatter(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if not operand.value.is_contiguous():
        raise NotImplementedError("as_strided_scatter into memory that is not one array's in its order")
    places = _spread(op, op.arguments.get("storage_offset") or 0)
    flat = updated(op, op.method(operand, "ravel"), places.text, places.names, op.src)
    return op.method(flat, "reshape", *operand.shape)


def _spread(op: Operation, offset: Any) -> Expression:
    """Where in memory the entries are that ``size`` and ``stride`` tell of."""
    parts, names = [] if offset == 0 else [op.expression(offset).text], frozenset[str]()
    for i, (size, stride) in enumerate(zip(op.size, op.stride, strict=True)):
        place = op.call("jnp.arange", size)
        names |= place.names
        spread = (
            f"{place.text}[{', '.join([':'] + ['None'] * (len(op.size) - i - 1))}]"
            if i + 1 < len(op.size)
            else place.text
        )
        parts.append(spread if stride == 1 else f"{op.expression(stride).text} * {spread}")
    return Expression(" + ".join(parts) or "0", ATOM, names)
