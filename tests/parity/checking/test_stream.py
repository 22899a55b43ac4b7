"""Torch runs ahead of whoever looks, and what it writes into afterwards stays as it was."""

import pytest
import torch

import parity
from parity.checking.stream import TorchStream


def streamed(model, x, ahead):
    return TorchStream(model, ((x,), {}), [], {path for path, _ in model.named_modules()}, ahead)


@pytest.mark.parametrize("ahead", [0, 1 << 20])
def test_what_a_later_layer_writes_into_is_kept_as_it_was(ahead):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(inplace=True))
    x = torch.randn(5, 3)
    with streamed(model, x, ahead) as stream:
        linear, relu = (stream.find(stream.root, path) for path in "01")
        stream.finish(relu)
    expected = model[0](x)
    assert torch.equal(linear.output, expected)
    assert torch.equal(relu.arguments[0][0], expected)
    assert torch.equal(relu.output, expected.relu())


def test_torch_waits_once_it_is_far_enough_ahead():
    model = torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(20)])
    with streamed(model, torch.randn(4, 8), 1000) as stream:
        assert not stream.root.done
        assert len(stream.calls) < 12


def test_another_mode_of_an_embedding_bag_is_named():
    theirs = torch.nn.EmbeddingBag(10, 3, mode="mean")
    ours = parity.mirror(theirs)
    ours.mode = "sum"
    report = parity.check(theirs, ours, torch.tensor([[1, 2, 2], [3, 4, 5]]), gradients=False)
    assert [fault.suspect for fault in report.faults] == ["pooling"]
