"""``python -m parity``: the tutorial, row by row, with torch's weights carried over through files."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import jaxnn.functional as F
from jaxnn import models, nn, optim
from parity import tutorial, weights
from parity.arrays import to_jax
from parity.checking import Report, check
from parity.comparison import Comparison


@dataclass(frozen=True)
class Row:
    """One row of the demo: what was compared, on which shapes, and the reports."""

    name: str
    shapes: str
    report: Report


def rows() -> Iterator[tuple[str, Callable[[], Row]]]:
    """The tutorial's eight rows: a title and what to run for it."""
    yield "F.linear", linear
    yield "F.conv2d", conv2d
    yield "F.dropout", dropout
    yield "SimpleNeuralNetwork", simple_neural_network
    yield "custom layers", custom_layers
    yield "CustomMLP", custom_mlp
    yield "losses", losses
    yield "SimpleNN and SGD", simple_nn


def linear() -> Row:
    """A matrix product one can check by hand."""
    x = torch.tensor([[1.0, 2.0, 3.0]])
    weight = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    return _function("F.linear", torch.nn.functional.linear, F.linear, x, weight, torch.tensor([0.1, 0.2]))


def conv2d() -> Row:
    """A 3 x 3 kernel over a 5 x 5 image."""
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    kernel = torch.tensor([[[[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]]])
    torch_side = partial(torch.nn.functional.conv2d, stride=1, padding=1)
    return _function("F.conv2d", torch_side, partial(F.conv2d, stride=1, padding=1), x, kernel, torch.tensor([0.5]))


def dropout() -> Row:
    """Torch's own mask, carried over; then the statistics of ours."""
    x = torch.arange(1.0, 10.0).reshape(3, 3)
    key = jax.random.key(0)
    reports = [
        check(
            lambda x, t=training: torch.nn.functional.dropout(x, 0.5, t),
            lambda x, t=training: F.dropout(x, 0.5, t, key=key),
            x,
        )
        for training in (True, False)
    ]
    return Row("F.dropout", _shapes(x), merged([*reports, Report(dropout_statistics(0.5, 100_000, key))]))


def dropout_statistics(p: float, n: int, key: jax.Array) -> list[Comparison]:
    """Kept fraction, and correlation of neighbours, of ``n`` draws under ``key``: each within 4.5 standard errors."""
    kept = np.asarray(F.dropout(jnp.ones(n), p, key=key)) != 0
    centred = (kept - (1 - p)) / np.sqrt(p * (1 - p))
    return [
        _fact(
            "kept fraction under our own key", abs(centred.mean()) * np.sqrt(n) < 4.5, f"{kept.mean():.4f} of {n} kept"
        ),
        _fact(
            "independence of neighbours",
            abs((centred[1:] * centred[:-1]).mean()) * np.sqrt(n - 1) < 4.5,
            f"correlation {(centred[1:] * centred[:-1]).mean():.4f}",
        ),
    ]


def simple_neural_network() -> Row:
    """Bare parameters and dropout, in training and in evaluation."""
    torch_side = tutorial.SimpleNeuralNetwork(10, 20, 5)
    jax_side = models.SimpleNeuralNetwork(10, 20, 5, rngs=nnx.Rngs(0))
    x = torch.randn(4, 10)
    reports = [carried(torch_side, jax_side, "safetensors"), check(torch_side, jax_side, x, steps=5)]
    jax_side.eval()
    reports.append(check(torch_side.eval(), jax_side, x))
    return Row("SimpleNeuralNetwork", _shapes(x), merged(reports))


def custom_layers() -> Row:
    """``weight @ x + bias`` and ``sin(x @ weight.T) + bias``, broadcasting as torch does."""
    weight = torch.randn(2, 10)
    plain = check(tutorial.custom_layer, F.custom_layer, (torch.randn(10, 1), weight, torch.randn(2)))
    sine = check(tutorial.custom_sine_layer, F.custom_sine_layer, (torch.randn(1, 10), weight, torch.randn(1)))
    return Row("custom layers", "(10,1)(2,10)(2,) (1,10)(2,10)(1,)", merged([plain, sine]))


def custom_mlp() -> Row:
    """Layers of layers."""
    torch_side, jax_side = tutorial.CustomMLP(), models.CustomMLP(rngs=nnx.Rngs(0))
    x = torch.randn(5, 20)
    return Row(
        "CustomMLP", _shapes(x), merged([carried(torch_side, jax_side, "pt"), check(torch_side, jax_side, x, steps=5)])
    )


def losses() -> Row:
    """Four losses with the options torch gives them; they print as torch's do."""
    logits, scores = torch.randn(6, 4), torch.randn(6, 4)
    classes = torch.tensor([0, 3, 1, 1, 2, 0])
    portions, chances = torch.softmax(torch.randn(6, 4), 1), torch.rand(6, 4)
    weight = torch.rand(4) + 0.5
    cases: list[tuple[str, dict[str, Any], tuple[torch.Tensor, torch.Tensor]]] = [
        ("CrossEntropyLoss", {}, (logits, classes)),
        ("CrossEntropyLoss", {"weight": weight, "ignore_index": 1}, (logits, classes)),
        ("CrossEntropyLoss", {"label_smoothing": 0.1, "reduction": "sum"}, (logits, classes)),
        ("CrossEntropyLoss", {"weight": weight, "reduction": "none"}, (logits, portions)),
        ("MSELoss", {}, (scores, chances)),
        ("MSELoss", {"reduction": "sum"}, (scores, chances)),
        ("BCELoss", {"weight": weight}, (torch.rand(6, 4), chances)),
        ("BCEWithLogitsLoss", {}, (logits, chances)),
        ("BCEWithLogitsLoss", {"pos_weight": weight, "reduction": "none"}, (logits, chances)),
    ]
    reports = []
    for name, options, inputs in cases:
        torch_side = getattr(torch.nn, name)(**options)
        jax_side = getattr(nn, name)(**{key: to_jax(value) for key, value in options.items()})
        reports += [check(torch_side, jax_side, inputs), _printed_alike(torch_side, jax_side)]
    return Row("losses", _shapes(logits, classes), merged(reports))


def simple_nn() -> Row:
    """Parameters by name, and SGD with each of its options."""
    torch_side, jax_side = tutorial.SimpleNN(), models.SimpleNN(rngs=nnx.Rngs(0))
    reports = [
        carried(torch_side, jax_side, "pt"),
        _printed_alike(torch_side, jax_side),
        _named_alike(torch_side, jax_side),
    ]
    x = torch.linspace(-1, 1, 16).reshape(16, 1)
    targets = torch.sin(3 * x)
    loss = (
        lambda model, x, y: torch.nn.functional.mse_loss(model(x), y),
        lambda model, x, y: F.mse_loss(model(x), y),
    )
    variants: list[dict[str, Any]] = [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01},
        {"momentum": 0.9, "nesterov": True},
        {"maximize": True, "weight_decay": 0.1},
    ]
    for options in variants:
        make: Callable[..., torch.optim.Optimizer] = partial(torch.optim.SGD, lr=0.05, **options)
        pair = (make, optim.SGD(lr=0.05, **options))
        report = check(torch_side, jax_side, x, steps=20, loss=loss, batches=[(x, targets)], optimizer=pair)
        reports += [report, _printed_alike(make(torch_side.parameters()), pair[1])]
    return Row("SimpleNN, SGD", _shapes(x), merged(reports))


