"""The report of a check: tree, JSON, page."""

import json
import runpy
import shutil
import subprocess
from html.parser import HTMLParser

import jax
import pytest
import torch

import parity
from jaxnn import functional as F
from parity.checking import interception
from parity.checking import progress as progress_module
from parity.checking.progress import progress
from parity.reports.terminal import rendered, report_table
from tests.parity.checking.networks import pair


@pytest.fixture(scope="module")
def report():
    theirs, ours, inputs = pair("encoder")
    ours.blocks[1].fault = "residual"
    ours.head.bias[...] = ours.head.bias[...] * 1.5
    return parity.check(theirs, ours, inputs, gradients=False, steps=3)


def test_it_prints_as_a_tree_with_the_reason_at_the_layer(report):
    lines = repr(report).splitlines()
    block = next(i for i, line in enumerate(lines) if "1 TorchBlock" in line)
    assert "FAIL" in lines[block]
    assert "the sum's first term is missing" in " ".join(lines[block : block + 3])
    assert any("norm1 LayerNorm" in line and "pass" in line for line in lines)
    assert "at fault, in the order of the layers:" in lines


def test_in_eighty_columns_no_name_is_cut_off(report):
    text = rendered(report_table(report), 80)
    assert "…" not in text
    assert sum(line.rstrip().endswith(("pass", "FAIL")) for line in text.splitlines()) == len(report.rows)


def test_its_json_holds_layers_and_faults(report):
    content = json.loads(report.to_json())
    assert [fault["path"] for fault in content["faults"]][:2] == ["blocks.1", "head"]
    assert content["faults"][0]["suspect"] == "missing residual"
    wrong = [layer["path"] for layer in content["layers"] if not layer["passed"]]
    assert wrong == ["blocks.1", "head"]


class Page(HTMLParser):
    """Notes what a page fetches, its headings and its plots."""

    def __init__(self):
        super().__init__()
        self.fetched, self.headings, self.plots, self.in_heading = [], [], 0, False

    def handle_starttag(self, tag, attrs):
        self.in_heading = tag == "h2"
        self.plots += tag == "svg"
        if tag in ("script", "link", "img", "iframe"):
            self.fetched.append((tag, attrs))

    def handle_endtag(self, tag):
        self.in_heading = False

    def handle_data(self, data):
        if self.in_heading:
            self.headings.append(data)


def test_its_page_needs_nothing_beside_it(report, tmp_path):
    report.save_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.fetched == []
    assert page.headings == [
        "At fault",
        "Layers",
        "Error against depth",
        "Loss",
        "Errors of all tensors",
        "Comparisons",
    ]
    assert page.plots == 3
    assert "url(http" not in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to look at the page with")
def test_its_page_shows_in_a_browser(report, tmp_path):
    report.save_html(tmp_path / "report.html")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    page = (tmp_path / "report.html").as_uri()
    shown = subprocess.run(
        [*command, "--dump-dom", page], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "missing (a residual connection left out)" in shown
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", page], capture_output=True, timeout=60, check=True)
    assert picture.stat().st_size > 20_000


def test_assert_matches_raises_with_the_report():
    theirs, ours, inputs = pair("unet")
    parity.assert_matches(theirs, ours, inputs, gradients=False)
    ours.act.negative_slope = 0.3
    with pytest.raises(parity.DivergenceError, match=r"negative_slope is as if 0\.3, torch's is 0\.1"):
        parity.assert_matches(theirs, ours, inputs, gradients=False)


def test_the_progress_bar_waits(monkeypatch):
    from io import StringIO

    from rich.console import Console

    for patience, drawn in ((100.0, False), (-1.0, True)):
        monkeypatch.setattr(progress_module, "PATIENCE", patience)
        text = StringIO()
        with progress(3, Console(file=text, force_terminal=True)) as done:
            done("conv1")
        assert ("conv1" in text.getvalue()) is drawn


def test_the_audit_orders_precisions_by_their_error():
    theirs, ours, inputs = pair("unet")
    audit = parity.precision_audit(theirs, ours, inputs, layers=True)
    errors = {row.precision: row.jax_error for row in audit.rows}
    assert errors["float64"] < 1e-14 < errors["float32"] < 1e-6 < errors["float16"] < errors["bfloat16"] < 0.05
    assert set(audit.rows[0].layers) == {name for name, _ in theirs.named_children()}
    assert "bfloat16" in repr(audit)
    with pytest.raises(ValueError, match="got float8"):
        parity.precision_audit(theirs, ours, inputs, precisions=["float8"])


def test_an_audit_has_the_draws_of_a_branch_and_the_gradients_that_a_model_asks_for():
    class Theirs(torch.nn.Module):
        def forward(self, x):
            x = x.clone().requires_grad_()
            dropped = torch.cond(x.sum() > 0, lambda x: torch.nn.functional.dropout(x, 0.5), lambda x: x, (x,))
            return dropped + torch.autograd.grad((x**2).sum(), x)[0]

    def ours(x):
        return F.dropout(x, 0.5, key=jax.random.key(0)) + 2 * x

    (row,) = parity.precision_audit(Theirs(), ours, torch.ones(3, 4), precisions=["float64"]).rows
    assert (row.torch_error, row.jax_error) == (0, 0)


def test_a_check_inside_a_compiled_function_says_where_it_belongs():
    with pytest.raises(TypeError, match="check: it runs both models"):
        jax.jit(lambda x: parity.check(torch.nn.functional.relu, F.relu, x))(jax.numpy.ones(3))


def test_what_is_imported_while_jax_traces_is_of_use_afterwards():
    loaded = []
    jax.jit(lambda x: loaded.append(runpy.run_path(interception.__file__)) or x)(1.0)
    loaded[0]["refuse_within_jit"]("check")
