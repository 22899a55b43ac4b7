"""Values of a port have the names that they have in the torch source."""

import torch

from parity.porting import port

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))


def turned(x):
    left, right = x.chunk(2, -1)
    swapped = torch.cat([right, left], dim=-1)
    return swapped * left.repeat(1, 1, 2) - right.repeat(1, 1, 2)


class Encoder(torch.nn.Module):
    """A model whose ``forward`` leaves its work to other methods and to functions."""

    def __init__(self):
        super().__init__()
        self.class_token = torch.nn.Parameter(torch.zeros(1, 1, 4))
        self.drop = torch.nn.Dropout(0.1)

    def features(self, x):
        x = torch.cat(
            [
                self.class_token.expand(len(x), 1, -1),
                x,
                self.class_token.expand(len(x), 1, -1),
            ],
            dim=1,
        )
        x = self.drop(x)
        angles = turned(x)
        _3angles = 3 * angles.tan()
        return angles * x + angles.sin() * x.cos() - _3angles * _3angles

    def forward(self, x):
        return self.features(x)


def test_values_of_functions_that_forward_calls_have_their_names_there():
    source = port(Encoder().eval(), X, verify=False).source
    assert "left, right = jnp.split(x, 2, axis=-1)" in source
    assert "angles = " in source  # what a function returns has the name that its caller gives it
    assert "x = self.drop(" in source
    assert "    _3angles = " in source


def test_a_parameter_shown_in_another_shape_keeps_its_name_and_the_length_of_an_array_is_a_free_size():
    source = port(Encoder().eval(), X, verify=False).source
    assert "class_token = jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, 4))" in source


class Cosines(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("floor", torch.tensor(1e-3))

    def forward(self, x):
        x = x / x.norm(dim=1, keepdim=True).clamp_min(self.floor).expand_as(x)  # no number
        near = torch.nn.functional.normalize(x.sin(), dim=-1)
        norms = x.norm(dim=1, keepdim=True)  # of another axis, and read twice
        return near @ torch.nn.functional.normalize(x, p=1, eps=1e-6).mT, x / norms.clamp_min(1e-12).expand_as(
            x
        ) + norms


def test_a_function_that_export_takes_apart_is_called_by_its_name():
    source = port(Cosines(), X).source
    assert "F.normalize(jnp.sin(x), dim=-1) @ F.normalize(x, p=1, eps=1e-06).mT" in source
    assert source.count("F.vector_norm") == 2
