"""`make bench BOOKINGS=100000 RUNS=3`: seconds, tuples and WAL of each step, beside the floor.

Each run makes new databases on the embedded server and measures both sides on them: the bridge (first run, two reruns
without a change, a rerun after one row in a hundred was changed, and a full one that compares every row: it must find
nothing to write) and the floor (tests/floor: plain COPY and one hand-written insert-select per table, first run and
compare-only rerun). The table shows medians over the runs. Timings are never asserted: machines differ; read the
ratios.
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
_FIRST, _AGAIN, _UNCHANGED, _CHANGED, _FULL = ("first run", "rerun", "unchanged", "1 % changed", "full rerun")
_PASSES = (_FIRST, _AGAIN, _UNCHANGED, _CHANGED, _FULL)
# One row in a hundred, all over the tables: prices, contacts, payments.
_ONE_IN_A_HUNDRED = {
    "bstadmin": (
        "update public.bookings set total_price = total_price + 1, updated_at = updated_at + interval '1 day'"
        " where booking_id % 100 = 3",
    ),
    "balisnap": (
        "update public.\"Booking\" set main_contact_name = 'Made Sari', updated_at = updated_at + interval '1 day'"
        " where booking_id % 100 = 5",
        "update public.\"Payment\" set payment_method = 'card' where payment_id % 100 = 7",
        'update public."BookingItem" set tax_amount = tax_amount + 1 where booking_item_id % 100 = 9',
    ),
}
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
        compare = name != _FIRST
        full = name == _FULL
        if name == _CHANGED:
            _change(dbs)
        run = steps.Run(run_id=runlog.uuid7(), databases=dbs, as_of=AS_OF, progress=_tell, full=full)
        for code in BACKFILL if name == _FIRST else "CDE":
            rows += _batch(name, run, code)
            if code == "B" and not compare:
                _create(server, _FLOOR, template=_NAMES["ops"])
            if code == "C":
                rows.append(_timed(name, "floor", "", "land", bare.ops, lambda: floor.land(bare)))
            if code in "CDE":
                load = partial(floor.load, bare.ops, code, compare=compare)
                rows.append(_timed(name, "floor", code, code, bare.ops, load))
    return rows


def _change(dbs: Databases) -> None:
    for source, statements in _ONE_IN_A_HUNDRED.items():
        with postgres.connect(getattr(dbs, source), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement.encode())


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
    """One table: a line a step, of each pass its seconds; of the first run and the changed one the floor's beside."""
    console = Console(width=150)
    grouped: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["pass"], row["side"], row["batch"], row["step"]].append(row)

    def median(name: str, side: str, batch: str, step: str, value: str) -> float | None:
        found = grouped.get((name, side, batch, step))
        return statistics.median(float(r[value]) for r in found) if found else None

    def floor_of(name: str, batch: str, step: str) -> float | None:
        same = _SAME_WORK.get(step)
        if not same or (same == "land" and batch != "C"):  # a landing that was taken over
            return None
        return median(name, "floor", "" if same == "land" else same, same, "seconds")

    table = Table(
        "batch", "step", "first s", "floor", "again", "unchanged", "1 % s", "floor", "full s", "MB first", "MB 1 %",
        "tuples first", "1 %", "full", title=f"{bookings:,} bookings, medians of {runs}; MB: WAL",
    )  # fmt: skip
    for _, _, batch, step in [k for k in grouped if k[0] == _FIRST and k[1] == "bridge"]:
        seconds = {name: median(name, "bridge", batch, step, "seconds") for name in _PASSES}
        if max(s or 0 for s in seconds.values()) < 0.05:
            continue
        wal = {name: median(name, "bridge", batch, step, "wal_bytes") for name in _PASSES}
        tuples = {name: median(name, "bridge", batch, step, "tuples") for name in _PASSES}
        table.add_row(
            batch, step, _said(seconds[_FIRST]), _said(floor_of(_FIRST, batch, step)), _said(seconds[_AGAIN]),
            _said(seconds[_UNCHANGED]), _said(seconds[_CHANGED]), _said(floor_of(_CHANGED, batch, step)),
            _said(seconds[_FULL]), _said(wal[_FIRST], 1e6), _said(wal[_CHANGED], 1e6), _said(tuples[_FIRST], 1, 0),
            _said(tuples[_CHANGED], 1, 0), _said(tuples[_FULL], 1, 0),
        )  # fmt: skip
    console.print(table)
    totals = {
        (name, side): sum(median(*k, "seconds") or 0 for k in grouped if k[0] == name and k[1] == side)
        for name in _PASSES
        for side in ("bridge", "floor")
    }
    for name in _PASSES:
        share = totals[name, "bridge"] / totals[_FIRST, "bridge"]
        console.print(
            f"{name}: {totals[name, 'bridge']:.1f} s, {share:.1%} of the first run; floor {totals[name, 'floor']:.1f} s"
        )
    console.print(f"peak memory of our process: {max(r['peak_mb'] for r in rows):,.0f} MB")
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")


def _said(value: float | None, unit: float = 1, digits: int = 1) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


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
