"""Settings of the process that make JAX faster on a CPU."""

import ctypes
import platform

import jax

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in glibc's malloc.h
_KEPT = 2**31 - 1
_LARGEST = 2**30


def tune_cpu() -> None:
    """Run programs where they are called, and keep the memory that they free.

    Two defaults cost time on a CPU. JAX hands a program, unless it is tiny, to a thread that has to be woken, which can
    take longer than a small program itself. And glibc gives arrays of more than 32 MB back to the system, which hands
    them out anew, a zeroed page at a time: that can cost five times the work on them. After this call a program runs in
    the thread that calls it, and up to 2 GiB of freed memory stay with the process, for torch too if it is in it.

    No number changes, and other devices are as they were. Python does not run ahead of the CPU any more: a loop that
    reads data while JAX computes has to do so in a thread of its own.

    Raises:
        RuntimeError: JAX has begun to compute, and takes this setting no more.

    Source: JAX's ``jax_cpu_enable_async_dispatch``; glibc's ``mallopt``.
    """
    # JAX takes the setting after that too, without a word and without effect, and has no public way to ask.
    from jax._src import xla_bridge

    dispatch = "jax_cpu_enable_async_dispatch"
    if jax.config.read(dispatch):
        if xla_bridge.backends_are_initialized():
            raise RuntimeError("tune_cpu: must be called before JAX computes anything or lists its devices")
        jax.config.update(dispatch, False)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
