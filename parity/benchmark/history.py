"""Results as JSON, and one run against an earlier one."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from parity.benchmark.contest import Result
from parity.options import SCHEMA


class Change(NamedTuple):
    """A row in two runs: its ratio to torch then and now, and whether it got slower than chance explains."""

    key: tuple[str, str, str, str]
    before: tuple[float, float]
    now: tuple[float, float]

    @property
    def regressed(self) -> bool:
        """Whether all of the interval now lies above all of it before."""
        return self.now[0] > self.before[1]


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Each result as a dict."""
    return [asdict(result) for result in results]


def load(path: Path, *, tuned: bool) -> list[Result]:
    """The results of a file that ``parity bench --json`` wrote.

    Raises:
        ValueError: it is no such file, of another version, or measured with ``jaxnn.tune_cpu`` where this run is not
            ``tuned`` or the other way round.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA or "results" not in content:
        raise ValueError(f"{path} must be of schema {SCHEMA}, as parity bench --json writes it, got {schema!r}")
    if content.get("tuned") != tuned:
        raise ValueError(f"{path} was measured {'without' if tuned else 'with'} jaxnn.tune_cpu, this run is not")
    try:
        return [Result(**{**row, "interval": tuple(row["interval"])}) for row in content["results"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} holds rows of another form: {error}") from None


def changes(before: Sequence[Result], now: Sequence[Result]) -> list[Change]:
    """The rows that both runs have, the worst first."""
    earlier = {result.key: result for result in before}
    both = [Change(r.key, earlier[r.key].interval, r.interval) for r in now if r.key in earlier]
    return sorted(both, key=lambda change: change.before[1] / change.now[0])
