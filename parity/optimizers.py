"""Optimizer state between torch and JAX, so that a run begun in one goes on in the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import PyTree

from jaxnn.optim import LBFGSState, Optimizer, OptimizerState
from jaxnn.optim._groups import dotted_names
from parity.arrays import to_jax, to_numpy, to_tensor

Names = Sequence[str] | torch.nn.Module | None


class OptimizerStateError(ValueError):
    """Two optimizers, or an optimizer and its parameters, that do not fit together."""


def optimizer_state(
    source: torch.optim.Optimizer | Mapping[str, Any],
    transform: Optimizer,
    params: PyTree,
    *,
    names: Names = None,
    step: int | None = None,
) -> OptimizerState | LBFGSState:
    """The state of a torch optimizer as that of its jaxnn twin.

    Parameters are matched by dotted name. Inside ``optax.chain`` and its like, put the result where the twin's own
    state stands.

    Args:
        source: a torch optimizer, or its ``state_dict``.
        transform: the twin, with the same hyperparameters.
        params: the parameters in JAX.
        names: dotted names in the order of the torch optimizer's parameters, or the torch module they belong to; may be
            left out where the optimizer was made from ``named_parameters()``.
        step: updates made, for SGD and Muon, which do not count them; a schedule reads it.

    Raises:
        OptimizerStateError: names or shapes do not match, the two keep different things for a parameter, or the
            parameters are at different steps.
    """
    saved = source.state_dict() if isinstance(source, torch.optim.Optimizer) else source
    order = _ordered_names(source, saved, names)
    fresh = transform.init(params)
    if isinstance(fresh, LBFGSState):
        return _lbfgs_from_torch(saved, fresh, order, params)
    places = {name: i for i, name in enumerate(dotted_names(params))}
    _check_names(order, places)
    tree: Any = jax.tree.structure(params)
    columns = {key: tree.flatten_up_to(column) for key, column in fresh.buffers.items()}
    steps = set()
    for index, entries in saved["state"].items():
        name = order[index]
        place = places[name]
        if "step" in entries:
            steps.add(int(entries["step"]))
        kept = {key: value for key, value in entries.items() if key != "step" and value is not None}
        ours = {key for key, column in columns.items() if column[place] is not None}
        if kept and kept.keys() != ours:
            raise OptimizerStateError(
                f"optimizer_state: torch keeps {sorted(kept)} for {name!r}, {type(transform).__name__} {sorted(ours)}"
            )
        for key, value in kept.items():
            like = columns[key][place]
            if tuple(value.shape) != like.shape:
                raise OptimizerStateError(
                    f"optimizer_state: {key} of {name!r} must have shape {like.shape}, got {tuple(value.shape)}"
                )
            columns[key][place] = to_jax(value).astype(like.dtype)
    if len(steps) > 1:
        raise OptimizerStateError(f"optimizer_state: parameters must be at one step, got {sorted(steps)}")
    # Without a count, what remains of it is whether there was a first step.
    begun = int(any(any(value is not None for value in entries.values()) for entries in saved["state"].values()))
    made = steps.pop() if steps else step if step is not None else begun
    buffers = {key: tree.unflatten(column) for key, column in columns.items()}
    return fresh._replace(step=jnp.asarray(made, jnp.int32), buffers=buffers)


def optimizer_state_dict(
    state: OptimizerState | LBFGSState, params: PyTree, torch_optimizer: torch.optim.Optimizer, *, names: Names = None
) -> dict[str, Any]:
    """The state of a jaxnn optimizer as a ``state_dict`` that its torch twin loads.

    Args:
        state: of the jaxnn optimizer.
        params: the parameters in JAX.
        torch_optimizer: the twin; its hyperparameters and the order of its parameters are used, its state is not.
        names: as for :func:`optimizer_state`.

    Raises:
        OptimizerStateError: names do not match.
    """
    saved = torch_optimizer.state_dict()
    order = _ordered_names(torch_optimizer, saved, names)
    places = {name: i for i, name in enumerate(dotted_names(params))}
    _check_names(order, places)
    if isinstance(state, LBFGSState):
        return {"state": {0: _lbfgs_to_torch(state, order, params)}, "param_groups": saved["param_groups"]}
    tree: Any = jax.tree.structure(params)
    columns = {key: tree.flatten_up_to(column) for key, column in state.buffers.items()}
    step = int(state.step)
    entries: dict[int, dict[str, Any]] = {}
    for index, name in enumerate(order if step else []):
        kept = {key: column[places[name]] for key, column in columns.items()}
        entries[index] = {key: to_tensor(value) for key, value in kept.items() if value is not None}
        if isinstance(torch_optimizer, torch.optim.SparseAdam):
            entries[index]["step"] = step
        elif not isinstance(torch_optimizer, torch.optim.SGD | torch.optim.Muon):
            # Each its own: torch counts in place.
            entries[index]["step"] = torch.tensor(float(step))
    return {"state": entries, "param_groups": saved["param_groups"]}


def _ordered_names(source: Any, saved: Mapping[str, Any], names: Names) -> list[str]:
    """The dotted name of each of torch's parameters, by its index in the state."""
    groups = saved["param_groups"]
    count = sum(len(group["params"]) for group in groups)
    if isinstance(names, torch.nn.Module):
        if not isinstance(source, torch.optim.Optimizer):
            raise OptimizerStateError("optimizer_state: with a state_dict names must be a list, not a module")
        known = {id(param): name for name, param in names.named_parameters()}
        found = [known.get(id(param)) for group in source.param_groups for param in group["params"]]
        if None in found:
            raise OptimizerStateError(f"optimizer_state: parameter {found.index(None)} is not one of the module's")
        return [name for name in found if name is not None]
    if names is None:
        if not all("param_names" in group for group in groups):
            raise OptimizerStateError(
                "optimizer_state: names are needed, for the torch optimizer was not made from named_parameters()"
            )
        names = [name for group in groups for name in group["param_names"]]
    if len(names) != count:
        raise OptimizerStateError(f"optimizer_state: names must be {count}, one for each parameter, got {len(names)}")
    return list(names)


