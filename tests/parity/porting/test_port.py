import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import parity
from jaxnn import nn
from parity.porting import Port, port
from parity.porting.proof.verification import ordered_leaves
from tests.parity.porting import architectures as models

GOLDEN = Path(__file__).parent / "golden"


def floats(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def integers(high, *shape):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(1))


CASES = {
    "resnet18": (models.ResNet18, (floats(2, 3, 32, 32),)),
    "vit": (models.ViT, (floats(2, 3, 16, 16),)),
    "gpt": (models.GPT, (integers(40, 2, 10),)),
    "vae": (models.VAE, (floats(3, 64),)),
    "tagger": (models.Tagger, (integers(50, 3, 7),)),
    "seq2seq": (models.Seq2Seq, (integers(20, 3, 5), integers(20, 3, 4))),
    "graph convolution": (models.GCN, (floats(6, 8), integers(6, 2, 10))),
    "fourier operator": (models.FNO, (floats(2, 8, 8, 1),)),
    "assorted": (models.Assorted, ({"x": floats(3, 8)}, torch.tensor([True, False, True]))),
    "cond": (models.CondNet, (floats(3, 4),)),
    "tied": (models.Tied, (integers(11, 2, 5),)),
    "autocast": (models.Autocast, (floats(3, 6),)),
    "shared": (models.Shared, (floats(3, 4),)),
    "keyword": (models.Heads, (floats(3, 6),), {"scale": 0.5}),
}


@pytest.fixture(autouse=True)
def users_promotion():
    """The written source is to run where its users are: under jax's standard promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def built(name, *, train=False):
    torch.manual_seed(0)
    make, arguments, *rest = CASES[name]
    return make().train(train), arguments, rest[0] if rest else {}


def as_jax(tree):
    return torch.utils._pytree.tree_map(lambda x: jnp.asarray(x.numpy()) if isinstance(x, torch.Tensor) else x, tree)


@pytest.mark.parametrize("name", list(CASES))
def test_a_model_is_ported_and_proven(name):
    module, arguments, keywords = built(name)
    written = port(module, arguments, keywords)
    assert not re.search(r"\b(torch|parity)\b", written.source.partition("from flax")[2])
    with torch.no_grad():
        theirs = torch.utils._pytree.tree_leaves(module(*arguments, **keywords))
    leaves = ordered_leaves
    ours = nnx.jit(lambda twin, arguments: list(leaves(twin(*arguments, **as_jax(keywords)))))(
        written.module, as_jax(arguments)
    )
    for x, y in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(np.asarray(y, np.float32), x.float().numpy(), rtol=1e-2, atol=2e-5)


@pytest.mark.parametrize("name", ["resnet18", "vit", "gpt"])
def test_the_source_is_what_an_expert_would_have_written(name):
    module, arguments, _ = built(name)
    source = port(module, arguments, verify=False).source
    file = GOLDEN / f"{name}.py"
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(source)
    assert source == file.read_text(), f"WRITE_GOLDEN=1 pytest {__file__} writes {file.name} anew; read it first"


def test_any_batch_size_goes_through_a_port():
    module, arguments, _ = built("vit")
    written = port(module, arguments, verify=False)
    images = floats(5, 3, 16, 16)
    with torch.no_grad():
        theirs = module(images).numpy()
    np.testing.assert_allclose(written.module(jnp.asarray(images.numpy())), theirs, rtol=1e-4, atol=1e-5)


def test_a_step_of_training_in_the_port_is_torchs():
    torch.manual_seed(0)
    module = models.ResNet18().train()
    images, labels = floats(4, 3, 32, 32), integers(10, 4)
    twin = port(module, (images,), verify=False).module
    loss = torch.nn.functional.cross_entropy(module(images), labels)
    loss.backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()

    @nnx.jit
    def step(twin, optimizer, images, labels):
        def objective(twin):
            return optax.softmax_cross_entropy_with_integer_labels(twin(images), labels).mean()

        loss, gradients = nnx.value_and_grad(objective)(twin)
        optimizer.update(twin, gradients)
        return loss

    optimizer = nnx.Optimizer(twin, optax.sgd(0.1), wrt=nnx.Param)
    ours = step(twin, optimizer, jnp.asarray(images.numpy()), jnp.asarray(labels.numpy()))
    np.testing.assert_allclose(ours, loss.item(), rtol=1e-5)
    state = nn.state_dict(twin)
    assert set(state) == set(module.state_dict())
    for key, value in module.state_dict().items():
        # Statistics over the four values of the last stage magnify rounding.
        np.testing.assert_allclose(state[key], value.numpy(), rtol=1e-3, atol=1e-4, err_msg=key)


def test_what_is_drawn_in_training_is_drawn_in_the_port():
    module, arguments, _ = built("vae", train=True)
    written = port(module, arguments)
    assert "jax.random.normal" in written.source
    x = jnp.asarray(arguments[0].numpy())
    assert np.abs(written.module(x)[0] - written.module(x)[0]).max() > 0


def test_dropout_exported_in_evaluation_comes_back_to_life():
    module, arguments, _ = built("gpt")
    twin = port(module, arguments, verify=False).module
    tokens = jnp.asarray(arguments[0].numpy())
    quiet = twin(tokens)
    twin.train()
    assert np.abs(twin(tokens) - quiet).max() > 1e-3
    assert np.abs(twin(tokens) - twin(tokens)).max() > 1e-3
    twin.eval()
    np.testing.assert_array_equal(twin(tokens), quiet)


def test_attention_drops_while_training_only():
    written = port(models.DroppedAttention().train(), (floats(2, 4, 8),))
    x = jnp.ones((2, 4, 8))
    assert np.abs(written.module(x) - written.module(x)).max() > 0
    written.module.eval()
    np.testing.assert_array_equal(written.module(x), written.module(x))


def test_a_saved_port_runs_where_torch_cannot_be_imported(tmp_path):
    module, arguments, _ = built("tied")
    port(module, arguments).save(tmp_path)
    assert "state_dict" in (tmp_path / "README.md").read_text()
    script = """