def carried(torch_side: torch.nn.Module, jax_side: nnx.Module, suffix: str) -> Report:
    """Torch's weights saved by torch, read back from the file and loaded: equal to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"weights.{suffix}"
        if suffix == "pt":
            torch.save(torch_side.state_dict(), path)
        else:
            weights.save(torch_side, path)
        nn.load_state_dict(jax_side, weights.load(path))
    theirs, ours = weights.load(torch_side), weights.load(jax_side)
    equal = list(theirs) == list(ours) and all(np.array_equal(theirs[k], ours[k]) for k in theirs)
    return Report([_fact(f"weights through a .{suffix} file", equal, "same names, same bits")])


def merged(reports: list[Report]) -> Report:
    """All rows in one report."""
    first = next((r.first_divergence for r in reports if r.first_divergence), None)
    return Report([row for r in reports for row in r.rows], first, [], [note for r in reports for note in r.notes])


def _function(name: str, torch_side: Callable[..., Any], jax_side: Callable[..., Any], *inputs: torch.Tensor) -> Row:
    return Row(name, _shapes(*inputs), check(torch_side, jax_side, inputs))


def _shapes(*tensors: torch.Tensor) -> str:
    return "".join(str(tuple(x.shape)).replace(" ", "") for x in tensors)


def _fact(name: str, holds: bool, what: str) -> Comparison:
    return Comparison("fact", name, (), 0.0, 0.0, 0.0, 0.0, bool(holds), "" if holds else what)


def _printed_alike(torch_side: object, jax_side: object) -> Report:
    name = f"{type(torch_side).__name__} prints as torch prints it"
    return Report([_fact(name, repr(torch_side) == repr(jax_side), f"{jax_side!r} for torch's {torch_side!r}")])


def _named_alike(torch_side: torch.nn.Module, jax_side: nnx.Module) -> Report:
    theirs = [(name, tuple(p.shape), p.detach().numpy()) for name, p in torch_side.named_parameters()]
    ours = [(name, p.shape, np.asarray(p[...])) for name, p in nn.named_parameters(jax_side)]
    alike = len(theirs) == len(ours) and all(
        a[:2] == b[:2] and np.array_equal(a[2], b[2]) for a, b in zip(theirs, ours, strict=True)
    )
    return Report([_fact("named_parameters: names, shapes, values", alike, f"{[o[:2] for o in ours]}")])
