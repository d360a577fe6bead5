"""`make bench BOOKINGS="10000 100000" RUNS=3 HISTORY=20`: seconds, tuples, WAL, memory of each step, beside the floor.

At each size new databases on the embedded server, and both sides measured on them in turn: the bridge (a first run, the
rerun after it, one without a change, one after one row in a hundred was changed, and a full one that compares every row
and must find nothing to write) and the floor (tests/floor: plain COPY and one hand-written insert-select per table;
its reruns compare every row). `recon D, alone` is `make recon BATCH=D`, where nothing was written since the gates were
measured and where one booking in a hundred was. `parity, all rows` asks the views of all rows after the change: they
must say what the runs have measured. In a first run the gates of D and E are that whole measure themselves.

The table shows medians over the runs, and grows by a size whenever one is done; below it what is aimed at, and whether
it is reached. Timings are never asserted: machines differ; read the ratios.

Before that, a long history of hostile rows on twin databases, one following what changed, one computing everything:
their fingerprints must be equal after each of the HISTORY steps. Exit code 1 when they are not, when a full rerun
writes, or when gates were measured wrongly.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bridge import embedded, postgres, recon, runlog, sources, steps
from bridge.batches import BACKFILL, BATCHES
from bridge.errors import CouldNotRun
from bridge.settings import Databases, settings
from tests import floor, test_follow
from tests.pipeline import Pipeline

AS_OF = date(2026, 2, 19)
_NAMES = {"ops": "bench_ops", "balisnap": "bench_balisnap", "bstadmin": "bench_bstadmin"}
_FLOOR = "bench_floor"
_FIRST, _AGAIN, _UNCHANGED, _CHANGED, _FULL = ("first run", "rerun", "unchanged", "1 % changed", "full rerun")
_PASSES = (_FIRST, _AGAIN, _UNCHANGED, _CHANGED, _FULL)
_BESIDE_THE_FLOOR = (_FIRST, _UNCHANGED, _CHANGED)
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
# The lines of the table: what of the bridge is in each (batch and step), and what of the floor does the same work.
_LINES: dict[str, tuple[set[tuple[str, str]], str]] = {
    "landing": ({("C", "land sources")}, "L"),
    "C": ({("C", "dbt batch_c")}, "C"),
    "D": ({("D", "dbt batch_d")}, "D"),
    "E": ({("E", "snapshot statuses"), ("E", "audit sample"), ("E", "dbt batch_e")}, "E"),
    "recon C": ({("C", "dbt gates_c"), ("C", "gates and report")}, ""),
    "recon D": ({("D", "dbt gates_d"), ("D", "gates and report")}, ""),
    "recon E": ({("E", "dbt gates_e"), ("E", "gates and report")}, ""),
    "recon D, alone": ({("", "recon")}, ""),
    "parity, all rows": ({("", "parity")}, ""),
}
_LOADS = "landing, C, D, E"
_LINES[_LOADS] = (set().union(*(_LINES[line][0] for line in _LOADS.split(", "))), "LCDE")
_ALL = "all of A to E"  # its steps are those that the rows have
_LINES[_ALL] = (set(), "LCDE")

_PROCESSES = Path("/proc")
_SAID = ("PPid", "VmHWM", "RssAnon")

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
        show(rows)
    if not chosen.keep:
        _drop(server, *_NAMES.values(), _FLOOR)
    wrong += faults(rows)
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
    done = 0
    try:
        for step in test_follow.history(test_follow.HISTORIES, count, test_follow.SEED):
            differences = [*step.difference, *map(str, step.wrongly_measured)]
            wrong += [f"history, step {step.number}: {line}" for line in differences]
            _tell(f"history, step {step.number}: {step.said}, {len(differences)} differences")
            done = step.number
    except CouldNotRun as error:  # the sizes are measured all the same
        wrong.append(f"history, after step {done}: {error}")
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
        if name == _CHANGED:
            _change(dbs)
        run = steps.Run(run_id=runlog.uuid7(), databases=dbs, as_of=AS_OF, progress=_tell, full=name == _FULL)
        for code in BACKFILL if name == _FIRST else "CDE":
            rows += _batch(name, run, code)
            if code == "B":
                _create(server, _FLOOR, template=_NAMES["ops"])
            if name not in _BESIDE_THE_FLOOR or code not in "CDE":
                continue
            if code == "C":
                rows.append(_timed(name, "floor", "L", "land", bare.ops, lambda: floor.land(bare)))
            load = partial(floor.load, bare.ops, code, compare=name != _FIRST)
            rows.append(_timed(name, "floor", code, code, bare.ops, load))
        if name == _CHANGED:
            with postgres.connect(dbs.ops, autocommit=True) as conn:
                conn.execute(_WRITTEN_BY_HAND)
        if name in (_UNCHANGED, _CHANGED):
            rows.append(_timed(name, "bridge", "", "recon", dbs.ops, lambda: _recon(dbs)))
        if name == _CHANGED:
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
    """The steps of a batch, gates and verdict; of a full rerun only what builds: parity has asked all rows by then."""
    batch, ops = BATCHES[code], run.databases.ops
    rows = []
    (steps.start if run.full else steps.begin)(run, batch)
    for step in batch.plan:
        if run.full and step.target.startswith("gates_"):
            continue
        nodes: list[Row] = []

        def work(step: Any = step, nodes: list[Row] = nodes) -> int:
            entry = steps.execute(run, batch, step)
            nodes += entry.detail.get("nodes", [])
            return entry.rows or 0

        rows.append(_timed(name, "bridge", code, step.name, ops, work) | {"nodes": nodes})

    def verdict() -> None:
        steps.raise_unless_passed(steps.conclude(run, batch))

    if not run.full:
        rows.append(_timed(name, "bridge", code, "gates and report", ops, verdict))
    return rows


def _timed(name: str, side: str, batch: str, step: str, ops: str, work: Callable[[], int | None]) -> Row:
    wal, tuples, server = _counters(ops)
    with _Peak(server) as peak:
        began = time.perf_counter()
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
        "wal_bytes": after[0] - wal,
        "tuples": after[1] - tuples,
        "peak_mb": peak.ours,
        "server_mb": peak.server,
    }


def _counters(ops: str) -> tuple[int, int, int]:
    """WAL position, the tuples that were ever written to the canonical tables, and the server's process."""
    with postgres.connect(ops, autocommit=True) as conn:
        row = conn.execute(
            "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, ("
            "    select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint"
            "    from pg_stat_user_tables where schemaname = 'public')"
        ).fetchone()
        assert row is not None
        return *row, _of_process(conn.info.backend_pid).get("PPid", 0)


