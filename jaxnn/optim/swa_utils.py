"""Averages of parameters along a run, and the learning rate to take them at."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Int

from jaxnn import nn
from jaxnn.functional._argument import ArgumentError
from jaxnn.optim.lr_scheduler._base import Number, Schedule

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
AverageFn = Callable[[Array, Array, Int[Array, ""]], Array]
MultiAverageFn = Callable[[Sequence[Array], Sequence[Array], Int[Array, ""]], list[Array]]


def get_ema_avg_fn(decay: float = 0.999) -> AverageFn:
    r"""The exponential average :math:`\beta a + (1 - \beta) \theta`.

    Args:
        decay: :math:`\beta`, in [0, 1].

    Raises:
        ValueError: ``decay`` is out of its range.

    Source: ``torch.optim.swa_utils.get_ema_avg_fn``.
    """
    if not 0 <= decay <= 1:
        raise ArgumentError(f"decay must be in [0, 1], got {decay}")

    def average(averaged: Array, current: Array, num_averaged: Int[ArrayLike, ""]) -> Array:
        wide = jnp.result_type(float) if jnp.issubdtype(averaged.dtype, jnp.integer) else averaged.dtype
        return (decay * averaged.astype(wide) + (1 - decay) * current.astype(wide)).astype(averaged.dtype)

    return average


def get_swa_avg_fn() -> AverageFn:
    r"""The equal average :math:`a + (\theta - a) / (n + 1)`.

    Source: ``torch.optim.swa_utils.get_swa_avg_fn``; Izmailov et al. (2018).
    """

    def average(averaged: Array, current: Array, num_averaged: Int[ArrayLike, ""]) -> Array:
        wide = jnp.result_type(float) if jnp.issubdtype(averaged.dtype, jnp.integer) else averaged.dtype
        old, new = averaged.astype(wide), current.astype(wide)
        return (old + (new - old) / (jnp.asarray(num_averaged) + 1).astype(wide)).astype(averaged.dtype)

    return average


def _of_many(average: AverageFn) -> MultiAverageFn:
    def averages(averaged: Sequence[Array], current: Sequence[Array], num_averaged: Int[ArrayLike, ""]) -> list[Array]:
        return [average(old, new, jnp.asarray(num_averaged)) for old, new in zip(averaged, current, strict=True)]

    return averages


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverageFn:
    """:func:`get_ema_avg_fn` of lists; the averages are returned, where torch writes them.

    Args:
        decay: in [0, 1].

    Raises:
        ValueError: ``decay`` is out of its range.

    Source: ``torch.optim.swa_utils.get_ema_multi_avg_fn``.
    """
    return _of_many(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> MultiAverageFn:
    """:func:`get_swa_avg_fn` of lists; the averages are returned, where torch writes them.

    Source: ``torch.optim.swa_utils.get_swa_multi_avg_fn``.
    """
    return _of_many(get_swa_avg_fn())


class AveragedModel(nnx.Module):
    """A copy of a model that holds the average of its parameters.

    Args:
        model: an NNX module; it is copied.
        device: where the copy is; where the model is unless given.
        avg_fn: ``avg_fn(averaged, current, num_averaged)``, the new average of one parameter.
        multi_avg_fn: the same of lists. Without either every update weighs the same.
        use_buffers: average running statistics and other buffers too; else they are copied.

    Raises:
        ValueError: both functions are given.

    Source: ``torch.optim.swa_utils.AveragedModel``.
    """

    def __init__(
        self,
        model: nnx.Module,
        device: jax.Device | None = None,
        avg_fn: AverageFn | None = None,
        multi_avg_fn: MultiAverageFn | None = None,
        use_buffers: bool = False,
    ):
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError("AveragedModel: give avg_fn or multi_avg_fn, not both")
        self.module = nnx.clone(model)
        if device is not None:
            nnx.update(self.module, jax.device_put(nnx.state(self.module), device))
        self.n_averaged = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.multi_avg_fn = multi_avg_fn or _of_many(avg_fn or get_swa_avg_fn())
        self.use_buffers = use_buffers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The averaged model's output."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: nnx.Module) -> None:
        """Take the parameters of ``model`` into the average; the first are taken as they are."""
        kind = (nnx.Param, nnx.BatchStat) if self.use_buffers else nnx.Param
        held, rest = nnx.state(self.module, kind, ...)
        current, newest = nnx.state(model, kind, ...)
        count = self.n_averaged[...]
        old, tree = jax.tree.flatten(held)
        new = jax.tree.leaves(current)
        averages = self.multi_avg_fn(old, new, count)
        first = [jnp.where(count == 0, n, a) for n, a in zip(new, averages, strict=True)]
        nnx.update(self.module, jax.tree.unflatten(tree, first))
        if jax.tree.leaves(rest):
            nnx.update(self.module, newest)
        self.n_averaged[...] = count + 1


def update_bn(loader: Iterable[Any], model: nnx.Module, device: jax.Device | None = None) -> None:
    """Renew the running statistics of batch normalisation: plain averages over ``loader``, in training mode.

    Args:
        loader: batches; of a tuple or list the first entry is the model's input.
        model: changed in place, but for its mode.
        device: where the inputs are put.

    Source: ``torch.optim.swa_utils.update_bn``.
    """
    modules = [module for _, module in nnx.iter_modules(model)]
    layers: list[Any] = [module for module in modules if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    flags = ("use_running_average", "deterministic")
    modes = [{flag: getattr(module, flag) for flag in flags if hasattr(module, flag)} for module in modules]
    model.train()
    for layer in layers:
        layer.momentum = None
        for held, start in ((layer.running_mean, 0), (layer.running_var, 1), (layer.num_batches_tracked, 0)):
            held.set_value(jnp.full_like(held.get_value(), start))
    for batch in loader:
        first = batch[0] if isinstance(batch, tuple | list) else batch
        model(first if device is None else jax.device_put(first, device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for module, mode in zip(modules, modes, strict=True):
        for flag, was in mode.items():
            setattr(module, flag, was)


@dataclass(frozen=True)
class SWALR(Schedule):
    """From one learning rate to another, which then stays.

    Args:
        lr: learning rate to come from.
        swa_lr: learning rate to go to.
        anneal_epochs: steps on the way; with 0 there is none.
        anneal_strategy: along a ``"cos"`` or ``"linear"``.
        last_epoch: the step before the first.

    Raises:
        ValueError: ``anneal_epochs`` is not a number of steps, or ``anneal_strategy`` is unknown.

    Source: ``torch.optim.swa_utils.SWALR``.
    """

    lr: Number
    swa_lr: Number
    anneal_epochs: int = 10
    anneal_strategy: Literal["cos", "linear"] = "cos"
    last_epoch: int = -1

    def __post_init__(self) -> None:
        if self.anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(f"SWALR: anneal_strategy must be 'cos' or 'linear', got {self.anneal_strategy!r}")
        if not isinstance(self.anneal_epochs, int) or self.anneal_epochs < 0:
            raise ArgumentError(f"SWALR: anneal_epochs must be a number of steps, got {self.anneal_epochs}")

    def _value(self, step: Any, x: Any, xp: Any) -> Any:
        gone = xp.minimum(x / self.anneal_epochs, 1.0) if self.anneal_epochs else xp.ones_like(x)
        share = (1 - xp.cos(math.pi * gone)) / 2 if self.anneal_strategy == "cos" else gone
        return self.swa_lr * share + self.lr * (1 - share)
