"""Writes into what is read again: through several views, and past autograd."""

import jax.numpy as jnp
import numpy as np
import torch

from parity.porting import port


def floats(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class Hiding(torch.nn.Module):
    """Writes that autograd does not see, into an activation, into its view, into a parameter and into a buffer."""

    def __init__(self):
        super().__init__()
        self.layer, self.other = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.scale = torch.nn.Parameter(floats(4))
        self.register_buffer("mean", floats(4))

    def forward(self, x):
        y = self.layer(x) * 1
        with torch.no_grad():
            y.clamp_(-0.5, 0.5)
            y[:, 1:].mul_(0.5).add_(0.1)
            before = y * 2
            self.scale.mul_(0.9).add_(x.mean())
            self.other.weight.data = self.other.weight.data * 0.5
            self.mean[1:].mul_(0.5).add_(y[:, 1:].mean(0))
            with torch.enable_grad():
                z = y * 3
        hidden = z * y + self.mean
        detached = self.other(x) * self.scale
        detached.detach()[:, 0].clamp_(-0.1, 0.1)
        detached.data.add_(x.round().data)
        return {"hidden": hidden, "before": before, "detached": detached * detached}


def test_a_write_past_autograd_leaves_the_gradient_of_what_was_there_before():
    torch.manual_seed(0)
    port(Hiding(), floats(3, 4)).report.raise_for_divergence()


class Views(torch.nn.Module):
    """Writes twice through one view, through views of views, and into what a written view shows."""

    def forward(self, x):
        y = x * 1
        y[:, 1:].mul_(0.5).add_(1)
        view = y[:, 1:][:, :2]
        view.mul_(2)
        y.add_(1)
        between = view * 3
        view.sub_(1)
        y.view(-1, 2, 2)[:, 0].mul_(0.5).clamp_(min=0)
        turned = y.t()
        turned[0] += 1
        flat = y.view(-1)
        flat[:2].mul_(2)
        flat[3:5].mul_(3)
        return y, between, view * 1, turned * 2


class Parts(torch.nn.Module):
    def forward(self, x):
        y = x.clone()
        first, second = y.chunk(2, 1)
        column = first[:, 0]
        first.mul_(2)
        column.add_(5)
        second.copy_(first)
        y.mul_(3)
        return y, first * 1, second * 1, column * 1


def test_what_is_written_through_one_view_is_read_through_the_others():
    port(Views(), floats(3, 4)).report.raise_for_divergence()


def test_parts_of_a_split_that_are_written_into_are_parts_of_the_whole():
    x = floats(3, 4)
    ours = port(Parts(), x).module(jnp.asarray(x.numpy()))
    for mine, theirs in zip(ours, Parts()(x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
