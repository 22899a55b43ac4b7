"""PyTorch's optimizer database: every configuration followed, every error refused."""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.experimental.sparse import BCOO
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, OptimizerInput, optim_db

from jaxnn import optim
from tests.jaxnn.optim.trajectories import (
    MATRICES,
    SHAPES,
    configurations,
    entries,
    error,
    in_jax,
    leaves,
    problem,
    run_jax,
    run_torch,
    twin,
)

DENSE = entries("LBFGS", "SparseAdam")


def flagged(given: OptimizerInput) -> bool:
    """Whether a configuration sets one of the switches that have no effect here."""
    return any(given.kwargs.get(name) for name in ("foreach", "fused", "differentiable"))


def cases(which: Any) -> list[Any]:
    """Parameters of a test: algorithm and configuration."""
    return [
        pytest.param(info, given, id=f"{info.optim_cls.__name__}-{i}")
        for info in DENSE
        for i, given in enumerate(given for given in configurations(info) if which(given))
    ]


def shapes_of(info: Any) -> tuple[tuple[int, ...], ...]:
    """Muon takes matrices only."""
    return MATRICES if info.optim_cls.__name__ == "Muon" else SHAPES


@contextmanager
def torch_scalars(dtype: torch.dtype) -> Iterator[None]:
    """torch's step counts and other scalars in ``dtype``: it keeps them in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def follows_torch(info: Any, given: OptimizerInput, dtype: Any) -> float:
    """The relative distance after 30 steps in double precision."""
    start, noise = problem(30, shapes_of(info), dtype)
    # With differentiable Adam raises its decay rates to a power in the dtype of the step count.
    with torch_scalars(torch.float64 if given.kwargs.get("differentiable") else torch.float32):
        expected = run_torch(info.optim_cls(params := leaves(start), **given.kwargs), params, noise)
    with jax.enable_x64(True):
        return error(run_jax(twin(info)(**in_jax(given.kwargs)), start, noise)[0], expected)


@pytest.mark.parametrize("info", DENSE, ids=lambda info: info.optim_cls.__name__)
def test_thirty_steps_in_float64_with_the_last_configuration_are_torchs(info: Any):
    given = [given for given in configurations(info) if not flagged(given)][-1]
    assert follows_torch(info, given, np.float64) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize(("info", "given"), cases(lambda given: True))
def test_thirty_steps_in_float64_are_torchs(info: Any, given: OptimizerInput):
    assert follows_torch(info, given, np.float64) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize(("info", "given"), cases(lambda given: not flagged(given)))
def test_complex_parameters_move_as_torchs(info: Any, given: OptimizerInput):
    if info.optim_cls.__name__ in ("Adafactor", "Muon"):
        pytest.skip("torch takes no complex parameters here")
    assert follows_torch(info, given, np.complex128) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize(("info", "given"), cases(lambda given: not flagged(given)))
def test_a_thousand_steps_in_float32_drift_no_further_than_torchs(info: Any, given: OptimizerInput):
    start, noise = problem(1000, shapes_of(info), np.float32)
    double = [value.astype(np.float64) for value in start]
    truth = run_torch(info.optim_cls(params := leaves(double), **given.kwargs), params, noise)
    theirs = run_torch(info.optim_cls(params := leaves(start), **given.kwargs), params, noise)
    ours = run_jax(twin(info)(**in_jax(given.kwargs)), start, noise)[0]
    assert error(ours, truth) < 4 * error(theirs, truth) + 1e-6


@pytest.mark.parametrize("info", optim_db, ids=lambda info: info.optim_cls.__name__)
def test_an_optimizer_prints_as_torchs(info: Any):
    for given in configurations(info):
        reference = info.optim_cls([torch.zeros(2, 2)], **given.kwargs)
        assert str(twin(info)(**in_jax(given.kwargs))) == str(reference)


@pytest.mark.parametrize("info", optim_db, ids=lambda info: info.optim_cls.__name__)
def test_a_constructor_has_torchs_parameters_and_defaults(info: Any):
    theirs = [p for p in inspect.signature(info.optim_cls).parameters.values() if p.name != "params"]
    ours = [p for p in inspect.signature(twin(info)).parameters.values() if p.name != "param_groups"]
    assert [(p.name, p.default, p.kind) for p in ours] == [(p.name, p.default, p.kind) for p in theirs]


@pytest.mark.parametrize("info", optim_db, ids=lambda info: info.optim_cls.__name__)
def test_what_torch_refuses_is_refused(info: Any):
    for case in info.optim_error_inputs_func("cpu", torch.float32):
        given, kwargs = case.optimizer_error_input, in_jax(case.optimizer_error_input.kwargs)
        with pytest.raises((ValueError, TypeError)):
            refused(twin(info), given.params, kwargs, at_step=case.error_on is OptimizerErrorEnum.STEP_ERROR)


def refused(make: Any, params: Any, kwargs: dict[str, Any], at_step: bool) -> None:
    """Build, and step, an optimizer for what the database gives torch as ``params``."""
    if params is None:
        make(**kwargs)
        return
    if isinstance(params, torch.Tensor):
        make(param_groups=jnp.asarray(params.detach().numpy()), **kwargs)
        return
    if any(isinstance(entry, tuple) for entry in params) or any(
        isinstance(entry, dict) and isinstance(entry["params"], list) and isinstance(entry["params"][0], tuple)
        for entry in params
    ):
        # Some with names and some without: here a group selects by name alone.
        make(param_groups=[dict(entry) if isinstance(entry, dict) else entry for entry in params], **kwargs)
        return
    tensors = [entry["params"] if isinstance(entry, dict) else entry for entry in params]
    tensors = [entry[0] if isinstance(entry, list) else entry for entry in tensors]
    if len({id(tensor) for tensor in tensors}) < len(tensors):
        groups = [{"params": ["0"]}] * 2 if isinstance(params[0], dict) else [{"params": ["0", "0"]}]
        make(param_groups=groups, **kwargs).init({"0": jnp.ones((2, 2))})
        return
    arrays = {str(i): _array(tensor) for i, tensor in enumerate(tensors)}
    transform = make(**kwargs)
    state = transform.init(arrays)
    if at_step:
        transform.update(arrays, state, arrays)


def _array(tensor: torch.Tensor) -> Any:
    return BCOO.fromdense(jnp.asarray(tensor.to_dense().numpy())) if tensor.is_sparse else jnp.asarray(tensor.numpy())


SPARSE = next(info for info in optim_db if info.optim_cls.__name__ == "SparseAdam")


@pytest.mark.parametrize("given", configurations(SPARSE))
def test_sparse_adam_moves_the_rows_it_is_given(given: OptimizerInput):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((6, 3))
    param = torch.tensor(start)
    reference = torch.optim.SparseAdam([param], **given.kwargs)
    with jax.enable_x64(True):
        transform = optim.SparseAdam(**in_jax(given.kwargs))
        update = jax.jit(transform.update)
        params = {"pair": jnp.asarray(start), "rows": jnp.asarray(start), "entries": jnp.asarray(start)}
        state = transform.init(params)
        for _ in range(30):
            # Five rows of six: one is named twice, at least one not at all.
            indices, rows = rng.integers(0, 5, 6), rng.standard_normal((6, 3))
            param.grad = torch.sparse_coo_tensor(indices[None], rows, (6, 3), check_invariants=True)
            reference.step()
            dense = np.zeros((6, 3))
            np.add.at(dense, indices, rows)
            gradients = {
                "pair": (jnp.asarray(rows), jnp.asarray(indices)),
                "rows": BCOO((jnp.asarray(rows), jnp.asarray(indices[:, None])), shape=(6, 3)),
                # Padded beyond its entries, as JAX pads.
                "entries": BCOO.fromdense(jnp.asarray(dense), nse=18),
            }
            changes, state = update(gradients, state, params)
            params = optax.apply_updates(params, changes)
        assert max(error([np.asarray(value)], [param.numpy()]) for value in params.values()) < 1e-8


LBFGS = next(info for info in optim_db if info.optim_cls.__name__ == "LBFGS")


def bowl(x: Any, xp: Any) -> Any:
    """Convex, and far from quadratic."""
    return xp.sum(xp.cosh(x - 1)) + 0.1 * xp.sum(x) ** 2


def valley(x: Any, xp: Any) -> Any:
    """Rosenbrock's."""
    return xp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


