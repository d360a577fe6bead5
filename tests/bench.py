"""`make bench BOOKINGS=100000`: seconds, rows and WAL of each step; first run and unchanged rerun, on one machine.

Works on databases of its own on the embedded server, and drops them. Timings are never asserted: machines differ; read
them as ratios within one run.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bridge import embedded, postgres, runlog, sources, steps
from bridge.batches import BATCHES
from bridge.settings import Databases, settings

AS_OF = date(2026, 2, 19)
_NAMES = {"ops": "bench_ops", "balisnap": "bench_balisnap", "bstadmin": "bench_bstadmin"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bookings", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    chosen = parser.parse_args()
    server = embedded.ensure(settings().phase2_home).ops
    urls = {role: postgres.with_database(server, name) for role, name in _NAMES.items()}
    _remake(server)
    began = time.perf_counter()
    sources.create(urls["balisnap"], urls["bstadmin"], bookings=chosen.bookings, seed=7, as_of=AS_OF, progress=_tell)
    rows = [{"pass": "sample", "batch": "", "step": "fill the two sources", "seconds": time.perf_counter() - began}]
    dbs = Databases(channel=None, **urls)
    steps.bootstrap(dbs.ops)
    for name in ("first run", "unchanged rerun"):
        rows += _pass(name, dbs)
    _show(rows, chosen.bookings)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2, default=str))
    _drop(server)


def _pass(name: str, dbs: Databases) -> list[dict[str, object]]:
    run = steps.Run(run_id=runlog.uuid7(), databases=dbs, as_of=AS_OF, progress=_tell)
    rows = []
    for batch in BATCHES.values():
        steps.begin(run, batch)
        for step in batch.plan:
            before, began = _wal(dbs.ops), time.perf_counter()
            entry = steps.execute(run, batch, step)
            seconds = time.perf_counter() - began
            wal = _wal(dbs.ops) - before
            rows.append(
                {
                    "pass": name, "batch": batch.code, "step": step.name, "seconds": seconds, "rows": entry.rows,
                    "wal_bytes": wal,
                }
            )  # fmt: skip
        began = time.perf_counter()
        outcome = steps.conclude(run, batch)
        steps.raise_unless_passed(outcome)
        rows.append(
            {"pass": name, "batch": batch.code, "step": "gates and report", "seconds": time.perf_counter() - began}
        )
    return rows


def _show(rows: list[dict[str, object]], bookings: int) -> None:
    table = Table("", "batch", "step", "seconds", "rows written", "WAL MB", title=f"{bookings:,} bookings")
    for row in rows:
        wal = row.get("wal_bytes")
        table.add_row(
            str(row["pass"]),
            str(row["batch"]),
            str(row["step"]),
            f"{row['seconds']:.1f}",
            f"{row.get('rows') or 0:,}",
            "" if wal is None else f"{int(str(wal)) / 1e6:,.1f}",
        )
    console = Console(width=120)
    console.print(table)
    for name in ("first run", "unchanged rerun"):
        total = sum(float(str(r["seconds"])) for r in rows if r["pass"] == name)
        console.print(f"{name}: {total:.1f} s, {bookings / total:,.0f} bookings a second")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"peak memory of our process: {peak:,.0f} MB")


def _wal(ops: str) -> int:
    with postgres.connect(ops) as conn:
        row = conn.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
    return int(row[0]) if row else 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _remake(server: str) -> None:
    _drop(server)
    with postgres.connect(server, autocommit=True) as conn:
        for name in _NAMES.values():
            conn.execute(postgres.statement("create database {}", name))


def _drop(server: str) -> None:
    with postgres.connect(server, autocommit=True) as conn:
        for name in _NAMES.values():
            conn.execute(postgres.statement("drop database if exists {} with (force)", name))


if __name__ == "__main__":
    main()
