"""Signals out of their spectra."""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from jaxnn.functional._argument import ArgumentError, concrete


def istft(
    input: Complex[Array, "*batch frequencies frames"],
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Float[Array, " win_length"] | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Inexact[Array, "*batch time"]:
    """The signal of a short-time Fourier transform: its frames overlapped and added, by the sum of squared windows.

    Args:
        input: as ``torch.stft`` gives it.
        n_fft: samples in a frame.
        hop_length: samples between frames; a quarter of ``n_fft`` by default.
        win_length: samples of the window, which stands in the middle of the frame; ``n_fft`` by default.
        window: all ones by default.
        center: whether the first frame is centred on the first sample.
        normalized: whether the transform is scaled to keep the norm.
        onesided: whether ``input`` has the frequencies from zero up only; found of its size by default.
        length: of the signal; what the frames reach by default.
        return_complex: whether the signal is complex.

    Raises:
        ArgumentError: ``input`` is not complex, its frequencies are not those of ``n_fft``, a complex signal is asked
            of half of them, the window is not of ``win_length`` or longer than a frame, or the windows leave a gap
            (under ``jit`` the signal is NaN there).

    Source: ``torch.istft``.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    half = n_fft // 2 + 1
    if not jnp.iscomplexobj(input):
        raise ArgumentError(f"istft: input must be complex, got {input.dtype}")
    if not (0 < width <= n_fft and 0 < hop <= width):
        raise ArgumentError(f"istft: expected 0 < hop_length <= win_length <= n_fft, got {hop}, {width} and {n_fft}")
    if onesided and return_complex:
        raise ArgumentError("istft: onesided must be false where return_complex is true")
    onesided = (input.shape[-2] == half and not return_complex) if onesided is None else onesided
    if input.shape[-2] != (half if onesided else n_fft):
        raise ArgumentError(f"istft: expected {half if onesided else n_fft} frequencies, got {input.shape[-2]}")
    if window is not None and window.shape != (width,):
        raise ArgumentError(f"istft: expected a window of shape ({width},), got {window.shape}")
    left = (n_fft - width) // 2
    weights = jnp.ones(width, input.real.dtype) if window is None else window
    weights = jnp.pad(weights, (left, n_fft - width - left))
    spectra, norm = input.swapaxes(-1, -2), "ortho" if normalized else None
    if onesided:
        frames = jnp.fft.irfft(spectra, n_fft, norm=norm)
    else:
        frames = jnp.fft.ifft(spectra, norm=norm)
        frames = frames if return_complex else frames.real
    count = frames.shape[-2]
    reach = n_fft + hop * (count - 1)
    places = hop * jnp.arange(count)[:, None] + jnp.arange(n_fft)
    signal = jnp.zeros((*frames.shape[:-2], reach), frames.dtype).at[..., places].add(frames * weights)
    envelope = jnp.zeros(reach, weights.dtype).at[places].add(jnp.broadcast_to(weights**2, places.shape))
    start = n_fft // 2 if center else 0
    end = reach - start if length is None else start + length
    signal, envelope = signal[..., start:end], envelope[start:end]
    covered = envelope > 1e-11
    if (known := concrete(covered)) is not None and not known.all():
        raise ArgumentError("istft: the windows must overlap everywhere, got a gap between them")
    signal = jnp.where(covered, signal / envelope, jnp.nan)
    return jnp.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(0, max(end - reach, 0))])