import sys
sys.modules["torch"] = None
import numpy as np
from flax import nnx
from safetensors.numpy import load_file
from jaxnn import nn
from model import Tied
model = Tied(rngs=nnx.Rngs(0))
nn.load_state_dict(model, load_file("model.safetensors"))
print(np.asarray(model(np.array([[1, 2]]))).sum())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(tmp_path)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert float(done.stdout) == pytest.approx(module(torch.tensor([[1, 2]])).sum().item(), rel=1e-4)


@pytest.mark.parametrize("name", ["keyword", "cond"])
def test_the_report_holds_gradients_too(name):
    module, arguments, keywords = built(name)
    report = port(module, arguments, keywords).report
    assert report.passed
    assert {"output", "gradient"} <= {row.kind for row in report.rows}
    assert {layer.path for layer in report.layers} <= {name for name, _ in module.named_modules()}
    assert {row.name for row in report.rows if row.kind == "gradient"} >= {n for n, _ in module.named_parameters()}


def test_a_port_that_would_differ_is_refused():
    @parity.register_operator("aten.erfinv")
    def wrong(op):
        return op.call("jax.lax.erf", op.self)

    class Inverse(torch.nn.Module):
        def forward(self, x):
            return torch.erfinv(x)

    try:
        with pytest.raises(parity.DivergenceError, match="output"):
            port(Inverse(), (torch.rand(3, 4) * 0.5,))
        assert isinstance(port(Inverse(), (torch.rand(3, 4) * 0.5,), verify=False), Port)
    finally:
        from parity.porting.operators.registry import TABLE

        del TABLE["aten.erfinv"]


def test_every_unsupported_operator_is_named_with_its_module_and_line():
    class Inner(torch.nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            return torch.special.airy_ai(self.inner(x))

    with pytest.raises(parity.PortError) as caught:
        port(Outer(), (torch.rand(3),))
    said = str(caught.value)
    for part in ("special_bessel_j0", "in inner", "special_airy_ai", "torch.special.airy_ai(self.inner(x))"):
        assert part in said
    assert "register_operator" in said


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda x: x[x > 0], "boolean mask"),
        (lambda x: x if x.sum() > 0 else -x, "refuses the model.*test_port.py, line.*torch.where and torch.cond"),
        (lambda x: x.sum() / x[x > 0].shape[0], r"mask.sum\(\) entries.*x\[x > 0\].shape\[0\]"),
    ],
)
def test_what_depends_on_the_data_is_refused_in_words(forward, said):
    class Model(torch.nn.Module):
        def forward(self, x):
            return forward(x)

    with pytest.raises(parity.PortError, match=f"(?s){said}"):
        port(Model(), (torch.rand(3, 4),))
