"""Optimizers inside optax's and flax's tools, and their parameter groups."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from jaxnn import optim
from jaxnn.optim import _pace, lr_scheduler
from tests.jaxnn.optim.trajectories import error, gradient, leaves, problem, run_jax

EVERY = [
    optim.SGD(momentum=0.9),
    optim.Adam(),
    optim.AdamW(amsgrad=True),
    optim.Adadelta(),
    optim.Adafactor(),
    optim.Adagrad(),
    optim.Adamax(),
    optim.ASGD(),
    optim.NAdam(),
    optim.RAdam(),
    optim.RMSprop(centered=True, momentum=0.1),
    optim.Rprop(),
    optim.Muon(),
    optim.LBFGS(max_iter=1),
]
NESTED = {"a": {"weight": jnp.ones((2, 3)), "bias": jnp.ones((1, 3))}, "b": [jnp.ones((2, 2))]}


def named(transform: optim.Optimizer) -> str:
    return type(transform).__name__


@pytest.mark.parametrize("transform", EVERY, ids=named)
def test_state_is_arrays_that_keep_their_types_and_the_change_that_of_the_parameters(transform: optim.Optimizer):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), NESTED)
    state = transform.init(params)
    changes, after = jax.eval_shape(transform.update, params, state, params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), changes) == jax.tree.map(lambda x: (x.shape, x.dtype), params)
    assert {x.dtype for x in jax.tree.leaves(state)} <= {jnp.dtype("float32"), jnp.dtype("int32")}


@pytest.mark.parametrize("transform", EVERY, ids=named)
def test_without_the_parameters_or_with_other_shapes_an_update_is_refused(transform: optim.Optimizer):
    params = {"w": jnp.ones((2, 3))}
    state = transform.init(params)
    with pytest.raises(ValueError, match="update needs the parameters"):
        transform.update(params, state)
    with pytest.raises(ValueError, match=r"must have .* parameter's shape \(2, 3\)"):
        transform.update({"w": jnp.ones(3)}, state, params)


def test_a_chain_clips_before_the_step():
    transform = optax.chain(optax.stateless(lambda g, _: optim.clip_grad_norm_(g, 1.0)[0]), optim.SGD(lr=0.5))
    params = jnp.asarray([3.0, 4.0])
    changes, _ = transform.update(params, transform.init(params), params)
    np.testing.assert_allclose(changes, [-0.3, -0.4], rtol=1e-6)


def test_gradients_accumulate_in_multi_steps():
    params = {"w": jnp.ones(3)}
    inner = optim.Adam(lr=0.1)
    outer = optax.MultiSteps(inner, 2)
    state = outer.init(params)
    # optax divides by an integer.
    with jax.numpy_dtype_promotion("standard"):
        first, state = outer.update({"w": jnp.full(3, 1.0)}, state, params)
        second, state = outer.update({"w": jnp.full(3, 3.0)}, state, params)
    expected, _ = inner.update({"w": jnp.full(3, 2.0)}, inner.init(params), params)
    assert not first["w"].any()
    np.testing.assert_allclose(second["w"], expected["w"], rtol=1e-6)


def test_injected_hyperparameters_can_be_changed_between_steps():
    transform = optax.inject_hyperparams(optim.SGD)(lr=0.1, momentum=0.0)
    params = jnp.ones(2)
    state = transform.init(params)
    update = jax.jit(transform.update)
    assert float(update(params, state, params)[0][0]) == pytest.approx(-0.1)
    state.hyperparams["lr"] = jnp.asarray(0.5)
    assert float(update(params, state, params)[0][0]) == pytest.approx(-0.5)


def test_a_partition_gives_matrices_to_muon_and_the_rest_to_adamw():
    params = {"weight": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    labels = {"weight": "muon", "bias": "adamw"}
    transform = optax.partition({"muon": optim.Muon(lr=0.1), "adamw": optim.AdamW(lr=0.2)}, labels)
    changes, _ = jax.jit(transform.update)(params, transform.init(params), params)
    np.testing.assert_allclose(changes["bias"], -0.2 * 1.01, rtol=1e-5)
    assert changes["weight"].shape == (2, 3)


def test_an_nnx_optimizer_trains_groups_by_name():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    kernel, bias = model.kernel[...], model.bias[...]
    groups = [{"params": r"bias$", "lr": 0.5, "momentum": 0.9}, {}]
    optimizer = nnx.Optimizer(model, optim.SGD(lr=0.1, param_groups=groups), wrt=nnx.Param)

    @nnx.jit
    def step(model: nnx.Linear, optimizer: nnx.Optimizer) -> None:
        optimizer.update(model, nnx.grad(lambda model: model(jnp.ones((1, 2))).sum())(model))

    step(model, optimizer)
    step(model, optimizer)
    np.testing.assert_allclose(model.kernel[...], kernel - 0.2, rtol=1e-5)
    np.testing.assert_allclose(model.bias[...], bias - 0.5 - 0.5 * 1.9, rtol=1e-5)


def test_groups_follow_torchs_with_their_own_rates_decay_and_schedule():
    start, noise = problem(25)
    params = leaves(start)
    theirs = [{"params": params[:1], "lr": 0.1}, {"params": params[1:3], "weight_decay": 0.2}, {"params": params[3:]}]
    reference = torch.optim.Adam(theirs, lr=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(reference, [lambda _: 1.0, lambda step: 0.9**step, lambda _: 1.0])
    for row in noise:
        for param, drawn in zip(params, row, strict=True):
            param.grad = gradient(param, torch.tensor(drawn))
        reference.step()
        schedule.step()
    falling = lr_scheduler.LambdaLR(0.02, lambda step: 0.9**step)
    with jax.enable_x64(True):
        groups = [
            {"params": "^0$", "lr": 0.1},
            {"params": lambda name: name in "12", "lr": falling, "weight_decay": 0.2},
            {"params": ["3"]},
        ]
        found, _ = run_jax(optim.Adam(lr=0.02, param_groups=groups), start, noise)
    assert error(found, [param.numpy() for param in params]) < 1e-8


def test_groups_print_as_torchs():
    weight, bias = torch.zeros(2), torch.zeros(2)
    reference = torch.optim.SGD([{"params": [weight], "lr": 0.5}, {"params": [bias], "momentum": 0.9}], lr=0.1)
    groups = optim.param_groups([{"params": "weight", "lr": 0.5}, {"momentum": 0.9}])
    assert str(optim.SGD(lr=0.1, param_groups=groups)) == str(reference)


@pytest.mark.parametrize(
    ("groups", "wrong"),
    [
        ([{"params": "a"}], "'b.0' belongs to no group"),
        ([{"params": "a"}, {"params": "bias"}, {}], r"'a.bias' belongs to groups \[0, 1\]"),
        ([{"params": ["a.weight", "c"]}, {}], r"\['c'\] are not parameters"),
        ([{}, {}], "only one group"),
        ([], "at least one group"),
        ([{"params": "a", "learning_rate": 1.0}, {}], r"sets \['learning_rate'\]"),
        ([{"params": "a", "lr": -1.0}, {}], "lr must be in"),
    ],
)
def test_groups_that_do_not_divide_the_parameters_are_refused(groups: Any, wrong: str):
    with pytest.raises(ValueError, match=wrong):
        optim.SGD(param_groups=groups).init(NESTED)


def test_a_schedule_counts_updates_and_stays_in_the_state():
    start, noise = problem(10, dtype=np.float32)
    transform = optim.SGD(lr=optax.linear_schedule(0.1, 0.0, 10), momentum=0.9)
    whole, _ = run_jax(transform, start, noise)
    half, state = run_jax(transform, start, noise[:5])
    assert error(run_jax(transform, half, noise[5:], state)[0], whole) < 1e-6


def test_state_is_written_over_where_it_is_donated():
    transform = optim.Adam()
    params = {"w": jnp.ones((64, 64))}
    state = transform.init(params)

    def step(params: Any, state: Any, grads: Any) -> Any:
        changes, state = transform.update(grads, state, params)
        return optax.apply_updates(params, changes), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= 3 * 64 * 64 * 4
    assert memory.temp_size_in_bytes < 64 * 64 * 4


def test_an_update_is_differentiable_and_maps_over_a_new_axis():
    transform = optim.Adam(lr=0.1)
    params = jnp.asarray([1.0, -2.0])
    state = transform.init(params)

    def after(grads: Any) -> Any:
        return jnp.sum(transform.update(grads, state, params)[0] ** 2)

    assert np.isfinite(jax.grad(after)(jnp.asarray([0.5, 1.0]))).all()
    many = jnp.arange(6.0).reshape(3, 2)
    changes, _ = jax.vmap(lambda g: transform.update(g, state, params))(many)
    np.testing.assert_allclose(changes[2], transform.update(many[2], state, params)[0], rtol=1e-6)


@pytest.mark.parametrize("make", [optim.Adam, optim.AdamW])
def test_an_optimizer_is_copied_and_passed_as_one_thing(make: Any):
    transform = make(lr=0.1, betas=(0.8, 0.9), param_groups=[{"params": "a"}, {}])
    for twin in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert str(twin) == str(transform)
    assert isinstance(transform, optax.GradientTransformation)
    assert jax.tree.leaves(transform) == []
    assert jax.tree.map(lambda x: x, transform) is transform


def test_momentum_in_bfloat16_keeps_what_bfloat16_would_lose():
    transform = optim.SGD(lr=1.0, momentum=0.999)
    params = {"w": jnp.zeros(1, jnp.bfloat16)}
    state = transform.init(params)
    grads = {"w": jnp.ones(1, jnp.bfloat16)}
    state = jax.lax.fori_loop(0, 1000, lambda _, state: transform.update(grads, state, params)[1], state)
    np.testing.assert_allclose(state.buffers["momentum_buffer"]["w"], (1 - 0.999**1000) / 0.001, rtol=1e-4)


def test_under_jit_an_update_waits_for_earlier_ones_and_takes_nothing_from_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_pace, "AT_ONCE", 0)
    transform = optim.SGD(lr=1.0, momentum=0.9)
    params = [jnp.ones(2), jnp.ones(3), jnp.ones(())]
    gradients = [jnp.full(2, jnp.nan), jnp.ones(3), jnp.ones(())]
    state = transform.init(params)
    update = jax.jit(transform.update)
    (first, *others), _ = update(gradients, state, params)
    assert jnp.isnan(first).all()
    assert all((change == -1).all() for change in others)
    # A count that cannot be: each is then made of what the one before wrote, so that it cannot be had before.
    changes, _ = update(gradients, state._replace(step=jnp.int32(-2)), params)
    assert all(jnp.isnan(change).all() for change in changes)