class _Peak:
    """Peak memory in MB while a step runs: of our process, as the kernel knows it, and of the server's processes.

    Of these what each holds of its own, together, looked at twice a second: not the shared buffers (512 MB). Where
    there is no /proc both stay 0.
    """

    def __init__(self, server: int) -> None:
        self.ours = self.server = 0.0
        self._postmaster, self._ended = server, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Peak:
        if _PROCESSES.exists():
            (_PROCESSES / "self/clear_refs").write_text("5")  # the peak of the steps before is forgotten
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
        self.ours = _of_process("self").get("VmHWM", 0) / 1024

    def _look(self) -> None:
        while True:
            processes = [_of_process(one.name) for one in _PROCESSES.iterdir() if one.name.isdecimal()]
            held = sum(one.get("RssAnon", 0) for one in processes if one.get("PPid") == self._postmaster)
            self.server = max(self.server, held / 1024)
            if self._ended.wait(0.5):
                return


def _of_process(pid: int | str) -> dict[str, int]:
    """Its parent and its memory in kB; empty when it is gone."""
    try:
        lines = (_PROCESSES / str(pid) / "status").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(said.split()[0]) for name, _, said in (line.partition(":") for line in lines) if name in _SAID}


class _Size:
    """What was measured at one size."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def of(self, name: str, line: str, value: str = "seconds", *, side: str = "bridge") -> float:
        """What a line of the table says of a pass, the median over its runs; NaN where nothing of it was measured."""
        runs: dict[int, float] = defaultdict(float)
        for row in self._rows(line, side):
            if row["pass"] == name:
                runs[row["run"]] += float(row[value])
        return statistics.median(runs.values()) if runs else math.nan

    def most(self, line: str, value: str) -> float:
        return max((row[value] for row in self._rows(line, "bridge")), default=math.nan)

    def _rows(self, line: str, side: str) -> Iterator[Row]:
        wanted, same = _LINES[line]
        for row in self.rows:
            is_of = row["batch"] in same if side == "floor" else (row["batch"], row["step"]) in wanted
            if row["side"] == side and (is_of or (line == _ALL and row["batch"])):
                yield row

    def times_floor(self, line: str) -> float:
        return self.of(_FIRST, line) / self.of(_FIRST, line, side="floor")

    def of_first(self, name: str) -> float:
        return self.of(name, _ALL) / self.of(_FIRST, _ALL)

    def slowest_recon(self, name: str) -> float:
        seconds = [self.of(name, line) for line in _LINES if line.startswith("recon")]
        return max((s for s in seconds if not math.isnan(s)), default=math.nan)

    def growth(self, name: str, smaller: _Size, times: float) -> float:
        """The exponent of growth from a size that has so many times fewer bookings."""
        return math.log(self.of(name, _ALL) / smaller.of(name, _ALL), times)


# What is aimed at: the most that it may be, how it is said, what it is at a size (beside the next smaller one).
AIMS: dict[str, tuple[float, str, Callable[[_Size, _Size, float], float]]] = {
    f"first run, {_LOADS}: times the floor": (1.5, ".2f", lambda now, _, __: now.times_floor(_LOADS)),
    "first run, with gates and reports: times the floor": (1.5, ".2f", lambda now, _, __: now.times_floor(_ALL)),
    "rerun after it, of the first run": (0.05, ".1%", lambda now, _, __: now.of_first(_AGAIN)),
    "unchanged, of the first run": (0.05, ".1%", lambda now, _, __: now.of_first(_UNCHANGED)),
    "unchanged, tuples written": (0, ",.0f", lambda now, _, __: now.of(_UNCHANGED, _ALL, "tuples")),
    "1 % changed, of the first run": (0.06, ".1%", lambda now, _, __: now.of_first(_CHANGED)),
    "slowest recon of one batch, unchanged: s": (10, ".1f", lambda now, _, __: now.slowest_recon(_UNCHANGED)),
    "slowest recon of one batch, 1 % changed: s": (10, ".1f", lambda now, _, __: now.slowest_recon(_CHANGED)),
    "growth, first run: exponent": (1.1, ".2f", lambda now, before, times: now.growth(_FIRST, before, times)),
    "growth, 1 % changed: exponent": (1.1, ".2f", lambda now, before, times: now.growth(_CHANGED, before, times)),
}


def show(rows: list[Row]) -> None:
    """The table so far, and which aims are reached at each size."""
    sizes = _sizes(rows)
    table = Table(
        "bookings", "step", "first s", "floor", "again s", "unchanged s", "floor", "1 % s", "floor", "full s",
        "WAL MB", "unchanged", "1 %", "tuples", "unchanged", "1 %", "full", "peak MB", "server",
        title=f"medians of {len({row['run'] for row in rows})}; x: times the floor, %: of the first run",
        box=box.SIMPLE,
    )  # fmt: skip
    for column in table.columns:
        column.no_wrap = True
    aims = Table("aims", "at most", *(f"{bookings:,}" for bookings in sizes), box=box.SIMPLE)
    for bookings, size in sizes.items():
        for line in _LINES:
            table.add_row(f"{bookings:,}", line, *_cells(size, line), end_section=line == _ALL)
    beside = [
        (now, before, bookings / (smaller or 1))
        for (smaller, before), (bookings, now) in pairwise([(0, _Size([])), *sizes.items()])
    ]
    for aim, (most, form, measured) in AIMS.items():
        values = [measured(*these) for these in beside]
        held = [_said(v, form) + ("" if math.isnan(v) else " MISSED" if v > most else " reached") for v in values]
        aims.add_row(aim, f"{most:{form}}", *held)
    Console(width=220).print(table, aims)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)


def faults(rows: list[Row]) -> list[str]:
    """What no run may do, in words."""
    wrong = []
    for bookings, size in _sizes(rows).items():
        if any(row["rows"] for row in size.rows if row["step"] == "parity"):
            wrong.append(f"{bookings:,} bookings: the run has measured what the views of all rows do not say")
        if size.of(_FULL, _ALL, "tuples") > 0:
            wrong.append(f"{bookings:,} bookings: a full run has written after one that followed")
    return wrong


def _sizes(rows: list[Row]) -> dict[int, _Size]:
    return {one: _Size([r for r in rows if r["bookings"] == one]) for one in sorted({r["bookings"] for r in rows})}


def _cells(size: _Size, line: str) -> list[str]:
    cells = {name: [_said(size.of(name, line))] for name in _PASSES}
    for name in _BESIDE_THE_FLOOR:
        seconds, bare = size.of(name, line), size.of(name, line, side="floor")
        cells[name].append(_said(bare) + _said(seconds / bare, ".2f", " x"))
        if name != _FIRST:
            cells[name][0] += _said(seconds / size.of(_FIRST, line), ".1%", " ")
    return [
        *(cell for name in _PASSES for cell in cells[name]),
        *(_said(size.of(name, line, "wal_bytes") / 1e6) for name in _BESIDE_THE_FLOOR),
        *(_said(size.of(name, line, "tuples"), ",.0f") for name in (*_BESIDE_THE_FLOOR, _FULL)),
        *(_said(size.most(line, value), ",.0f") for value in ("peak_mb", "server_mb")),
    ]


def _said(value: float, form: str = ",.1f", before: str = "") -> str:
    """A cell; empty where nothing was measured."""
    return "" if math.isnan(value) else f"{before}{value:{form}}"


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