def _check_names(order: Sequence[str], places: Mapping[str, int]) -> None:
    if set(order) != set(places):
        missing, unexpected = sorted(set(places) - set(order)), sorted(set(order) - set(places))
        raise OptimizerStateError(f"optimizer_state: torch lacks {missing} and has {unexpected} besides")


def _lbfgs_positions(order: Sequence[str], params: PyTree) -> np.ndarray:
    """Where each entry of the vector over JAX's parameters stands in torch's, whose order is another."""
    names = dotted_names(params)
    leaves = jax.tree.leaves(params)
    sizes = {
        name: np.size(leaf) * (2 if np.iscomplexobj(leaf) else 1) for name, leaf in zip(names, leaves, strict=True)
    }
    starts = dict(zip(order, np.cumsum([0, *(sizes[name] for name in order)]), strict=False))
    parts = [np.arange(sizes[name]) + starts[name] for name in names]
    return np.concatenate(parts) if parts else np.zeros(0, int)


def _lbfgs_from_torch(saved: Mapping[str, Any], fresh: LBFGSState, order: list[str], params: PyTree) -> LBFGSState:
    _check_names(order, {name: i for i, name in enumerate(dotted_names(params))})
    entries: Mapping[str, Any] = next(iter(saved["state"].values()), {})
    counts: dict[str, Any] = {key: jnp.asarray(entries.get(key, 0), jnp.int32) for key in ("n_iter", "func_evals")}
    if not entries.get("n_iter"):
        return fresh._replace(**counts)
    positions, dtype = _lbfgs_positions(order, params), fresh.d.dtype
    history, held = len(fresh.ro), len(entries["ro"])
    if held > history:
        raise OptimizerStateError(f"optimizer_state: history_size must be at least {held}, got {history}")

    def vector(value: torch.Tensor) -> np.ndarray:
        return to_numpy(value)[positions]

    def rows(values: list[torch.Tensor]) -> Any:
        filled = np.zeros((history, len(positions)))
        for i, value in enumerate(values):
            filled[history - held + i] = vector(value)
        return jnp.asarray(filled, dtype)

    ro = np.zeros(history)
    ro[history - held :] = [float(value) for value in entries["ro"]]
    return fresh._replace(
        # torch counts iterations, not steps; what a schedule reads begins anew.
        **counts,
        d=jnp.asarray(vector(entries["d"]), dtype),
        t=jnp.asarray(float(entries["t"]), dtype),
        old_dirs=rows(entries["old_dirs"]),
        old_stps=rows(entries["old_stps"]),
        ro=jnp.asarray(ro, dtype),
        H_diag=jnp.asarray(float(entries["H_diag"]), dtype),
        prev_flat_grad=jnp.asarray(vector(entries["prev_flat_grad"]), dtype),
        prev_loss=jnp.asarray(float(entries["prev_loss"]), dtype),
    )


def _lbfgs_to_torch(state: LBFGSState, order: list[str], params: PyTree) -> dict[str, Any]:
    counts = {"func_evals": int(state.func_evals), "n_iter": int(state.n_iter)}
    if not counts["n_iter"]:
        return counts
    positions = _lbfgs_positions(order, params)
    held = np.flatnonzero(np.asarray(state.ro))

    def vector(value: Any) -> torch.Tensor:
        back = np.empty_like(np.asarray(value))
        back[positions] = np.asarray(value)
        return to_tensor(back)

    return counts | {
        "d": vector(state.d),
        "t": to_tensor(state.t),
        "old_dirs": [vector(state.old_dirs[i]) for i in held],
        "old_stps": [vector(state.old_stps[i]) for i in held],
        "ro": [to_tensor(state.ro[i]) for i in held],
        "H_diag": to_tensor(state.H_diag),
        "prev_flat_grad": vector(state.prev_flat_grad),
        "prev_loss": float(state.prev_loss),
        "al": [None] * len(state.ro),
    }
