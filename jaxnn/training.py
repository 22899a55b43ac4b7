"""A training step as one compiled program over plain arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, PyTree

from jaxnn.nn.state import split_arrays


class TrainState(NamedTuple):
    """All that training changes, as dicts of arrays by dotted path: JAX flattens these without running Python.

    Attributes:
        params: the parameters.
        others: running statistics, buffers and the counts of random streams.
        optimizer: the optimizer's state.
    """

    params: dict[str, Array]
    others: dict[str, Array]
    optimizer: PyTree

    def copy_to(self, model: nnx.Module) -> None:
        """Write parameters and statistics back into ``model``; training can go on from this state."""
        _, params, others = split_arrays(model)
        for part, arrays in ((params, self.params), (others, self.others)):
            nnx.update(model, part.state({name: jnp.copy(arrays[name]) for name in part.arrays}))


def train_step(
    model: nnx.Module,
    transform: optax.GradientTransformation,
    loss: Callable[..., Any],
    *,
    has_aux: bool = False,
) -> tuple[Callable[..., tuple[TrainState, Any]], TrainState]:
    """A compiled step of gradient descent, and the state it starts from.

    The module's structure is looked at once, here; a step then moves arrays only, and its state is donated: each step
    writes over the one before, so go on with the state it returns.

    Args:
        model: read, never changed; :meth:`TrainState.copy_to` writes the result back.
        transform: an optimizer, such as ``jaxnn.optim.SGD(lr=0.1)`` or any of optax's.
        loss: ``loss(model, *batch)``, a scalar; with ``has_aux`` a pair of that and anything.
        has_aux: whether ``loss`` returns a pair.

    Returns:
        ``step`` with ``state, loss = step(state, *batch)``, and the first ``state``.

    Example:
        >>> import jaxnn, jax.numpy as jnp
        >>> from flax import nnx
        >>> from jaxnn import functional as F
        >>> model = jaxnn.nn.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> step, state = jaxnn.train_step(model, jaxnn.optim.SGD(lr=0.1), lambda m, x, y: F.mse_loss(m(x), y))
        >>> for _ in range(100):
        ...     state, loss = step(state, jnp.ones((4, 2)), jnp.ones((4, 1)))
        >>> bool(loss < 1e-6)
        True
    """
    graphdef, params, others = split_arrays(model)

    def objective(param_arrays: dict[str, Array], other_arrays: dict[str, Array], batch: tuple) -> tuple[Array, Any]:
        rebuilt = nnx.merge(graphdef, params.state(param_arrays), others.state(other_arrays))
        result = loss(rebuilt, *batch)
        value = result[0] if has_aux else result
        return value, (split_arrays(rebuilt)[2].arrays, result)

    def step(state: TrainState, *batch: Any) -> tuple[TrainState, Any]:
        differentiate = jax.value_and_grad(objective, has_aux=True)
        (_, (others_after, result)), gradients = differentiate(state.params, state.others, batch)
        gradients = jax.tree.map(jnp.conj, gradients)  # JAX's of a complex parameter leads uphill in its imaginary part
        updates, optimizer = transform.update(gradients, state.optimizer, state.params)
        return TrainState(optax.apply_updates(state.params, updates), others_after, optimizer), result

    # Copies, for the first step overwrites what it is given: the model must live on, and no array stand in two places,
    # as where an optimizer keeps the parameters it started from.
    first, rest, optimizer = jax.tree.map(jnp.copy, (params.arrays, others.arrays, transform.init(params.arrays)))
    return jax.jit(step, donate_argnums=0), TrainState(first, rest, optimizer)
