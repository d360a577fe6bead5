"""`make bench BOOKINGS="10000 100000" RUNS=3 HISTORY=20`: seconds, tuples, WAL, memory of each step, beside the floor.

At each size new databases on the embedded server, and both sides measured on them in turn: the bridge (first run, a
rerun that settles, one without a change, one after one row in a hundred was changed, and a full one that compares every
row: it must find nothing to write) and the floor (tests/floor: plain COPY and one hand-written insert-select per table,
first run and compare-only rerun). `parity` is the full check: the gates of D and E by the views of all rows, which must
say what the run has measured. The table shows medians over the runs. Timings are never asserted: machines differ; read
the ratios.

Before that, a long history of hostile rows on twin databases, one following what changed, one computing everything:
their fingerprints must be equal after each of the HISTORY steps. Exit code 1 when they are not, when a full rerun
writes, or when gates were measured wrongly.
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

from bridge import embedded, postgres, recon, runlog, sources, steps
from bridge.batches import BACKFILL, BATCHES
from bridge.settings import Databases, settings
from tests import floor, test_follow
from tests.pipeline import Pipeline

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
# One booking in a hundred of the bridge, for a recon to look at again; no value is another.
_WRITTEN_BY_HAND = (
    "update public.booking_core set currency_code = currency_code where get_byte(uuid_send(booking_key), 15) < 3"
)
# The lines of the table: what of the bridge is in each (batch and step), and what has a floor that does the same work.
_LINES = {
    "landing": ({("C", "land sources")}, "land"),
    "C": ({("C", "dbt batch_c")}, "C"),
    "D": ({("D", "dbt batch_d")}, "D"),
    "E": ({("E", "snapshot statuses"), ("E", "audit sample"), ("E", "dbt batch_e")}, "E"),
    "recon C": ({("C", "dbt gates_c"), ("C", "gates and report")}, None),
    "recon D": ({("D", "dbt gates_d"), ("D", "gates and report")}, None),
    "recon E": ({("E", "dbt gates_e"), ("E", "gates and report")}, None),
    "recon D, alone": ({("", "recon")}, None),
    "parity, all rows": ({("", "parity")}, None),
}

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bookings", type=int, nargs="+", default=[10_000, 20_000])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--history", type=int, default=10, metavar="STEPS", help="of the long history; 0: none")
    parser.add_argument("--json", type=Path, help="also write each measurement here")
    parser.add_argument("--keep", action="store_true", help="leave the databases of the last size, to look into them")
    chosen = parser.parse_args()
    server = embedded.ensure(settings().phase2_home).ops
    wrong = _history(server, chosen.history)
    rows: list[Row] = []
    for bookings in chosen.bookings:
        rows += [{"bookings": bookings, **row} for row in _size(server, bookings, chosen.runs)]
        if chosen.json:
            chosen.json.write_text(json.dumps(rows, indent=2, default=str))
    if not chosen.keep:
        _drop(server, *_NAMES.values(), _FLOOR)
    wrong += _show(rows, chosen.runs)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


def _history(server: str, count: int) -> list[str]:
    """A long history, followed and computed: what is not the same after a step."""
    if not count:
        return []
    os.environ["TEST_PG_URL"] = server
    wrong: list[str] = []
    began = time.perf_counter()
    for step in test_follow.history(test_follow.HISTORIES, count, test_follow.SEED):
        differences = [*step.difference, *map(str, step.wrongly_measured)]
        wrong += [f"history, step {step.number}: {line}" for line in differences]
        _tell(f"history, step {step.number}: {step.said}, {len(differences)} differences")
    seconds, came = time.perf_counter() - began, "not the same" if wrong else "equal fingerprints after each"
    print(f"{test_follow.HISTORIES} histories of {count} steps, followed and computed ({seconds:,.0f} s): {came}")
    return wrong


def _size(server: str, bookings: int, runs: int) -> list[Row]:
    urls = {role: postgres.with_database(server, name) for role, name in _NAMES.items()}
    dbs = Databases(channel=None, **urls)
    _drop(server, *_NAMES.values(), _FLOOR)
    for name in _NAMES.values():
        _create(server, name)
    _tell(f"filling two sources with {bookings:,} bookings")
    sources.create(dbs.balisnap, dbs.bstadmin, bookings=bookings, seed=7, as_of=AS_OF, progress=_tell)
    rows: list[Row] = []
    for run in range(runs):
        _drop(server, _NAMES["ops"], _FLOOR)
        _create(server, _NAMES["ops"])
        rows += [{"run": run, **row} for row in _measure(server, dbs)]
    return rows


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
        if name == _CHANGED:
            with postgres.connect(dbs.ops, autocommit=True) as conn:
                conn.execute(_WRITTEN_BY_HAND)
        if name in (_UNCHANGED, _CHANGED):
            rows.append(_timed(name, "bridge", "", "recon", dbs.ops, lambda: _recon(dbs)))
        if name in (_FIRST, _CHANGED):
            rows.append(_timed(name, "bridge", "", "parity", dbs.ops, lambda: _parity(dbs)))
    return rows


def _recon(dbs: Databases) -> None:
    """As `make recon BATCH=D`: the gates where something was written since they were measured, verdict and report."""
    recon.look(steps.Run(run_id=runlog.uuid7(), databases=dbs, as_of=AS_OF, progress=_tell), BATCHES["D"])


def _parity(dbs: Databases) -> int:
    """How many rows of the readings the views of all rows do not say, and the other way round."""
    return len(test_follow.wrongly_measured(Pipeline(dbs)))


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


def _show(rows: list[Row], runs: int) -> list[str]:
    """One table, a line for each size and step; what is wrong."""
    table = Table(
        "bookings", "step", "first s", "floor", "again s", "unchanged s", "of first", "1 % s", "of first", "floor",
        "MB first", "unchanged", "1 %", "tuples first", "unchanged", "1 %", "full", "peak MB",
        title=f"medians of {runs}; MB: WAL",
    )  # fmt: skip
    wrong = []
    for bookings in sorted({row["bookings"] for row in rows}):
        found = [row for row in rows if row["bookings"] == bookings]
        for line, (steps_of, same) in _LINES.items():
            table.add_row(f"{bookings:,}", line, *_cells(found, steps_of, same))
        timed = {(r["batch"], r["step"]) for r in found if r["side"] == "bridge"} - {("", "parity"), ("", "recon")}
        table.add_row(f"{bookings:,}", "all of A to E", *_cells(found, timed, None), end_section=True)
        if any(row["rows"] for row in found if row["step"] == "parity"):
            wrong.append(f"{bookings:,} bookings: the run has measured what the views of all rows do not say")
        if any(row["tuples"] for row in found if row["pass"] == _FULL and row["side"] == "bridge"):
            wrong.append(f"{bookings:,} bookings: a full run has written after one that followed")
    Console(width=190).print(table)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    return wrong


def _cells(found: list[Row], steps_of: set[tuple[str, str]], same: str | None) -> list[str]:
    def total(name: str, value: str) -> float | None:
        runs: dict[int, float] = defaultdict(float)
        for row in found:
            if (row["pass"], row["side"]) == (name, "bridge") and (row["batch"], row["step"]) in steps_of:
                runs[row["run"]] += float(row[value])
        return statistics.median(runs.values()) if runs else None

    def floor_of(name: str) -> float | None:
        seconds = [r["seconds"] for r in found if (r["pass"], r["side"], r["step"]) == (name, "floor", same)]
        return statistics.median(seconds) if seconds else None

    first, again, unchanged, changed = (total(name, "seconds") for name in (_FIRST, _AGAIN, _UNCHANGED, _CHANGED))
    peak = max(
        (r["peak_mb"] for r in found if r["side"] == "bridge" and (r["batch"], r["step"]) in steps_of), default=None
    )
    return [
        _said(first), _said(floor_of(_FIRST)), _said(again), _said(unchanged), _share(unchanged, first),
        _said(changed), _share(changed, first), _said(floor_of(_CHANGED)), _said(total(_FIRST, "wal_bytes"), 1e6),
        _said(total(_UNCHANGED, "wal_bytes"), 1e6), _said(total(_CHANGED, "wal_bytes"), 1e6),
        _said(total(_FIRST, "tuples"), 1, 0), _said(total(_UNCHANGED, "tuples"), 1, 0),
        _said(total(_CHANGED, "tuples"), 1, 0),
        _said(total(_FULL, "tuples"), 1, 0), _said(peak, 1, 0),
    ]  # fmt: skip


def _share(part: float | None, whole: float | None) -> str:
    return f"{part / whole:.1%}" if part is not None and whole else ""


def _said(value: float | None, unit: float = 1, digits: int = 1) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _create(server: str, name: str, template: str = "template1") -> None:
    with postgres.connect(server, autocommit=True) as conn:
        conn.execute(postgres.statement("create database {} template {}", name, template))


def _drop(server: str, *names: str) -> None:
    with postgres.connect(server, autocommit=True) as conn:
        for name in names:
            conn.execute(postgres.statement("drop database if exists {} with (force)", name))


if __name__ == "__main__":
    sys.exit(main())