LBFGS_CASES = [
    *((given.kwargs, bowl) for given in configurations(LBFGS)),
    ({"line_search_fn": "strong_wolfe", "max_iter": 4, "history_size": 3}, valley),
    ({"lr": 1e-3, "max_iter": 4, "history_size": 3}, valley),
    ({"line_search_fn": "strong_wolfe", "max_eval": 6}, valley),
]


@pytest.mark.parametrize(("kwargs", "loss"), LBFGS_CASES)
def test_lbfgs_takes_torchs_steps_and_counts_its_evaluations(kwargs: dict[str, Any], loss: Any):
    start = np.array([-1.2, 1.0, 0.5, 2.0])
    param = torch.tensor(start, requires_grad=True)
    reference = torch.optim.LBFGS([param], **kwargs)

    def closure() -> torch.Tensor:
        reference.zero_grad()
        value = loss(param, torch)
        value.backward()
        return value

    with jax.enable_x64(True):
        transform = optim.LBFGS(**in_jax(kwargs))

        @jax.jit
        def step(x: Any, state: Any) -> Any:
            value, grads = jax.value_and_grad(loss)(x, jnp)
            changes, state = transform.update(grads, state, x, value=value, value_fn=lambda x: loss(x, jnp))
            return x + changes, state

        x = jnp.asarray(start)
        state = transform.init(x)
        for _ in range(30):
            reference.step(closure)
            x, state = step(x, state)
        assert error([np.asarray(x)], [param.detach().numpy()]) < 1e-8
        assert int(state.n_iter) == reference.state[param]["n_iter"]
        assert int(state.func_evals) == reference.state[param]["func_evals"]


