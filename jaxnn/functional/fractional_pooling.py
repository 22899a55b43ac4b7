"""Max pooling of windows that lie at random, so as to shrink by any ratio."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Key, Num

from jaxnn.functional import _random
from jaxnn.functional._argument import ArgumentError, accumulation_dtype
from jaxnn.functional._windowed_max import windowed_max
from jaxnn.functional._windows import check_axes, check_floating, check_not_empty, default_integer, exact_tuple


def fractional_max_pool2d(
    input: Num[ArrayLike, "..."],
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: int | float | Sequence[int | float] | None = None,
    return_indices: bool = False,
    _random_samples: Float[ArrayLike, "..."] | None = None,
    *,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "..."] | tuple[Float[Array, "..."], Int[Array, "..."]]:
    r"""Maxima of windows whose steps are random, over the last two axes.

    .. math:: a_i = \lfloor (i + u) \alpha \rfloor - \lfloor u \alpha \rfloor, \quad \alpha = \frac{L - k}{n - 1},
        \quad a_{n-1} = L - k

    with :math:`a_i` the first element of window :math:`i` of :math:`n` and :math:`u` uniform on [0, 1), drawn for each
    axis of each channel of each sample.

    Args:
        input: ``(channels, height, width)`` or ``(batch, channels, height, width)``.
        kernel_size: elements in a window, one for both axes or a pair.
        output_size: windows on each axis, one for both or a pair.
        output_ratio: in place of ``output_size``, a pair of ratios of it to the input's sizes.
        return_indices: return the position of each maximum too.
        _random_samples: :math:`u`, ``(batch, channels, 2)``, in the dtype of ``input``; over two axes the
            first is for the width.
        key: a ``jax.random.key``; needed without ``_random_samples``.

    Returns:
        ``(*batch, channels, *output_size)``; with ``return_indices`` a pair with the indices into the flattened
        spatial axes.

    Raises:
        ArgumentError: neither ``output_size`` nor ``output_ratio`` is given, the windows do not fit, a shape is wrong,
            or a key is needed and missing.
        NotImplementedError: ``input`` is not of a floating-point dtype.

    Source: ``torch.nn.functional.fractional_max_pool2d``; Graham (2014), arXiv:1412.6071.
    """
    pooled = fractional_max_pool2d_with_indices(
        input, kernel_size, output_size, output_ratio, return_indices, _random_samples, key=key
    )
    return pooled if return_indices else pooled[0]


def fractional_max_pool3d(
    input: Num[ArrayLike, "..."],
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: int | float | Sequence[int | float] | None = None,
    return_indices: bool = False,
    _random_samples: Float[ArrayLike, "..."] | None = None,
    *,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "..."] | tuple[Float[Array, "..."], Int[Array, "..."]]:
    """:func:`fractional_max_pool2d` over the last three axes; here the output must be smaller than what fits.

    Source: ``torch.nn.functional.fractional_max_pool3d``.
    """
    pooled = fractional_max_pool3d_with_indices(
        input, kernel_size, output_size, output_ratio, return_indices, _random_samples, key=key
    )
    return pooled if return_indices else pooled[0]


def fractional_max_pool2d_with_indices(
    input: Num[ArrayLike, "..."],
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: int | float | Sequence[int | float] | None = None,
    return_indices: bool = False,
    _random_samples: Float[ArrayLike, "..."] | None = None,
    *,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, "..."], Int[Array, "..."]]:
    """:func:`fractional_max_pool2d` and the indices of the maxima, whatever ``return_indices`` says.

    Source: ``torch.nn.functional.fractional_max_pool2d_with_indices``.
    """
    return _fractional_max_pool(
        "fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, _random_samples, key
    )


def fractional_max_pool3d_with_indices(
    input: Num[ArrayLike, "..."],
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: int | float | Sequence[int | float] | None = None,
    return_indices: bool = False,
    _random_samples: Float[ArrayLike, "..."] | None = None,
    *,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, "..."], Int[Array, "..."]]:
    """:func:`fractional_max_pool3d` and the indices of the maxima, whatever ``return_indices`` says.

    Source: ``torch.nn.functional.fractional_max_pool3d_with_indices``.
    """
    return _fractional_max_pool(
        "fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, _random_samples, key
    )


def _fractional_max_pool(
    name: str,
    n: int,
    input: ArrayLike,
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None,
    output_ratio: int | float | Sequence[int | float] | None,
    samples: ArrayLike | None,
    key: Key[Array, ""] | None,
) -> tuple[Array, Array]:
    x = jnp.asarray(input)
    kernels = exact_tuple(kernel_size, n, f"{name}: kernel_size")
    if x.ndim <= n:
        # torch looks for the channels first, hence the exception of its own.
        raise IndexError(f"{name}: input must have {n + 1} or {n + 2} axes, got shape {x.shape}")
    if output_size is None:
        output_size = _shrunk(name, x.shape[-n:], output_ratio)
    outputs = exact_tuple(output_size, n, f"{name}: output_size")
    check_axes(name, x.shape, n)
    check_floating(name, x)
    check_not_empty(name, x.shape, range(x.ndim - n - 1, x.ndim))
    for size, kernel, output in zip(x.shape[-n:], kernels, outputs, strict=True):
        # Over three axes torch asks for one element more than the windows need.
        if kernel <= 0 or output < 0 or output + kernel - 1 > size - (n == 3):
            raise ArgumentError(
                f"{name}: kernel_size={kernels} does not fit into input of shape {x.shape} for output_size={outputs}"
            )
    batched = x if x.ndim == n + 2 else x[None]
    batch, channels = batched.shape[:2]
    if samples is None:
        samples = _random.uniform(_random.required(key, name), (batch, channels, n), x.dtype)
    samples = jnp.asarray(samples)
    if samples.ndim != 3 or samples.shape[0] < batch or samples.shape[1:] != (channels, n) or samples.dtype != x.dtype:
        raise ArgumentError(
            f"{name}: _random_samples must be {x.dtype} of shape {(batch, channels, n)}, "
            f"got {samples.dtype} of shape {samples.shape}"
        )
    shape = (*x.shape[:-n], *outputs)
    if 0 in shape:
        return jnp.zeros(shape, x.dtype), jnp.zeros(shape, default_integer())
    values, flat = _maxima(batched, samples[:batch], kernels, outputs)
    return values.reshape(shape), flat.reshape(shape).astype(default_integer())


@partial(jax.jit, static_argnums=(2, 3))
def _maxima(x: Array, samples: Array, kernels: tuple[int, ...], outputs: tuple[int, ...]) -> tuple[Array, Array]:
    n = len(kernels)
    views = []
    for i, (size, kernel, output) in enumerate(zip(x.shape[-n:], kernels, outputs, strict=True)):
        # Over two axes torch draws for the last first, over three for the first.
        starts = _starts(samples[:, :, i if n == 3 else 1 - i], size, kernel, output)
        views.append(partial(_view, positions=starts[..., None] + jnp.arange(kernel, dtype=jnp.int32)))
    return windowed_max(x, views)


def _shrunk(name: str, spatial: tuple[int, ...], output_ratio: Any) -> tuple[int, ...]:
    if output_ratio is None:
        raise ArgumentError(f"{name}: one of output_size and output_ratio must be given, got neither")
    n = len(spatial)
    if not isinstance(output_ratio, Sequence):
        if n == 2:
            raise TypeError(f"{name}: output_ratio must be a pair, got {output_ratio!r}")
        output_ratio = (output_ratio,) * n
    if n == 2 and len(output_ratio) > n:
        raise ArgumentError(f"{name}: output_ratio must be a pair, got {output_ratio!r}")
    if len(output_ratio) < n:
        raise IndexError(f"{name}: output_ratio must hold {n} ratios, got {output_ratio!r}")
    return tuple(int(size * ratio) for size, ratio in zip(spatial, output_ratio, strict=False))


def _starts(samples: Array, size: int, kernel: int, output: int) -> Array:
    """The first element of each window: ``(batch, channels, output)``."""
    last = jnp.full((*samples.shape, 1), size - kernel, jnp.int32)
    if output == 1:
        return last
    dtype = samples.dtype
    u = samples[..., None].astype(accumulation_dtype(dtype))

    def rounded(value: Array) -> Array:
        # torch rounds every step to the input's dtype; XLA would keep the excess precision.
        info = jnp.finfo(dtype)
        return lax.reduce_precision(value, info.nexp, info.nmant)

    def number(value: int) -> Array:
        return rounded(jnp.asarray(value, u.dtype))

    step = rounded(number(size - kernel) / number(output - 1))
    i = rounded(jnp.arange(output - 1, dtype=jnp.int32).astype(u.dtype))
    starts = rounded(rounded(i + u) * step).astype(jnp.int32) - rounded(u * step).astype(jnp.int32)
    return jnp.concatenate([starts, last], -1)


def _view(x: Array, axis: int, positions: Array) -> Array:
    take = partial(jnp.take, axis=axis - 2, mode="clip")
    return jax.vmap(jax.vmap(take))(jnp.broadcast_to(x, positions.shape[:2] + x.shape[2:]), positions)
