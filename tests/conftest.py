"""Runs for every test: annotations checked, promotion strict, compiled programs kept between runs of one machine."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker of the test run has one core

import jax
from jaxtyping import install_import_hook

from tests import typechecking

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "jaxnn-test-cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

install_import_hook("jaxnn", f"{typechecking.__name__}.after_call")
