"""Convolution and its two transposes as primitives: XLA's own operator everywhere but on a CPU.

A convolution is one form, linear in each of three arrays: the images ``x``, the kernel ``w`` and a weight ``y`` for
each output, ``sum(y * convolve(x, w))``. Its derivatives by ``y``, ``x`` and ``w`` are the convolution, the gradient of
the images (a transposed convolution) and the gradient of the kernel. Each of the three is linear in two arrays, and its
transposes are the other two, so that they are closed under differentiation, forward and reverse, to any order.

On a CPU the static shapes choose the algorithm (:mod:`jaxnn._lowering.convolution_cpu`); elsewhere each primitive is
``lax.conv_general_dilated`` or its transpose.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.errors import InconclusiveDimensionOperation, TracerBoolConversionError
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from jaxnn._lowering import convolution_cpu
from jaxnn._lowering.geometry import Geometry, mirrored


def convolution(x: Array, w: Array, geometry: Geometry) -> Array:
    """Cross-correlation: ``(N, C, *sizes)`` and ``(O, C / groups, *kernel)`` to ``(N, O, *outputs)``."""
    if _is_placed(x, w):
        return _general(x, w, geometry=geometry)
    return _convolution.bind(x, w, geometry=geometry)


def image_gradient(y: Array, w: Array, geometry: Geometry) -> Array:
    """The gradient of the images, a transposed convolution: ``(N, O, *outputs)`` to ``(N, C, *sizes)``."""
    if _is_placed(y, w):
        return _general_image_gradient(y, w, geometry=geometry)
    return _image_gradient.bind(y, w, geometry=geometry)


def _is_placed(*arrays: Array) -> bool:
    """Whether types say how an array lies on a mesh, as within ``shard_map``: JAX's own operators know what follows."""
    avals = [jax.typeof(x) for x in arrays]
    varying = [getattr(aval, "manual_axis_type", aval) for aval in avals]
    return any(getattr(v, "varying", getattr(v, "vma", ())) for v in varying) or any(
        any(axis is not None for axis in aval.sharding.spec) for aval in avals
    )


def _general(x: Array, w: Array, *, geometry: Geometry) -> Array:
    """XLA's operator."""
    return lax.conv_general_dilated(
        x,
        w,
        geometry.strides,
        geometry.pads,
        rhs_dilation=geometry.dilations,
        feature_group_count=geometry.groups,
        precision=geometry.precision,
    )


def _general_image_gradient(y: Array, w: Array, *, geometry: Geometry) -> Array:
    return lax.conv_general_dilated(
        y,
        mirrored(w, geometry.groups),
        [1] * len(geometry.strides),
        geometry.transposed_pads,
        lhs_dilation=geometry.strides,
        rhs_dilation=geometry.dilations,
        feature_group_count=geometry.groups,
        precision=geometry.precision,
    )


