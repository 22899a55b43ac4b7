"""Complex numbers and Fourier transforms."""

from parity.porting.expression import ATOM, Expression
from parity.porting.operation import Operation
from parity.porting.operators.registry import register_operator


@register_operator("aten.real", "aten.imag")
def _part(op: Operation) -> Expression:
    operand = op.arguments["self"]
    if not operand.dtype.is_complex:
        return operand
    return Expression(f"{operand.within(ATOM)}.{op.name.split('.')[1]}", ATOM, operand.names)


@register_operator("aten.conj", "aten._conj", "aten.conj_physical")
def _conj(op: Operation) -> Expression:
    return op.method(op.arguments["self"], "conj")


@register_operator("aten.angle")
def _angle(op: Operation) -> Expression:
    return op.call("jnp.angle", op.arguments["self"])


@register_operator("aten.view_as_real")
def _view_as_real(op: Operation) -> Expression:
    operand = op.arguments["self"]
    text = f"jnp.stack([{operand.within(ATOM)}.real, {operand.within(ATOM)}.imag], axis=-1)"
    return Expression(text, ATOM, operand.names)


@register_operator("aten.view_as_complex")
def _view_as_complex(op: Operation) -> Expression:
    operand = op.arguments["self"]
    text = f"jax.lax.complex({operand.within(ATOM)}[..., 0], {operand.within(ATOM)}[..., 1])"
    return Expression(text, ATOM, operand.names)


@register_operator("aten.complex")
def _complex(op: Operation) -> Expression:
    return op.call("jax.lax.complex", op.real, op.imag)


@register_operator("aten.polar")
def _polar(op: Operation) -> Expression:
    magnitude, angle = op.arguments["abs"], op.angle
    parts = op.call("jax.lax.complex", op.call("jnp.cos", angle), op.call("jnp.sin", angle))
    return op.binary("*", magnitude, parts, 16)


@register_operator(
    "aten.fft_fft", "aten.fft_ifft", "aten.fft_rfft", "aten.fft_irfft", "aten.fft_hfft", "aten.fft_ihfft"
)
def _fft(op: Operation) -> Expression:
    name = op.name.split(".")[1].removeprefix("fft_")
    axis = None if op.dim == -1 else op.dim
    return op.call(f"jnp.fft.{name}", op.arguments["self"], n=op.n, axis=axis, norm=op.norm)


@register_operator(
    "aten.fft_fft2",
    "aten.fft_ifft2",
    "aten.fft_rfft2",
    "aten.fft_irfft2",
    "aten.fft_fftn",
    "aten.fft_ifftn",
    "aten.fft_rfftn",
    "aten.fft_irfftn",
)
def _fftn(op: Operation) -> Expression:
    name = op.name.split(".")[1].removeprefix("fft_")
    axes = op.dim
    if name.endswith("2") and axes is not None and list(axes) == [-2, -1]:
        axes = None
    return op.call(f"jnp.fft.{name}", op.arguments["self"], s=op.s, axes=axes, norm=op.norm)


@register_operator("aten.fft_fftshift", "aten.fft_ifftshift")
def _shift(op: Operation) -> Expression:
    return op.call(f"jnp.fft.{op.name.split('.')[1].removeprefix('fft_')}", op.arguments["self"], axes=op.dim)


@register_operator("aten.fft_fftfreq", "aten.fft_rfftfreq")
def _freq(op: Operation) -> Expression:
    return op.call(f"jnp.fft.{op.name.split('.')[1].removeprefix('fft_')}", op.n, op.d)
