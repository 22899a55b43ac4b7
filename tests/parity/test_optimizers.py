"""A run begun in torch goes on in JAX, and the reverse."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.testing._internal.common_optimizers import optim_db

import parity
from jaxnn import optim
from tests.jaxnn.optim.trajectories import MATRICES, SHAPES, error, leaves, problem, run_jax, run_torch

BUSY: dict[str, dict[str, Any]] = {
    "ASGD": {"t0": 10, "weight_decay": 0.1},
    "Adadelta": {"weight_decay": 0.1},
    "Adafactor": {"weight_decay": 0.1},
    "Adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.1},
    "Adam": {"amsgrad": True, "weight_decay": 0.1},
    "AdamW": {"amsgrad": True},
    "Adamax": {"weight_decay": 0.1},
    "Muon": {},
    "NAdam": {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "RAdam": {"weight_decay": 0.1},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Rprop": {},
    "SGD": {"momentum": 0.9, "dampening": 0.3},
}


def test_every_algorithm_is_proved_to_cross():
    assert {info.optim_cls.__name__ for info in optim_db} == {*BUSY, "LBFGS", "SparseAdam"}


@pytest.mark.parametrize("name", BUSY)
def test_twenty_steps_in_one_and_twenty_in_the_other_are_forty_in_either(name: str):
    make = getattr(torch.optim, name)
    start, noise = problem(40, MATRICES if name == "Muon" else SHAPES)
    names = [str(i) for i in range(len(start))]

    def fresh(values: Any) -> tuple[list[torch.Tensor], torch.optim.Optimizer]:
        params = leaves(values)
        return params, make(list(zip(names, params, strict=True)), **BUSY[name])

    params, reference = fresh(start)
    forty = run_torch(reference, params, noise)
    with jax.enable_x64(True):
        transform = getattr(optim, name)(**BUSY[name])
        params, begun = fresh(start)
        middle = run_torch(begun, params, noise[:20])
        state = parity.optimizer_state(begun, transform, dict(zip(names, middle, strict=True)))
        assert error(run_jax(transform, middle, noise[20:], state)[0], forty) < 1e-8

        middle, state = run_jax(transform, start, noise[:20])
        params, resumed = fresh(middle)
        resumed.load_state_dict(parity.optimizer_state_dict(state, dict(zip(names, middle, strict=True)), resumed))
        assert error(run_torch(resumed, params, noise[20:]), forty) < 1e-8


def test_sparse_adam_crosses():
    start = np.random.default_rng(0).standard_normal((5, 2))
    rows = np.random.default_rng(1).standard_normal((40, 3, 2))
    places = np.random.default_rng(2).integers(0, 5, (40, 3))

    def in_torch(optimizer: torch.optim.Optimizer, param: torch.Tensor, steps: range) -> None:
        for i in steps:
            param.grad = torch.sparse_coo_tensor(places[i][None], rows[i], (5, 2), check_invariants=True)
            optimizer.step()

    with jax.enable_x64(True):
        transform = optim.SparseAdam(lr=0.1)
        update = jax.jit(transform.update)

        def in_jax(params: Any, state: Any, steps: range) -> Any:
            for i in steps:
                change, state = update({"w": (jnp.asarray(rows[i]), jnp.asarray(places[i]))}, state, params)
                params = {"w": params["w"] + change["w"]}
            return params, state

        forty = torch.tensor(start)
        in_torch(torch.optim.SparseAdam([forty], lr=0.1), forty, range(40))

        param = torch.tensor(start)
        begun = torch.optim.SparseAdam([("w", param)], lr=0.1)
        in_torch(begun, param, range(20))
        params = {"w": jnp.asarray(param.numpy())}
        params, _ = in_jax(params, parity.optimizer_state(begun, transform, params), range(20, 40))
        np.testing.assert_allclose(params["w"], forty.numpy(), rtol=1e-8)

        params = {"w": jnp.asarray(start)}
        params, state = in_jax(params, transform.init(params), range(20))
        param = torch.tensor(np.asarray(params["w"]))
        resumed = torch.optim.SparseAdam([("w", param)], lr=0.1)
        resumed.load_state_dict(parity.optimizer_state_dict(state, params, resumed))
        in_torch(resumed, param, range(20, 40))
        np.testing.assert_allclose(param.numpy(), forty.numpy(), rtol=1e-8)


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
def test_lbfgs_crosses_though_torch_and_jax_order_parameters_differently(line_search_fn: str | None):
    options: dict[str, Any] = {"max_iter": 3, "history_size": 5, "lr": 0.1, "line_search_fn": line_search_fn}
    start = {"b": np.array([-1.2, 1.0]), "a": np.array([[0.5], [2.0]])}

    def loss(values: dict[str, Any], xp: Any) -> Any:
        a, b = values["a"][:, 0], values["b"]
        return xp.cosh(a).sum() + (xp.cosh(b - 1) * (1 + a**2)).sum() + 0.1 * (a.sum() - b.sum()) ** 2

    def in_torch(optimizer: torch.optim.Optimizer, params: dict[str, torch.Tensor], steps: int) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            value = loss(params, torch)
            value.backward()
            return value

        for _ in range(steps):
            optimizer.step(closure)

    def fresh(values: Any) -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
        params = {key: torch.tensor(np.asarray(values[key]), requires_grad=True) for key in start}
        return params, torch.optim.LBFGS(list(params.items()), **options)

    with jax.enable_x64(True):
        transform = optim.LBFGS(**options)

        def of(values: Any) -> Any:
            return loss(values, jnp)

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            changes, state = transform.update(jax.grad(of)(params), state, params, value_fn=of)
            return jax.tree.map(jnp.add, params, changes), state

        def in_jax(params: Any, state: Any, steps: int) -> Any:
            for _ in range(steps):
                params, state = step(params, state)
            return params, state

        forty, optimizer = fresh(start)
        in_torch(optimizer, forty, 8)

        params, begun = fresh(start)
        in_torch(begun, params, 4)
        middle = {key: jnp.asarray(value.detach().numpy()) for key, value in params.items()}
        ours, _ = in_jax(middle, parity.optimizer_state(begun, transform, middle), 4)
        middle = {key: jnp.asarray(value) for key, value in start.items()}
        middle, state = in_jax(middle, transform.init(middle), 4)
        theirs, resumed = fresh(middle)
        resumed.load_state_dict(parity.optimizer_state_dict(state, middle, resumed))
        in_torch(resumed, theirs, 4)
        for key, value in forty.items():
            np.testing.assert_allclose(ours[key], value.detach().numpy(), rtol=1e-8)
            np.testing.assert_allclose(theirs[key].detach().numpy(), value.detach().numpy(), rtol=1e-8)


def linear_in_both() -> tuple[torch.nn.Module, dict[str, Any]]:
    module = torch.nn.Linear(2, 3)
    return module, {name: jnp.asarray(value.detach().numpy()) for name, value in module.named_parameters()}


def test_names_come_from_the_module():
    module, params = linear_in_both()
    optimizer = torch.optim.Adam(reversed(list(module.parameters())))
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = parity.optimizer_state(optimizer, optim.Adam(), params, names=module)
    np.testing.assert_allclose(state.buffers["exp_avg"]["weight"], 0.1 * np.ones((3, 2)), rtol=1e-6)


def test_half_precision_state_arrives_in_float32():
    param = torch.ones(3, dtype=torch.bfloat16)
    optimizer = torch.optim.Adam([("w", param)])
    param.grad = param.clone()
    optimizer.step()
    state = parity.optimizer_state(optimizer, optim.Adam(), {"w": jnp.ones(3, jnp.bfloat16)})
    assert state.buffers["exp_avg"]["w"].dtype == jnp.float32


def test_what_does_not_fit_is_refused():
    module, params = linear_in_both()
    optimizer = torch.optim.Adam(module.named_parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with pytest.raises(parity.OptimizerStateError, match="max_exp_avg_sq"):
        parity.optimizer_state(optimizer, optim.Adam(amsgrad=True), params)
    with pytest.raises(parity.OptimizerStateError, match=r"lacks \['scale'\]"):
        parity.optimizer_state(optimizer, optim.Adam(), {**params, "scale": jnp.ones(3)})
    with pytest.raises(parity.OptimizerStateError, match="must have shape"):
        parity.optimizer_state(optimizer, optim.Adam(), {**params, "bias": jnp.ones(4)})
    with pytest.raises(parity.OptimizerStateError, match="names are needed"):
        parity.optimizer_state(torch.optim.Adam(module.parameters()), optim.Adam(), params)
    with pytest.raises(parity.OptimizerStateError, match="names must be 2"):
        parity.optimizer_state(optimizer, optim.Adam(), params, names=["weight"])
