from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxnn import nn
from parity import MirrorError, mirror

SHAPES = [(2, 3), (), *[(i + 1,) for i in range(10)]]


@pytest.mark.parametrize("count", [0, 1, 12])
def test_a_list_prints_and_names_its_parameters_as_torch_does(count):
    theirs = torch.nn.ParameterList([torch.ones(shape) for shape in SHAPES[:count]])
    ours = nn.ParameterList([np.ones(shape, np.float32) for shape in SHAPES[:count]])
    for found in (ours, nnx.merge(*nnx.split(ours))):
        assert repr(found) == repr(theirs)
        assert repr(nn.Sequential(found)) == repr(torch.nn.Sequential(theirs))
        assert list(nn.state_dict(found)) == list(theirs.state_dict())
        assert [parameter.shape for parameter in found] == SHAPES[:count]


@pytest.mark.parametrize("kind", [dict, OrderedDict, list])
def test_a_dict_takes_the_order_that_torch_takes(kind):
    items = [("right", 2), ("left", 1), ("9", 3)]
    theirs = torch.nn.ParameterDict(kind((name, torch.ones(size)) for name, size in items))
    ours = nn.ParameterDict(kind((name, jnp.ones(size)) for name, size in items))
    assert ours.keys() == list(theirs.keys()) == list(ours)
    assert list(nn.state_dict(ours)) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_dtypes_print_as_torchs(dtype):
    ours, theirs = jnp.ones(2, dtype), torch.ones(2, dtype=getattr(torch, dtype))
    assert repr(nn.ParameterDict({"a": ours})) == repr(torch.nn.ParameterDict({"a": theirs}))
    assert repr(nn.ParameterList([ours])) == repr(torch.nn.ParameterList([theirs]))


def test_a_parameter_is_kept_itself_and_can_be_replaced_and_taken_out():
    first = nnx.Param(jnp.ones(2))
    held = nn.ParameterList([first, jnp.zeros(3)])
    assert held[0] is first is held[-2] is held[:1][0]
    held[-1] = jnp.ones(4)
    held += [first]
    assert [parameter.shape for parameter in held] == [(2,), (4,), (2,)]
    named = nn.ParameterDict({"a": first, "b": jnp.ones(3)})
    assert named.pop("a") is first
    assert "a" not in named
    assert named.get("a") is None
    assert len(named) == 1


def test_wrong_members_are_refused():
    with pytest.raises(TypeError, match="must be a parameter or an array, got str"):
        nn.ParameterList(["weight"])
    with pytest.raises(TypeError, match="iterable of parameters"):
        nn.ParameterList(jnp.ones(3))
    with pytest.raises(IndexError, match="index 1 is out of range"):
        nn.ParameterList([jnp.ones(3)])[1]
    with pytest.raises(TypeError, match="must be a string, got int"):
        nn.ParameterDict([(1, jnp.ones(3))])
    for key in ("keys", "", "a.b"):
        with pytest.raises(KeyError):
            torch.nn.ParameterDict({key: torch.ones(3)})
        with pytest.raises(KeyError, match="no method's name"):
            nn.ParameterDict({key: jnp.ones(3)})
    with pytest.raises(KeyError):
        del nn.ParameterDict()["a"]


def test_gradients_go_through_jit_to_the_parameters():
    def loss(held):
        return sum((i + 1) * parameter[...].sum() for i, parameter in enumerate(held))

    grads = nnx.jit(nnx.grad(loss))(nn.ParameterList([jnp.ones(2), jnp.ones(3)]))
    assert [leaf.tolist() for leaf in jax.tree.leaves(grads)] == [[1.0, 1.0], [2.0, 2.0, 2.0]]


def test_a_module_that_holds_them_is_mirrored():
    shared = torch.nn.Parameter(torch.randn(2, 3))
    module = torch.nn.ModuleDict(
        {
            "list": torch.nn.ParameterList([shared, torch.randn(3)]),
            "dict": torch.nn.ParameterDict(OrderedDict(z=shared, a=torch.randn(4).to(torch.bfloat16))),
        }
    )
    twin = mirror(module)
    assert repr(twin) == repr(module)
    assert twin["list"][0] is twin["dict"]["z"]
    ours = nn.state_dict(twin)
    assert list(ours) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        assert str(ours[name].dtype) == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(ours[name].astype("float32"), tensor.float().numpy())


def test_what_is_no_parameter_is_not_mirrored():
    with pytest.raises(MirrorError, match=r"head .*holds more than parameters"):
        mirror(torch.nn.ModuleDict({"head": torch.nn.ParameterList([torch.ones(2), "name"])}))
