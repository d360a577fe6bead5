"""Rollback of the write path (blueprint 6.9): the flag goes off, what is open is taken to bstadmin."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

import psycopg

from bridge import flags, postgres
from bridge.flags import FRESH_SECONDS

# Of a frozen booking nothing is taken on: it waits for a person, and is told apart.
_LEFT = """
select
    count(*) filter (where i.is_open and not i.is_frozen),
    count(*) filter (where i.is_open and i.is_frozen),
    count(*) filter (where i.core_status = 'BEHIND' and i.legacy_status = 'DONE'),
    coalesce(extract(epoch from max(i.accepted_at) filter (where i.mode = 'DUAL') - %(at)s::timestamptz), 0)
from (
    select
        w.mode, w.core_status, w.legacy_status, w.accepted_at,
        w.legacy_status = 'PENDING' or w.core_status = 'PENDING' as is_open,
        phase2.is_frozen(w.booking_key) as is_frozen
    from phase2.write_intents as w
    where
        w.accepted_at > %(at)s::timestamptz - interval '1 minute'
        or w.legacy_status = 'PENDING' or w.core_status in ('PENDING', 'BEHIND')
) as i
"""


@dataclass(frozen=True)
class RolledBack:
    """How it went. `left`: writes that bstadmin has not got yet (0, or nobody takes them there: is the worker up?)."""

    switched_at: datetime
    seconds_to_old_path: float
    left: int
    frozen: int
    behind: int  # the core gets these when the flag is on again


def roll_back(ops_url: str, *, reason: str, wait_seconds: float = 60.0) -> RolledBack:
    """Switch writes through the core off, and wait until every process has seen it and nothing is open any more.

    `seconds_to_old_path` is how long after the change the last write still took the new path.
    """
    with postgres.connect(ops_url, application_name="phase2-rollback", autocommit=True) as conn:
        (at,) = conn.execute("select clock_timestamp()").fetchone() or (None,)
        assert at is not None
        flags.change(conn, "OPS_WRITE_CORE_ENABLED", False, reason=reason)
        time.sleep(FRESH_SECONDS)  # by then each process has looked again
        deadline = time.monotonic() + wait_seconds
        while (left := _left(conn, at))[0] and time.monotonic() < deadline:
            time.sleep(0.2)
    return RolledBack(at, max(0.0, round(float(left[3]), 2)), left[0], left[1], left[2])


def _left(conn: psycopg.Connection, at: datetime) -> tuple[int, int, int, float]:
    row = conn.execute(_LEFT, {"at": at}).fetchone()
    assert row is not None
    return row[0], row[1], row[2], row[3]
