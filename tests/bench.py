"""`make bench BOOKINGS=100000 RUNS=3`: seconds, rows, tuples and WAL of each step, beside the floor.

Each run makes new databases on the embedded server and measures both sides on them: the bridge (first run, full rerun
that compares every row, unchanged rerun) and the floor (tests/floor: plain COPY and one hand-written insert-select per
table, first run and compare-only rerun). The table shows medians over the runs and the ratio of both sides. Timings are
never asserted: machines differ; read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge import embedded, postgres, runlog, sources, steps
from bridge.batches import BACKFILL, BATCHES
from bridge.settings import Databases, settings
from tests import floor

AS_OF = date(2026, 2, 19)
_NAMES = {"ops": "bench_ops", "balisnap": "bench_balisnap", "bstadmin": "bench_bstadmin"}
_FLOOR = "bench_floor"
_PASSES = ("first run", "full rerun", "unchanged rerun")
# What has a floor: the step of ours that does the same work.
_SAME_WORK = {"land sources": "land", "dbt batch_c": "C", "dbt batch_d": "D", "dbt batch_e": "E"}

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bookings", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write each measurement here")
    parser.add_argument("--keep", action="store_true", help="leave the databases, to look into them")
    chosen = parser.parse_args()
    server = embedded.ensure(settings().phase2_home).ops
    urls = {role: postgres.with_database(server, name) for role, name in _NAMES.items()}
    dbs = Databases(channel=None, **urls)
    _drop(server, *_NAMES.values(), _FLOOR)
    for name in _NAMES.values():
        _create(server, name)
    _tell(f"filling two sources with {chosen.bookings:,} bookings")
    sources.create(dbs.balisnap, dbs.bstadmin, bookings=chosen.bookings, seed=7, as_of=AS_OF, progress=_tell)
    rows: list[Row] = []
    for run in range(chosen.runs):
        _drop(server, _NAMES["ops"], _FLOOR)
        _create(server, _NAMES["ops"])
        rows += [{"run": run, **row} for row in _measure(server, dbs)]
    _show(rows, chosen.bookings, chosen.runs)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2, default=str))
    if not chosen.keep:
        _drop(server, *_NAMES.values(), _FLOOR)


def _measure(server: str, dbs: Databases) -> list[Row]:
    """One run of both sides; batch by batch in turn, so that what else the machine does meets both."""
    steps.bootstrap(dbs.ops)
    bare = Databases(postgres.with_database(server, _FLOOR), dbs.balisnap, dbs.bstadmin, channel=None)
    rows: list[Row] = []
    for name in _PASSES:
        compare = name != _PASSES[0]
        full = name == _PASSES[1]
        run = steps.Run(run_id=runlog.uuid7(), databases=dbs, as_of=AS_OF, progress=_tell, full=full)
        for code in BACKFILL:
            rows += _batch(name, run, code)
            if code == "B" and not compare:
                _create(server, _FLOOR, template=_NAMES["ops"])
            if code == "C":
                rows.append(_timed(name, "floor", "", "land", bare.ops, lambda: floor.land(bare)))
            if code in "CDE":
                load = partial(floor.load, bare.ops, code, compare=compare)
                rows.append(_timed(name, "floor", code, code, bare.ops, load))
    return rows


def _batch(name: str, run: steps.Run, code: str) -> list[Row]:
    batch, ops = BATCHES[code], run.databases.ops
    rows = []
    steps.begin(run, batch)
    for step in batch.plan:
        nodes: list[Row] = []

        def work(step: Any = step, nodes: list[Row] = nodes) -> int:
            entry = steps.execute(run, batch, step)
            nodes += entry.detail.get("nodes", [])
            return entry.rows or 0

        rows.append(_timed(name, "bridge", code, step.name, ops, work) | {"nodes": nodes})

    def verdict() -> None:
        steps.raise_unless_passed(steps.conclude(run, batch))

    rows.append(_timed(name, "bridge", code, "gates and report", ops, verdict))
    return rows


def _timed(name: str, side: str, batch: str, step: str, ops: str, work: Callable[[], int | None]) -> Row:
    before, began = _counters(ops), time.perf_counter()
    rows = work()
    seconds = time.perf_counter() - began
    after = _counters(ops)
    return {
        "pass": name,
        "side": side,
        "batch": batch,
        "step": step,
        "seconds": seconds,
        "rows": rows or 0,
        "wal_bytes": after[0] - before[0],
        "tuples": after[1] - before[1],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _counters(ops: str) -> tuple[int, int]:
    """WAL position, and the tuples that were ever written to the canonical tables."""
    with postgres.connect(ops, autocommit=True) as conn:
        row = conn.execute(
            "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, ("
            "    select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint"
            "    from pg_stat_user_tables where schemaname = 'public')"
        ).fetchone()
    assert row is not None
    return row


def _show(rows: list[Row], bookings: int, runs: int) -> None:
    console = Console(width=130)
    grouped: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["pass"], row["side"], row["batch"], row["step"]].append(row)

    def median(key: tuple[str, str, str, str], value: str) -> float:
        return statistics.median(float(r[value]) for r in grouped[key])

    for name in _PASSES:
        table = Table(
            "batch", "step", "seconds", "rows", "rows/s", "tuples", "WAL MB", "floor s", "floor rows", "ratio",
            title=f"{name}, {bookings:,} bookings, median of {runs}",
        )  # fmt: skip
        for key in [k for k in grouped if k[0] == name and k[1] == "bridge"]:
            seconds, count = median(key, "seconds"), median(key, "rows")
            if seconds < 0.05:
                continue
            same = _SAME_WORK.get(key[3])
            beside = (name, "floor", same if same and len(same) == 1 else "", same or "")
            compared = beside in grouped and not (same == "land" and seconds < 0.2)  # a landing that was reused
            table.add_row(
                key[2], key[3], f"{seconds:.1f}", f"{count:,.0f}", f"{count / seconds:,.0f}" if count else "",
                f"{median(key, 'tuples'):,.0f}", f"{median(key, 'wal_bytes') / 1e6:,.0f}",
                f"{median(beside, 'seconds'):.1f}" if compared else "",
                f"{median(beside, 'rows'):,.0f}" if compared else "",
                f"{seconds / median(beside, 'seconds'):.2f}" if compared else "",
            )  # fmt: skip
        console.print(table)
        for side in ("bridge", "floor"):
            total = sum(median(k, "seconds") for k in grouped if k[0] == name and k[1] == side)
            console.print(f"{name}, {side}: {total:.1f} s in all")
    console.print(f"peak memory of our process: {max(r['peak_mb'] for r in rows):,.0f} MB")
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _create(server: str, name: str, template: str = "template1") -> None:
    with postgres.connect(server, autocommit=True) as conn:
        conn.execute(postgres.statement("create database {} template {}", name, template))


def _drop(server: str, *names: str) -> None:
    with postgres.connect(server, autocommit=True) as conn:
        for name in names:
            conn.execute(postgres.statement("drop database if exists {} with (force)", name))


if __name__ == "__main__":
    main()
