import os
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxnn import models, nn
from parity import tutorial, weights


@pytest.fixture
def model():
    torch.manual_seed(0)
    return tutorial.DigitsClassifier()


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
def test_files_round_trip_bit_for_bit(model, tmp_path, suffix):
    weights.save(model, tmp_path / f"w.{suffix}")
    arrays = weights.load(tmp_path / f"w.{suffix}")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy())
    assert set(arrays) == set(model.state_dict())


def test_torch_loads_what_is_saved_from_jax(tmp_path):
    jax_side = models.DigitsClassifier(rngs=nnx.Rngs(0))
    weights.save(jax_side, tmp_path / "w.pt")
    torch_side = tutorial.DigitsClassifier()
    torch_side.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    np.testing.assert_array_equal(torch_side.head.weight.detach().numpy(), jax_side.head.weight[...])


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_dtypes_survive(tmp_path, suffix):
    arrays = {
        "half": np.arange(3, dtype=np.float16),
        "brain": np.asarray(jnp.arange(3, dtype=jnp.bfloat16)),
        "double": np.arange(3.0),
        "count": np.asarray(3, np.int64),
        "mask": np.asarray([True, False]),
    }
    weights.save(arrays, tmp_path / f"w.{suffix}")
    loaded = weights.load(tmp_path / f"w.{suffix}")
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_arrays_do_not_follow_the_torch_module(model):
    arrays = weights.load(model)
    with torch.no_grad():
        model.head.weight.zero_()
    assert arrays["head.weight"].any()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(model, tmp_path, suffix, kept):
    path = tmp_path / f"w.{suffix}"
    weights.save(model, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(weights.WeightsError, match=str(path)):
        weights.load(path)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_of_something_else_is_refused(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(b"not weights at all" * 100)
    with pytest.raises(weights.WeightsError, match=str(path)):
        weights.load(path)


def test_code_in_a_pickle_does_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    plain, zipped = tmp_path / "plain.pt", tmp_path / "zipped.pt"
    plain.write_bytes(pickle.dumps({"weight": Payload()}, protocol=2))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": Payload()}, protocol=2))
        archive.writestr("archive/version", "3")
    for path in (plain, zipped):
        with pytest.raises(weights.WeightsError, match="not a file of weights alone"):
            weights.load(path)
    assert not marker.exists()


def test_a_checkpoint_that_holds_more_than_weights_names_its_entries(model, tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, path)
    with pytest.raises(weights.WeightsError, match="state_dict"):
        weights.load(path)
    assert set(weights.load(path, key="state_dict")) == set(model.state_dict())
    with pytest.raises(weights.WeightsError, match="no entry 'model'"):
        weights.load(path, key="model")


def test_a_list_of_tensors_is_refused(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "w.pt")
    with pytest.raises(weights.WeightsError, match="got list"):
        weights.load(tmp_path / "w.pt")


def test_an_unknown_ending_and_a_missing_file_are_named(model, tmp_path):
    with pytest.raises(weights.WeightsError, match=r"must end in"):
        weights.save(model, tmp_path / "w.npz")
    with pytest.raises(FileNotFoundError, match=r"w\.pt"):
        weights.load(tmp_path / "w.pt")


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "w.pt"
    weights.save({"a": np.ones(2)}, path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        weights.save({"a": np.zeros(2)}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.pt"]


def test_damaged_weights_leave_the_module_as_it_was(model, tmp_path):
    jax_side = models.DigitsClassifier(rngs=nnx.Rngs(0))
    before = weights.load(jax_side)
    arrays = weights.load(model)
    del arrays["conv1.weight"]
    weights.save(arrays, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"missing keys: conv1\.weight"):
        nn.load_state_dict(jax_side, weights.load(tmp_path / "w.safetensors"))
    for name, array in weights.load(jax_side).items():
        np.testing.assert_array_equal(array, before[name])
