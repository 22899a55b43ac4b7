"""Settings of the process, each in a process of its own."""

import subprocess
import sys
import textwrap

import jax.numpy as jnp
import pytest

import jaxnn

PREPARE = """
    import resource
    import statistics
    import jax, jax.numpy as jnp
    import jaxnn
"""


def printed(program):
    command = [sys.executable, "-c", textwrap.dedent(PREPARE) + textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_large_results_are_written_into_memory_that_the_process_kept():
    faults = """
        {}
        x = jnp.ones(2**24)
        double = jax.jit(lambda x: 2 * x)
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            double(x).block_until_ready()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        # One in five may find its memory still in use, beside other processes, and take more.
        print(statistics.median([faults() for _ in range(15)][5:]))
    """
    (as_it_comes,), (tuned,) = printed(faults.format("")), printed(faults.format("jaxnn.tune_cpu()"))
    assert float(tuned) < 0.1 * float(as_it_comes)


def test_a_program_has_run_when_its_call_returns():
    found = """
        {}
        x = jnp.ones((1000, 1000))
        longer = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda i, x: x @ x, x))
        longer(x).block_until_ready()
        print(longer(x).is_ready())
    """
    assert printed(found.format("")) == ["False"]
    assert printed(found.format("jaxnn.tune_cpu(); jaxnn.tune_cpu()  # the second time is no error")) == ["True"]


def test_too_late_is_refused():
    jnp.zeros(1).block_until_ready()
    with pytest.raises(RuntimeError, match="before JAX computes"):
        jaxnn.tune_cpu()
