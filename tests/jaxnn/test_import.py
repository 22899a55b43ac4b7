import subprocess
import sys

PROGRAM = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "parity", "safetensors", "sklearn", "typer"):
            raise ImportError(name)

sys.meta_path.insert(0, NoTorch())
import jaxnn
import jax.numpy as jnp
from flax import nnx

model = jaxnn.models.SimpleNN(rngs=nnx.Rngs(0))
step, state = jaxnn.train_step(model, jaxnn.optim.SGD(lr=0.1), lambda m, x: jaxnn.functional.mse_loss(m(x), x))
state, loss = step(state, jnp.ones((2, 1)))
assert jnp.isfinite(loss)
assert "torch" not in sys.modules
"""


def test_jaxnn_works_where_torch_cannot_be_imported():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
