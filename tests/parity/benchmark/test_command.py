import json

import jax.numpy as jnp
import pytest
from typer.testing import CliRunner

from parity.benchmark import contest, models, operators
from parity.benchmark.suites import SUITES
from parity.cli import app

MODELS = """
import torch
from flax import nnx
from jaxnn import nn

def in_torch():
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

def recurrent_in_torch():
    return torch.nn.LSTM(4, 2)

class RecurrentInJax(nn.LSTM):
    def __init__(self, *, rngs: nnx.Rngs):
        super().__init__(4, 2, rngs=rngs)

class InJax(nn.Sequential):
    def __init__(self, *, rngs: nnx.Rngs):
        super().__init__(nn.Linear(4, 8, rngs=rngs), nn.ReLU(), nn.Linear(8, 2, rngs=rngs))
"""


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", "--seconds", "0.01", *arguments], env={"COLUMNS": "140"})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--suite", "nothing"], "op, conv, step, model, optim"),
        (["--filter", "^nothing$"], "matches no row"),
        (["--filter", "("], "regular expression"),
        (["--modes", "sideways"], "forward"),
        (["--suite", "step", "--modes", "forward"], "step"),
        (["--batch", "0"], "positive"),
        (["--suite", "conv", "--batch", "2"], "have their own"),
        (["--length", "64"], "reads no texts"),
        (["--port"], "no models to port"),
        (["--suite", "model", "--length", "long"], "positive"),
        (["--device", "tpu"], "tpu"),
        (["--plot", "times.txt"], ".png"),
        (["--json", "/no/such/folder/times.json"], "no folder"),
        (["--against", "/no/such/file.json"], "cannot be read"),
        (["math:sqrt"], "3,224,224"),
        (["math:nothing", "--shape", "2"], "nothing"),
        (["a:b", "c:d", "e:f", "--shape", "2"], "one model"),
        (["math:sqrt", "--shape", "2", "--dtype", "float128"], "float32 or int32"),
    ],
)
def test_a_wrong_option_is_named_and_exits_2(arguments, complaint):
    done = bench(*arguments)
    assert done.exit_code == 2
    assert complaint in done.stderr


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    done = bench("--suite", "step", "--torch-compile")
    assert done.exit_code == 2
    assert "C++ compiler" in done.stderr


def test_without_a_compiler_its_column_says_why(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    done = bench("--suite", "step")
    assert done.exit_code == 0, done.output
    assert "no C++ compiler" in done.stdout
    for contender in ("torch", "jaxnn", "plain JAX", "nnx.jit", "Threads", "adds two numbers"):
        assert contender in done.stdout


def test_a_run_is_written_and_compared_with_an_earlier_one(tmp_path):
    report, plot = tmp_path / "times.json", tmp_path / "times.svg"
    done = bench("--filter", "pixel_shuffle", "--json", str(report), "--plot", str(plot))
    assert done.exit_code == 0, done.output
    assert plot.exists()
    content = json.loads(report.read_text())
    assert {row["name"] for row in content["results"]} == {"pixel_shuffle, batch 1", "pixel_shuffle, batch 4"}
    assert {"product", "copy"} <= set(content["rates"])

    for row in content["results"]:
        row["interval"] = [1e-9, 1e-8]
    report.write_text(json.dumps(content))
    slower = bench("--filter", "pixel_shuffle", "--against", str(report))
    assert slower.exit_code == 1, slower.output
    assert "slower" in slower.stdout

    for row in content["results"]:
        row["interval"] = [1e8, 1e9]
    report.write_text(json.dumps(content))
    assert bench("--filter", "pixel_shuffle", "--against", str(report)).exit_code == 0
    unshared = bench("--filter", "^activation relu", "--modes", "forward", "--against", str(report))
    assert unshared.exit_code == 2
    assert "shares no row" in unshared.stderr


def test_a_wrong_answer_gets_no_time(monkeypatch):
    monkeypatch.setattr("jaxnn.functional.relu", lambda x: jnp.maximum(x, 0.1))
    done = bench("--filter", "^activation relu", "--modes", "forward", "--batch", "1")
    assert done.exit_code == 1
    assert isinstance(done.exception, contest.WrongAnswerError) or "not timed" in done.output


@pytest.mark.parametrize("names", [["in_torch"], ["in_torch", "InJax"], ["recurrent_in_torch", "RecurrentInJax"]])
def test_a_model_of_the_users_is_timed(tmp_path, names):
    path = tmp_path / "mine.py"
    path.write_text(MODELS)
    done = bench(*(f"{path}:{name}" for name in names), "--shape", "3,4", "--no-torch-compile")
    assert done.exit_code == 0, done.output
    assert "forward" in done.stdout
    assert "step" in done.stdout


def test_a_port_is_timed_beside_the_model_written_by_hand(tmp_path):
    path, report = tmp_path / "mine.py", tmp_path / "times.json"
    path.write_text(MODELS)
    subjects = [f"{path}:in_torch", f"{path}:InJax"]
    done = bench(*subjects, "--shape", "3,4", "--no-torch-compile", "--port", "--json", str(report))
    assert done.exit_code == 0, done.output
    assert all("port" in row["others"] for row in json.loads(report.read_text())["results"])


@pytest.mark.parametrize("suite", ["conv", "model", "optim"])
def test_every_suite_has_rows_told_apart(suite):
    names = [(case.family, case.name) for case in SUITES[suite].cases()]
    assert len(set(names)) == len(names) > 0


def test_the_smallest_convolution_agrees_with_torch_and_xla():
    done = bench("--suite", "conv", "--filter", "3d 3x3x3", "--modes", "forward")
    assert done.exit_code == 0, done.output
    assert "XLA" in done.stdout


def test_a_length_is_that_of_the_networks_that_read_texts():
    assert {(case.name, case.shape, case.labels) for case in models.cases(2, 32)} == {
        ("GPT2", (32,), (32,)),
        ("Tagger", (32,), (32,)),
    }


def test_functions_come_in_three_sizes():
    cases = [case for case in operators.cases() if case.function == "ctc_loss"]
    assert [[x.shape for x in case.inputs] for case in cases] == [
        [(100, n, 40), (n, 20), (n,), (n,)] for n in (1, 4, 16)
    ]
    (larger,) = (case for case in operators.cases(64) if case.function == "linear")
    assert [x.shape for x in larger.inputs] == [(64, 768), (768, 768), (768,)]
