import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from parity.cli import app


def parity(*arguments):
    return CliRunner().invoke(app, arguments)


def test_the_demo_passes_and_writes_what_it_is_asked_for(tmp_path):
    plot, report = tmp_path / "losses.png", tmp_path / "report.json"
    command = [sys.executable, "-m", "parity", "--plot", str(plot), "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ("F.linear", "F.conv2d", "F.dropout", "SimpleNeuralNetwork", "CustomMLP", "SimpleNN", "accuracy"):
        assert row in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    content = json.loads(report.read_text())
    assert content["passed"] is True
    assert len(content["rows"]) == 8
    assert min(content["digits"]["accuracies"]) > 0.9
    assert len(content["digits"]["losses"]) == 3 * 44


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--device", "tpu"], "tpu"),
        (["--plot", "losses.txt"], ".png"),
        (["--json", "/no/such/folder/report.json"], "no folder"),
        (["conformance", "--filter", "("], "regular expression"),
        (["conformance", "--filter", "^nothing$"], "matches no entry"),
        (["conformance", "--dtype", "int8"], "float32 or float64"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_wrong_option_is_named_and_exits_2(arguments, complaint):
    done = parity(*arguments)
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_conformance_prints_a_table_and_writes_json(tmp_path):
    report = tmp_path / "report.json"
    done = parity("conformance", "--filter", "^linear$", "--stride", "6", "--json", str(report))
    assert done.exit_code == 0, done.output
    assert "2 entries, 2 complete" in done.stdout
    assert [r["samples_passed"] for r in json.loads(report.read_text())["results"]] == [3, 3]
