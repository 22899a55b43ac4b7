"""The ``model`` suite: whole networks, forward and a training step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import jaxnn.functional as F
from jaxnn import nn, optim, train_step
from parity import weights
from parity.benchmark.contest import (
    COMPILED,
    JAXNN,
    PORT,
    TORCH,
    Program,
    Result,
    blocking,
    check_equal,
    compiled,
    contest,
)
from parity.benchmark.networks import in_jax, in_torch
from parity.benchmark.torch_side import awaited, tensor, torch_device
from parity.checking.leaves import by_name, flattened
from parity.porting import port

MODES = ("forward", "step")
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """A network and what it is fed.

    Attributes:
        family: ``image``, ``text`` or ``pixels``.
        name: of the class, in :mod:`parity.benchmark.networks`.
        shape: of one input, without the batch.
        vocabulary: tokens there are; 0 where the input is an image.
        classes: labels there are.
        batch: inputs at a time.
        length: labels of one input, if it has more than one.
    """

    family: str
    name: str
    shape: tuple[int, ...]
    vocabulary: int
    classes: int
    batch: int
    labels: tuple[int, ...] = ()

    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """A batch and its labels."""
        rng = np.random.default_rng(0)
        labels = rng.integers(0, self.classes, (self.batch, *self.labels))
        if self.vocabulary:
            return rng.integers(0, self.vocabulary, (self.batch, *self.shape)), labels
        return rng.normal(size=(self.batch, *self.shape)).astype(np.float32), labels


def cases(batch: int | None = None, length: int | None = None) -> Iterator[Case]:
    """Seven networks; ``batch`` in place of each one's own, ``length`` in place of a text's, without the others."""
    for family, name, shape, vocabulary, classes, own, labels in (
        ("image", "ResNet18", (3, 224, 224), 0, 1000, 8, ()),
        ("image", "MobileNetV3", (3, 224, 224), 0, 1000, 8, ()),
        ("image", "ConvNeXt", (3, 224, 224), 0, 1000, 8, ()),
        ("image", "ViT", (3, 224, 224), 0, 1000, 8, ()),
        ("text", "GPT2", (128,), 50257, 50257, 2, (128,)),
        ("text", "Tagger", (64,), 10000, 20, 16, (64,)),
        ("pixels", "UNet", (3, 128, 128), 0, 21, 2, (128, 128)),
    ):
        if length and not vocabulary:
            continue
        if length:
            shape, labels = (length,), (length,)
        yield Case(family, name, shape, vocabulary, classes, batch or own, labels)


def run(case: Case, *, modes: Sequence[str] = MODES, seconds: float = 0.3, **others: bool) -> list[Result]:
    """Time ``case`` in evaluation, and a step of SGD with momentum in training."""
    torch.manual_seed(0)
    torch_model = getattr(in_torch, case.name)()
    model = getattr(in_jax, case.name)(rngs=nnx.Rngs(0))
    nn.load_state_dict(model, weights.load(torch_model))
    label = f"{case.name}, batch {case.batch}" + (f", length {case.shape[0]}" if case.vocabulary else "")
    identity = ("model", case.family, label)
    return time_model(identity, torch_model, model, case.inputs(), modes, seconds, **others)


def time_model(
    identity: tuple[str, str, str],
    torch_model: torch.nn.Module,
    model: Callable[..., Any],
    batch: tuple[np.ndarray, ...],
    modes: Sequence[str] = MODES,
    seconds: float = 0.3,
    *,
    torch_compile: bool = False,
    ported: bool = False,
) -> list[Result]:
    """Time a model, forward and a step.

    With labels in ``batch`` the loss is the cross entropy of its output, classes on axis 1; without, the mean square of
    every array of numbers in it. ``ported`` times the port of ``torch_model`` beside ``model``.
    """
    results = []
    twin = port(torch_model.eval(), (torch.from_numpy(batch[0]),)).module if ported else None
    torch_model.to(torch_device())
    if "forward" in modes:
        torch_run, run, program = _forward(torch_model, model, batch[0])
        contenders: dict[str, Callable[[], Any]] = {TORCH: torch_run}
        names, expected, _ = flattened(torch_run())
        found_names, found, _ = flattened(run())
        check_equal(identity[-1], expected, by_name(found_names, found, names))
        if torch_compile:
            contenders[COMPILED] = _forward(_optimized(torch_model), model, batch[0])[0]
        if twin is not None:
            contenders[PORT] = _forward(torch_model, twin, batch[0])[1]
        results.append(contest((*identity, "forward"), contenders | {JAXNN: run}, program, seconds=seconds))
    if "step" in modes:
        torch_step = _torch_step(torch_model, torch_model, batch)
        step, program = _jax_step(model, batch)
        check_equal(f"loss of {identity[-1]}", [torch_step()], [step()])
        contenders = {TORCH: torch_step}
        if torch_compile:
            contenders[COMPILED] = _torch_step(torch_model, _optimized(torch_model), batch)
        if twin is not None:
            contenders[PORT] = _jax_step(twin, batch)[0]
        results.append(contest((*identity, "step"), contenders | {JAXNN: step}, program, seconds=seconds))
    return results


def _optimized(model: torch.nn.Module) -> Any:
    return torch.compile(model)


def _forward(
    torch_model: torch.nn.Module, model: Callable[..., Any], x: np.ndarray
) -> tuple[Callable[[], Any], Callable[[], Any], Program]:
    torch_model.eval()
    model.eval()  # type: ignore[attr-defined]
    graphdef, state = nnx.split(model)
    program = compiled(lambda state, x: nnx.merge(graphdef, state)(x), state, jnp.asarray(x))
    given = tensor(x)

    def torch_run() -> torch.Tensor:
        with torch.no_grad():
            return torch_model(given)

    return awaited(torch_run), blocking(program.call, state, jnp.asarray(x)), program


def _torch_step(owner: torch.nn.Module, model: torch.nn.Module, batch: tuple[np.ndarray, ...]) -> Callable[[], float]:
    owner.train()
    optimizer = torch.optim.SGD(owner.parameters(), lr=LEARNING_RATE, momentum=0.9)
    x, *labels = map(tensor, batch)

    def run() -> float:
        optimizer.zero_grad()
        output = model(x)
        if labels:
            loss = torch.nn.functional.cross_entropy(output, labels[0])
        else:
            numbers = [y for y in flattened(output)[1] if isinstance(y, torch.Tensor) and y.is_floating_point()]
            loss = torch.stack([y.square().mean() for y in numbers]).sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def _jax_step(model: Callable[..., Any], batch: tuple[np.ndarray, ...]) -> tuple[Callable[[], float], Program]:
    model.train()  # type: ignore[attr-defined]

    def loss(model: Callable[..., Any], x: jax.Array, *labels: jax.Array) -> jax.Array:
        if labels:
            return F.cross_entropy(model(x), labels[0])
        numbers = [y for y in flattened(model(x))[1] if jnp.issubdtype(jnp.result_type(y), jnp.floating)]
        return sum((jnp.mean(y**2) for y in numbers), jnp.zeros(()))

    step, state = train_step(model, optim.SGD(lr=LEARNING_RATE, momentum=0.9), loss)  # type: ignore[arg-type]
    arrays = [jnp.asarray(x) for x in batch]
    program = compiled(lambda *args: step(*args), state, *arrays, donate_argnums=0)

    def run() -> float:
        nonlocal state
        state, loss = program.call(state, *arrays)
        return float(jax.block_until_ready(loss))

    return run, program
