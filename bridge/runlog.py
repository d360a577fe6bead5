"""What ran: one row a step in `phase2.step_log`, and the scripts in the canonical `migration_run_log`.

`migration_run_log` gets a row when a script first succeeds with its checksum, and for every failure; a rerun that
changes nothing leaves it alone, as it leaves the other sixteen tables alone (mapping 6).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from bridge import ledger
from bridge.errors import plain
from bridge.reports.mask import mask_text

_START = """
insert into phase2.step_log (run_id, batch, step, kind, checksum, status, started_at)
values (%(run_id)s, %(batch)s, %(step)s, %(kind)s, %(checksum)s, 'RUNNING', clock_timestamp())
returning step_log_id
"""

_END = """
update phase2.step_log
set status = %(status)s, ended_at = clock_timestamp(), rows = %(rows)s, detail = %(detail)s,
    error_message = %(error)s, checksum = coalesce(%(checksum)s, checksum)
where step_log_id = %(id)s
"""

_SCRIPTS = """
insert into public.migration_run_log (
    run_key, batch_code, script_name, script_checksum, run_status, started_at, ended_at, rows_affected, error_message
)
select
    %(run_key)s, s.batch, %(script)s::varchar, s.checksum, s.status, s.started_at, s.ended_at, s.rows, s.error_message
from phase2.step_log as s
where
    s.step_log_id = %(id)s
    and (
        s.status <> 'SUCCEEDED'
        or not exists (
            select 1 from public.migration_run_log as m
            where m.script_name = %(script)s::varchar and m.script_checksum = s.checksum and m.run_status = 'SUCCEEDED'
        )
    )
"""


@dataclass
class Entry:
    """A step that is running; what it sets here is what the log will say."""

    checksum: str | None = None
    rows: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@contextmanager
def step(conn: psycopg.Connection, *, run_id: UUID, batch: str, name: str, kind: str) -> Iterator[Entry]:
    """Log one step around its work, whatever becomes of it. `conn` is autocommit: the log outlives a failure."""
    row = conn.execute(
        _START, {"run_id": run_id, "batch": batch, "step": name, "kind": kind, "checksum": None}
    ).fetchone()
    assert row is not None
    entry = Entry()
    status, error = "SUCCEEDED", None
    try:
        yield entry
    except BaseException as raised:
        status, error = "FAILED", mask_text(f"{type(raised).__name__}: {plain(raised, 2000)}")
        raise
    finally:
        if not conn.closed:
            with conn.transaction():
                conn.execute(
                    _END,
                    {
                        "id": row[0],
                        "status": status,
                        "rows": entry.rows,
                        "detail": Jsonb(entry.detail),
                        "error": error,
                        "checksum": entry.checksum,
                    },
                )
                ledger.mirror(conn, "step", [row[0]])


def record_scripts(conn: psycopg.Connection, run_id: UUID) -> None:
    """Carry this run's script steps over to `migration_run_log`, as soon as that table exists (001 makes it)."""
    known = conn.execute("select to_regclass('public.migration_run_log') is not null").fetchone()
    if not known or not known[0]:
        return
    steps = conn.execute(
        "select s.step_log_id, s.detail ->> 'script' from phase2.step_log as s"
        " where s.run_id = %s and s.detail ? 'script' and not s.recorded order by s.step_log_id",
        (run_id,),
    ).fetchall()
    for step_log_id, script in steps:
        run_key = uuid7()
        with conn.transaction():
            conn.execute(_SCRIPTS, {"id": step_log_id, "script": script, "run_key": run_key})
            ledger.mirror(conn, "script", [run_key])
            conn.execute("update phase2.step_log set recorded = true where step_log_id = %s", (step_log_id,))


def uuid7() -> UUID:
    """A time-ordered UUID (RFC 9562, version 7): the key of rows that the application makes."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10))
    number = (number & ~(0xF000 << 64)) | (0x7000 << 64)
    return UUID(int=(number & ~(0xC000 << 48)) | (0x8000 << 48))


def utc_now() -> datetime:
    """Now, with its zone."""
    return datetime.now(UTC)