def _general_kernel_gradient(x: Array, y: Array, *, geometry: Geometry) -> Array:
    kernel = jax.ShapeDtypeStruct((y.shape[1], x.shape[1] // geometry.groups, *geometry.kernel_size), x.dtype)
    return jax.linear_transpose(lambda w: _general(x, w, geometry=geometry), kernel)(y)[0]


def _convolution_shape(x: ShapedArray, w: ShapedArray, *, geometry: Geometry) -> ShapedArray:
    return ShapedArray((x.shape[0], w.shape[0], *geometry.outputs), x.dtype)


def _image_gradient_shape(y: ShapedArray, w: ShapedArray, *, geometry: Geometry) -> ShapedArray:
    return ShapedArray((y.shape[0], w.shape[1] * geometry.groups, *geometry.sizes), y.dtype)


def _kernel_gradient_shape(x: ShapedArray, y: ShapedArray, *, geometry: Geometry) -> ShapedArray:
    return ShapedArray((y.shape[1], x.shape[1] // geometry.groups, *geometry.kernel_size), x.dtype)


def _front(x: Array, axis: int | None, size: int) -> Array:
    """``x`` with the mapped axis in front, repeated where it is not mapped."""
    return jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)


def _in_groups(x: Array, at: int) -> Array:
    """The mapped axis, in front, merged into the axis of channels, at ``at`` once it is gone."""
    x = jnp.moveaxis(x, 0, at)
    return x.reshape(*x.shape[:at], -1, *x.shape[at + 2 :])


def _mapped(
    primitive: Primitive,
    channels: tuple[int, int],
    result: int,
    batched: bool,
    args: Sequence[Array],
    axes: Sequence[int | None],
    *,
    geometry: Geometry,
) -> tuple[Array, int]:
    """Over a mapped axis of both operands: as many groups more; of the images alone: as many images more.

    Args:
        primitive: one of the three.
        channels: which axis of each operand a group's channels lie on.
        result: which axis of the result they lie on.
        batched: whether the first operand and the result have a batch axis in front, and the second has none.
        args: the operands.
        axes: the mapped axis of each.
        geometry: of one of them.
    """
    size = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
    if batched and axes[1] is None:
        images = _front(args[0], axes[0], size)
        output = primitive.bind(images.reshape(-1, *images.shape[2:]), args[1], geometry=geometry)
        return output.reshape(size, -1, *output.shape[1:]), 0
    merged = [_in_groups(_front(x, axis, size), at) for x, axis, at in zip(args, axes, channels, strict=True)]
    output = primitive.bind(*merged, geometry=geometry._replace(groups=size * geometry.groups))
    return output.reshape(*output.shape[:result], size, -1, *output.shape[result + 1 :]), result


def _primitive(
    name: str,
    shape: Callable[..., ShapedArray],
    general: Callable[..., Array],
    cpu: Callable[..., Array | None],
    channels: tuple[int, int],
    result: int,
    batched: bool,
) -> Primitive:
    primitive = Primitive(name)
    primitive.def_abstract_eval(shape)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames="geometry"))

    def on_cpu(*args: Array, geometry: Geometry) -> Array:
        dtype = args[0].dtype
        if dtype in (jnp.float16, jnp.bfloat16):  # summed in float32 and rounded once, as torch does
            args = tuple(x.astype(jnp.float32) for x in args)
        try:
            output = cpu(*args, geometry=geometry)
        except (InconclusiveDimensionOperation, TracerBoolConversionError):  # of a size that a program leaves open
            output = None
        return (general(*args, geometry=geometry) if output is None else output).astype(dtype)

    mlir.register_lowering(primitive, mlir.lower_fun(general, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")
    batching.primitive_batchers[primitive] = partial(_mapped, primitive, channels, result, batched)
    return primitive


_convolution = _primitive("convolution", _convolution_shape, _general, convolution_cpu.convolution, (1, 0), 1, True)
_image_gradient = _primitive(
    "convolution_image_gradient",
    _image_gradient_shape,
    _general_image_gradient,
    convolution_cpu.image_gradient,
    (1, 0),
    1,
    True,
)
_kernel_gradient = _primitive(
    "convolution_kernel_gradient",
    _kernel_gradient_shape,
    _general_kernel_gradient,
    convolution_cpu.kernel_gradient,
    (1, 1),
    0,
    False,
)

ad.defbilinear(
    _convolution,
    lambda y, x, w, *, geometry: _image_gradient.bind(y, w, geometry=geometry),
    lambda y, x, w, *, geometry: _kernel_gradient.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    _image_gradient,
    lambda x, y, w, *, geometry: _convolution.bind(x, w, geometry=geometry),
    lambda x, y, w, *, geometry: _kernel_gradient.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    _kernel_gradient,
    lambda w, x, y, *, geometry: _image_gradient.bind(y, w, geometry=geometry),
    lambda w, x, y, *, geometry: _convolution.bind(x, w, geometry=geometry),
)
