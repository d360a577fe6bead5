"""Full parity (cutover.md, G 4): every booking of bstadmin, as landed, against what the read model shows of it.

    compare(run) -> Parity      in SQL, kept in phase2.parity_runs and phase2.parity_bookings (gate BG-01 reads them)

The rules stand in dbt_project/models/shadow and macros/read_differences.sql, what is approved in the seed
approved_differences.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from bridge import landing, runlog, steps, warehouse
from bridge.errors import CouldNotRun
from bridge.reports.mask import mask

_SETTINGS = "set local jit = off; set local work_mem = '256MB'; set local hash_mem_multiplier = 2"
# a table of its own, which workers may share: what several models name once is nobody's but the leader's
_TOLD = """
truncate phase2.parity_told;
insert into phase2.parity_told (booking_key, told)
select s.booking_key, s.told
from ops_read.shadow_told_several as s;
analyze phase2.parity_told
"""
# a select of its own, and not that of an insert: only so do workers share it
_COMPARE = """
create temporary table parity_found on commit drop as
select s.id, s.booking_key, s.status, s.differences
from ops_read.shadow_bookings as s
"""
_REPLACE = """
truncate phase2.parity_bookings;
insert into phase2.parity_bookings (id, booking_key, status, differences)
select f.id, f.booking_key, f.status, f.differences
from pg_temp.parity_found as f
"""
_COUNT = """
select
    count(*) filter (where b.status <> 'SURPLUS') as bookings,
    count(*) filter (where b.status = 'SAME') as same,
    count(*) filter (where b.status = 'EXPLAINED') as explained,
    count(*) filter (where b.status = 'DIFFERENT') as different,
    count(*) filter (where b.status = 'MISSING') as missing,
    count(*) filter (where b.status = 'SURPLUS') as surplus
from phase2.parity_bookings as b
"""
_KEEP = """
insert into phase2.parity_runs (
    parity_id, started_at, ended_at, landed, bookings, same, explained, different, missing, surplus
)
values (
    %(parity_id)s, %(started_at)s, clock_timestamp(), %(landed)s, %(bookings)s, %(same)s, %(explained)s,
    %(different)s, %(missing)s, %(surplus)s
)
"""
_LANDED = """
select distinct on (r.source) r.source, r.landing_no
from phase2.landing_runs as r
order by r.source, r.landing_no desc
"""
_FIELDS = """
select f.field, f.rule, f.reason, f.owner, f.bookings, f.example
from ops_read.shadow_fields as f
order by f.rule is not null, f.field, f.rule
"""
_FOUND = """
select b.id, b.booking_key, b.status, b.differences
from phase2.parity_bookings as b
where b.status in ('DIFFERENT', 'MISSING', 'SURPLUS')
order by b.id
limit %s
"""


@dataclass(frozen=True)
class Parity:
    """What a full comparison found. `fields`: by field and rule; `found`: unexplained bookings, values masked."""

    parity_id: UUID
    seconds: float
    counts: Mapping[str, int]  # bookings, same, explained, different, missing, surplus
    fields: list[dict[str, Any]]
    found: list[dict[str, Any]]

    @property
    def unexplained(self) -> int:
        return self.counts["different"] + self.counts["missing"] + self.counts["surplus"]


def ready(run: steps.Run, conn: psycopg.Connection) -> None:
    """Build the read model and what compares it, unless they stand as this version of the project makes them."""
    digest = warehouse.digest()
    for selector in ("ground", "ops_read"):
        steps.refresh(run, conn, selector, digest)


def compare(run: steps.Run, *, most: int = 20) -> Parity:
    """Compare all bookings, keep it, and list up to `most` of those with an unexplained difference.

    Raises CouldNotRun when nothing is landed, or when the landed rows are gone.
    """
    with run.connect() as conn:
        if problems := landing.landing_problems(conn):
            raise CouldNotRun(
                f"nothing to compare: {problems[0]}",
                where="landing_bstadmin",
                todo="Run the batches first (make run BATCH=E); a server that crashed needs that again.",
            )
        ready(run, conn)
        run.progress("comparing every booking of bstadmin with the read model")
        started, clock = datetime.now(UTC), time.perf_counter()
        with conn.transaction():
            conn.execute(
                "lock table phase2.parity_bookings in access exclusive mode"
            )  # two at once: one after the other
            conn.execute(_SETTINGS)
            conn.execute(_TOLD)
            conn.execute(_COMPARE)
            conn.execute(_REPLACE)
            with conn.cursor(row_factory=dict_row) as cursor:
                counts = cursor.execute(_COUNT).fetchone() or {}
            parity_id = runlog.uuid7()
            landed = Jsonb(dict(conn.execute(_LANDED).fetchall()))
            conn.execute(_KEEP, {"parity_id": parity_id, "started_at": started, "landed": landed, **counts})
        seconds = time.perf_counter() - clock
        with conn.cursor(row_factory=dict_row) as cursor:
            fields = cursor.execute(_FIELDS).fetchall()
            found = cursor.execute(_FOUND, (most,)).fetchall()
    for booking in found:
        booking["differences"] = masked(booking["differences"])
    return Parity(parity_id, round(seconds, 2), counts, fields, found)


def masked(differences: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """field -> [bstadmin's value, the read model's, rule], personal data made unreadable."""
    return {field: [mask(old, field), mask(new, field), rule] for field, (old, new, rule) in differences.items()}
