import json
from dataclasses import replace

import pytest

from parity.benchmark import history, plots
from parity.benchmark.contest import Result

ROW = Result(
    *("op", "activation", "relu, batch 2", "forward"),
    seconds={"torch": 2e-3, "jaxnn": 1e-3},
    ratio=0.5,
    interval=(0.4, 0.6),
    others={},
    compile_seconds=0.1,
    first_call_seconds=1e-3,
    temporary_bytes=8,
    operations=9,
    traffic=9,
)


@pytest.fixture
def written(tmp_path):
    def write(results, tuned=True):
        path = tmp_path / "results.json"
        path.write_text(json.dumps({"schema": history.SCHEMA, "tuned": tuned, "results": history.as_json(results)}))
        return path

    return write


def test_results_come_back_as_they_were_written(written):
    assert history.load(written([ROW]), tuned=True) == [ROW]


@pytest.mark.parametrize(("then", "now", "word"), [(True, False, "with "), (False, True, "without ")])
def test_runs_with_and_without_tuning_are_not_compared(written, then, now, word):
    with pytest.raises(ValueError, match=f"measured {word}jaxnn.tune_cpu"):
        history.load(written([ROW], tuned=then), tuned=now)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": 2, "results": []}', '{"schema": 3, "tuned": true, "results": [{"a": 1}]}']
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"results\.json") as refusal:
        history.load(path, tuned=True)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("interval", "regressed"), [((0.61, 0.7), True), ((0.59, 0.7), False), ((0.1, 0.2), False)])
def test_only_what_lies_wholly_above_the_earlier_interval_is_slower(interval, regressed):
    (change,) = history.changes([ROW], [replace(ROW, interval=interval)])
    assert change.regressed is regressed


def test_the_worst_change_comes_first_and_unshared_rows_are_left_out():
    other, gone = replace(ROW, name="gelu"), replace(ROW, name="silu")
    found = history.changes([ROW, other, gone], [ROW, replace(other, interval=(5.0, 6.0))])
    assert [change.key[2] for change in found] == ["gelu", "relu, batch 2"]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_plot_is_drawn(tmp_path, ending):
    path = tmp_path / f"plot.{ending}"
    plots.plot([ROW, replace(ROW, name="relu, batch 8")], path)
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml", b"%PDF-")


@pytest.mark.parametrize(("of", "rest"), [("batch", ""), ("batch", ", length 64"), ("length", "")])
def test_growth_needs_two_sizes_of_the_same_row(of, rest):
    small = replace(ROW, name=f"net, {of} 2{rest}")
    large = replace(ROW, name=f"net, {of} 8{rest}", seconds={"torch": 8e-3, "jaxnn": 4e-3})
    assert plots._by_size([small], of) == {}
    curves = plots._by_size([small, large, replace(large, name=f"other, {of} 4{rest}")], of)
    assert curves[f"net{rest}", "forward", "torch"] == [(2, 2e-3), (8, 8e-3)]
    assert {name for name, _, _ in curves} == {f"net{rest}"}
