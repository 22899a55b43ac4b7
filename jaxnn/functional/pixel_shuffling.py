"""Channels and pixels rearranged: nothing is computed."""

import operator

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Shaped

from jaxnn.functional._argument import ArgumentError


def pixel_shuffle(input: Shaped[ArrayLike, "*shape"], upscale_factor: int) -> Shaped[Array, "..."]:
    r"""Spread groups of channels over finer pixels.

    .. math:: y_{c,\; h r + a,\; w r + b} = x_{c r^2 + a r + b,\; h,\; w}

    Args:
        input: ``(*, channels * r**2, height, width)``, any dtype.
        upscale_factor: ``r``, by which the image grows.

    Returns:
        ``(*, channels, height * r, width * r)``.

    Raises:
        ArgumentError: ``input`` has fewer than 3 axes, ``upscale_factor`` is not positive, or its square does not
            divide the channels.

    Source: ``torch.nn.functional.pixel_shuffle``; Shi et al. (2016).
    """
    input = jnp.asarray(input)
    r = _factor("pixel_shuffle", "upscale_factor", upscale_factor, input)
    *batch, channels, height, width = input.shape
    if channels % r**2:
        raise ArgumentError(
            f"pixel_shuffle: channels must be a multiple of upscale_factor**2={r**2}, got input of shape {input.shape}"
        )
    split = input.reshape(*batch, channels // r**2, r, r, height, width)
    n = len(batch)
    shuffled = split.transpose(*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return shuffled.reshape(*batch, channels // r**2, height * r, width * r)


def pixel_unshuffle(input: Shaped[ArrayLike, "*shape"], downscale_factor: int) -> Shaped[Array, "..."]:
    r"""Gather fine pixels into groups of channels: the inverse of :func:`pixel_shuffle`.

    .. math:: y_{c r^2 + a r + b,\; h,\; w} = x_{c,\; h r + a,\; w r + b}

    Args:
        input: ``(*, channels, height * r, width * r)``, any dtype.
        downscale_factor: ``r``, by which the image shrinks.

    Returns:
        ``(*, channels * r**2, height, width)``.

    Raises:
        ArgumentError: ``input`` has fewer than 3 axes, ``downscale_factor`` is not positive, or it does not divide
            height and width.

    Source: ``torch.nn.functional.pixel_unshuffle``; Shi et al. (2016).
    """
    input = jnp.asarray(input)
    r = _factor("pixel_unshuffle", "downscale_factor", downscale_factor, input)
    *batch, channels, height, width = input.shape
    if height % r or width % r:
        raise ArgumentError(
            f"pixel_unshuffle: height and width must be multiples of downscale_factor={r}, "
            f"got input of shape {input.shape}"
        )
    split = input.reshape(*batch, channels, height // r, r, width // r, r)
    n = len(batch)
    gathered = split.transpose(*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    return gathered.reshape(*batch, channels * r**2, height // r, width // r)


def channel_shuffle(input: Shaped[ArrayLike, "*shape"], groups: int) -> Shaped[Array, "*shape"]:
    r"""Deal the channels of each group out over all of them.

    .. math:: y_{n,\; i g + j} = x_{n,\; j (C / g) + i}, \quad 0 \le j < g

    Args:
        input: ``(batch, channels, *spatial)`` with at least one spatial axis, any dtype.
        groups: ``g``, how many groups the channels form.

    Raises:
        ArgumentError: ``input`` has fewer than 3 axes, ``groups`` is not positive, or it does not divide the channels.

    Source: ``torch.nn.functional.channel_shuffle``; Zhang et al. (2018).
    """
    return _channel_shuffle("channel_shuffle", input, groups)


def native_channel_shuffle(input: Shaped[ArrayLike, "*shape"], groups: int) -> Shaped[Array, "*shape"]:
    """The same as :func:`channel_shuffle`, which in torch is another kernel.

    Source: ``torch.nn.functional.native_channel_shuffle``.
    """
    return _channel_shuffle("native_channel_shuffle", input, groups)


def _channel_shuffle(name: str, input: ArrayLike, groups: int) -> Array:
    input, groups = jnp.asarray(input), operator.index(groups)
    if input.ndim < 3:
        raise ArgumentError(f"{name}: input must be (batch, channels, *spatial), got shape {input.shape}")
    batch, channels, *spatial = input.shape
    if groups <= 0 or channels % groups:
        raise ArgumentError(
            f"{name}: groups must be positive and divide the channels, got groups={groups} "
            f"and input of shape {input.shape}"
        )
    dealt = input.reshape(batch, groups, channels // groups, *spatial).swapaxes(1, 2)
    return dealt.reshape(input.shape)


def _factor(name: str, argument: str, factor: int, input: Array) -> int:
    factor = operator.index(factor)
    if input.ndim < 3:
        raise ArgumentError(f"{name}: input must be (*, channels, height, width), got shape {input.shape}")
    if factor <= 0:
        raise ArgumentError(f"{name}: {argument} must be positive, got {factor}")
    return factor