def test_lbfgs_treats_a_complex_parameter_as_two_real_ones():
    start = np.array([1.0 + 2.0j, -0.5 + 0.3j])
    param = torch.tensor(start, requires_grad=True)
    reference = torch.optim.LBFGS([param], line_search_fn="strong_wolfe", max_iter=5)

    def closure() -> torch.Tensor:
        reference.zero_grad()
        value = ((param - (1 - 1j)).abs() ** 4).sum()
        value.backward()
        return value

    def loss(z: Any) -> Any:
        return jnp.sum(((z - (1 - 1j)).real ** 2 + (z - (1 - 1j)).imag ** 2) ** 2)

    with jax.enable_x64(True):
        transform, z = optim.LBFGS(line_search_fn="strong_wolfe", max_iter=5), jnp.asarray(start)
        state = transform.init(z)
        for _ in range(3):
            reference.step(closure)
            changes, state = transform.update(jnp.conj(jax.grad(loss)(z)), state, z, value_fn=loss)
            z = z + changes
        np.testing.assert_allclose(z, param.detach().numpy(), rtol=1e-8)


def test_bias_corrections_keep_their_digits_in_float32():
    step = jnp.asarray(3.0)
    assert float(optim._base.one_minus_power(0.99999, step)) == pytest.approx(1 - 0.99999**3, rel=1e-6)
    # The rectified length of RAdam is a difference of numbers near 2e5 here.
    exact = (2 / 1e-5 - 1) - 2 * 50 * 0.99999**50 / -math.expm1(50 * math.log(0.99999))
    assert float(optim.radam._memory(0.99999, jnp.asarray(50.0))) == pytest.approx(exact, rel=1e-6)
