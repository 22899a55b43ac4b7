"""Complex numbers and Fourier transforms."""

from parity.porting.operators.expression import ATOM, PRODUCT, Expression
from parity.porting.operators.operation import Operation
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
    return op.call("F.angle", op.arguments["self"])


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
    if list(op.real.shape) != list(op.imag.shape):
        both = op.call("jnp.broadcast_arrays", op.real, op.imag)
        return Expression(f"jax.lax.complex(*{both.text})", ATOM, both.names)
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


@register_operator("aten.fft_hfft2", "aten.fft_hfftn", "aten.fft_ihfft2", "aten.fft_ihfftn")
def _hermitian(op: Operation) -> Expression:
    """The transforms of what is real with the signs of the other direction."""
    norm = {"forward": None, "ortho": "ortho"}.get(op.norm, "forward")
    if "ihfft" in op.name:
        return op.method(op.call("jnp.fft.rfftn", op.arguments["self"], s=op.s, axes=op.dim, norm=norm), "conj")
    return op.call("jnp.fft.irfftn", op.method(op.arguments["self"], "conj"), s=op.s, axes=op.dim, norm=norm)


@register_operator("aten.fft_fftshift", "aten.fft_ifftshift")
def _shift(op: Operation) -> Expression:
    return op.call(f"jnp.fft.{op.name.split('.')[1].removeprefix('fft_')}", op.arguments["self"], axes=op.dim)


@register_operator("aten.fft_fftfreq", "aten.fft_rfftfreq")
def _freq(op: Operation) -> Expression:
    return op.call(f"jnp.fft.{op.name.split('.')[1].removeprefix('fft_')}", op.n, op.d)


_SCALED = {"forward": ("backward", "ortho", "forward"), "inverse": ("forward", "ortho", "backward")}


@register_operator("aten._fft_r2c", "aten._fft_c2c", "aten._fft_c2r")
def _scaled(op: Operation) -> Expression:
    kind = op.name.split(".")[1].removeprefix("_fft_")
    operand, axes = op.arguments["self"], list(op.dim)
    forward = kind == "r2c" or op.arguments.get("forward", False)
    norm = _SCALED["forward" if forward else "inverse"][op.normalization]
    function = {"r2c": "rfftn" if op.arguments.get("onesided", True) else "fftn", "c2r": "irfftn"}.get(kind)
    function = function or ("fftn" if forward else "ifftn")
    sizes = [op.output.shape[axis] for axis in axes] if kind == "c2r" else None
    return op.call(f"jnp.fft.{function}", operand, s=sizes, axes=axes, norm=None if norm == "backward" else norm)


@register_operator("aten.stft")
def _stft(op: Operation) -> Expression:
    operand, size = op.arguments["self"], op.n_fft
    hop = op.hop_length or size // 4
    length = op.win_length or size
    frames = op.output.shape[-1]
    places = op.call("jnp.arange", frames)
    index = f"{op.expression(hop).text} * {places.text}[:, None] + jnp.arange({op.expression(size).text})"
    windowed: Expression = Expression(f"{operand.within(ATOM)}[..., {index}]", ATOM, operand.names | places.names)
    if op.window is not None:
        window: Expression = op.window
        if length < size:
            left = (size - length) // 2
            window = op.call("jnp.pad", window, (left, size - length - left))
        windowed = op.binary("*", windowed, window, PRODUCT)
    elif length < size:
        raise NotImplementedError("stft with a window shorter than its transform, and none given")
    onesided = op.onesided is None or op.onesided
    whole = operand.dtype.is_complex or not onesided
    norm = "ortho" if op.normalized else None
    found = op.method(op.call("jnp.fft.fft" if whole else "jnp.fft.rfft", windowed, norm=norm), "swapaxes", -1, -2)
    if op.return_complex is False:
        return op.call("jnp.stack", Expression(f"[{found.text}.real, {found.text}.imag]", ATOM, found.names), axis=-1)
    return found


@register_operator("aten.istft")
def _istft(op: Operation) -> Expression:
    given = {"hop_length": op.hop_length, "win_length": op.win_length, "window": op.window, "length": op.length}
    flags = {"center": None if op.center else False, "normalized": op.normalized or None, "onesided": op.onesided}
    flags["return_complex"] = op.return_complex or None
    return op.call("F.istft", op.arguments["self"], op.n_fft, **given, **flags)
