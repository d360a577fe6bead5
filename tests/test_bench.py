"""The table of `make bench`: what is summed into a line, which aim counts as missed, what ends it with exit code 1."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import bench


def _row(name: str, batch: str, step: str, seconds: float, **more: Any) -> bench.Row:
    said = {"bookings": 100, "run": 0, "side": "bridge", "rows": 0, "wal_bytes": 0, "tuples": 0}
    return {
        **said,
        "peak_mb": 1.0,
        "server_mb": 2.0,
        "pass": name,
        "batch": batch,
        "step": step,
        "seconds": seconds,
        **more,
    }


def _rows(bookings: int, times: float = 1, **more: Any) -> list[bench.Row]:
    rows = [
        _row("first run", "C", "land sources", 3 * times),
        _row("first run", "D", "dbt batch_d", 10 * times),
        _row("first run", "D", "dbt gates_d", 7 * times),
        _row("first run", "L", "land", 2 * times, side="floor"),
        _row("first run", "D", "D", 8 * times, side="floor"),
        _row("unchanged", "D", "dbt batch_d", 0.5),
        _row("1 % changed", "D", "dbt batch_d", 2),
        _row("1 % changed", "", "recon", 11),
        _row("1 % changed", "", "parity", 60),
        _row("full rerun", "D", "dbt batch_d", 9),
    ]
    return [{**row, "bookings": bookings, **more} for row in rows]


def _aims(rows: list[bench.Row], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    bench.show(rows)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    return {aim: line.removeprefix(aim).strip() for aim in bench.AIMS for line in lines if line.startswith(aim)}


def test_an_aim_is_reached_or_said_to_be_missed(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten times the bookings, ten times the seconds; A to E is what has a batch: a recon alone and parity have none."""
    said = _aims(_rows(100) + _rows(1000, 10), capsys)
    missed, reached = "MISSED", "reached"
    assert said["first run, landing, C, D, E: times the floor"].split() == ["1.50", "1.30", reached, "1.30", reached]
    whole = said["first run, with gates and reports: times the floor"]
    assert whole.split() == ["1.50", "2.00", missed, "2.00", missed]
    assert said["unchanged, of the first run"].split() == ["5.0%", "2.5%", reached, "0.2%", reached]
    assert said["1 % changed, of the first run"].split() == ["6.0%", "10.0%", missed, "1.0%", reached]
    assert said["slowest recon of one batch, 1 % changed: s"].split() == ["10.0", "11.0", missed, "11.0", missed]
    assert said["growth, first run: exponent"].split() == ["1.10", "1.00", reached]


def test_what_no_run_may_do_is_told() -> None:
    assert bench.faults(_rows(100)) == []
    assert bench.faults(_rows(100, tuples=1)) == ["100 bookings: a full run has written after one that followed"]
    assert "what the views of all rows do not say" in bench.faults(_rows(100, rows=1))[0]


@pytest.mark.long
def test_the_bench_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--bookings", "300", "--history", "0", "--json", str(figures)])
    assert bench.main() == 0
    rows = json.loads(figures.read_text())
    assert {row["pass"] for row in rows} == set(bench._PASSES)
    assert {(row["pass"], row["side"]) for row in rows} >= {(name, "floor") for name in bench._BESIDE_THE_FLOOR}
    assert all(row["server_mb"] > 0 for row in rows)  # of the server's processes, by Linux
    assert "growth" in capsys.readouterr().out
