"""By minute, in the ops database: answers of this process on the core path (for the guardrails, G-03, the console), and
how far the queue is behind (for the console).
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import dict_row

from core_api.database import Pool

PARTS = ("ingest", "reads", "writes")

_KEEP = """
insert into phase2.api_minutes (instance, minute, part, requests, server_errors)
values (%s, to_timestamp(%s * 60), %s, %s, %s)
on conflict (minute, instance, part)
do update set requests = excluded.requests, server_errors = excluded.server_errors
"""

# of several looks in a minute, by whatever process, the worst
_LAG = """
insert into phase2.queue_minutes (minute, pending, oldest_seconds)
select
    date_trunc('minute', now()), count(*),
    coalesce(greatest(extract(epoch from now() - min(e.request_received_at)), 0), 0)
from public.ingest_event_log as e
where phase2.is_pending(e.process_status, e.next_retry_at)
on conflict (minute)
do update set
    pending = greatest(queue_minutes.pending, excluded.pending),
    oldest_seconds = greatest(queue_minutes.oldest_seconds, excluded.oldest_seconds)
"""
_DRAWN = """
select
    minute, a.requests, a.server_errors as errors, q.pending, q.oldest_seconds::double precision as lag
from (
    select m.minute, sum(m.requests)::bigint as requests, sum(m.server_errors)::bigint as server_errors
    from phase2.api_minutes as m
    where m.part = 'ingest' and m.minute >= date_trunc('minute', now()) - %(minutes)s * interval '1 minute'
    group by m.minute
) as a
full join (
    select m.*
    from phase2.queue_minutes as m
    where m.minute >= date_trunc('minute', now()) - %(minutes)s * interval '1 minute'
) as q using (minute)
"""


def part_of(method: str, route: str) -> str | None:
    """The part of the core path that a route is of, if it is of one."""
    if route.startswith("/v1/ingest/"):
        return "ingest"
    if route.startswith("/v1/ops/"):
        return "reads" if method in ("GET", "HEAD") else "writes"
    return None


def is_error(status: int, code: str | None) -> bool:
    """Whether an answer is a server error. That a flag is off is an answer like another."""
    return status >= 500 and not (code or "").endswith("_DISABLED")


class Minutes:
    """The counts of one process. A minute without a request has a row too: it says that somebody was there."""

    def __init__(self) -> None:
        self.instance = uuid4()
        self._requests: Counter[tuple[int, str]] = Counter()
        self._errors: Counter[tuple[int, str]] = Counter()
        self._first = _minute()  # that may not have been kept yet
        self._looked = 0  # the minute in which the queue was looked at last

    def count(self, method: str, route: str, status: int, code: str | None) -> None:
        """One answer."""
        if part := part_of(method, route):
            self._requests[_minute(), part] += 1
            self._errors[_minute(), part] += is_error(status, code)

    async def flush(self, pool: Pool) -> None:
        """Keep what was counted, of at most the last quarter of an hour. Raises psycopg.Error: then the next time."""
        now = _minute()
        minutes = range(max(self._first, now - 15), now + 1)
        rows = [
            (self.instance, m, part, self._requests[m, part], self._errors[m, part]) for m in minutes for part in PARTS
        ]
        async with pool.connection() as conn, conn.cursor() as cursor:
            await cursor.executemany(_KEEP, rows)
            if self._looked != now:
                self._looked = now
                with contextlib.suppress(psycopg.errors.UndefinedTable):  # before batch A nothing can be behind
                    await cursor.execute(_LAG)
        self._first = now
        for counts in (self._requests, self._errors):
            for key in [key for key in counts if key[0] < now]:
                del counts[key]


async def kept(pool: Pool, minutes: int) -> list[dict[str, Any]]:
    """Of the last minutes, each that was looked at: answers to emitters and errors among them, of all processes; events
    that waited, and for how many seconds the oldest had. None: not looked at.
    """
    async with pool.connection() as conn:
        return await (await conn.cursor(row_factory=dict_row).execute(_DRAWN, {"minutes": minutes})).fetchall()


async def forget(pool: Pool) -> None:
    """Minutes of more than a month ago."""
    async with pool.connection() as conn:
        await conn.execute("delete from phase2.api_minutes where minute < now() - interval '30 days'")
        await conn.execute("delete from phase2.queue_minutes where minute < now() - interval '30 days'")


def _minute() -> int:
    return int(time.time() // 60)
