"""Answers of this process on the core path, by minute, in the ops database: what the guardrails and gate G-03 read."""

from __future__ import annotations

import time
from collections import Counter
from uuid import uuid4

from core_api.database import Pool

PARTS = ("ingest", "reads", "writes")

_KEEP = """
insert into phase2.api_minutes (instance, minute, part, requests, server_errors)
values (%s, to_timestamp(%s * 60), %s, %s, %s)
on conflict (minute, instance, part)
do update set requests = excluded.requests, server_errors = excluded.server_errors
"""


def part_of(method: str, route: str) -> str | None:
    """The part of the core path that a route is of, if it is of one."""
    if route.startswith("/v1/ingest/"):
        return "ingest"
    if route.startswith("/v1/ops/"):
        return "reads" if method in ("GET", "HEAD") else "writes"
    return None


class Minutes:
    """The counts of one process. A minute without a request has a row too: it says that somebody was there."""

    def __init__(self) -> None:
        self.instance = uuid4()
        self._requests: Counter[tuple[int, str]] = Counter()
        self._errors: Counter[tuple[int, str]] = Counter()
        self._first = _minute()  # that may not have been kept yet

    def count(self, method: str, route: str, status: int, code: str | None) -> None:
        """One answer. That a flag is off is an answer like another, and no error."""
        if part := part_of(method, route):
            self._requests[_minute(), part] += 1
            self._errors[_minute(), part] += status >= 500 and not (code or "").endswith("_DISABLED")

    async def flush(self, pool: Pool) -> None:
        """Keep what was counted, of at most the last quarter of an hour. Raises psycopg.Error: then the next time."""
        now = _minute()
        minutes = range(max(self._first, now - 15), now + 1)
        rows = [
            (self.instance, m, part, self._requests[m, part], self._errors[m, part]) for m in minutes for part in PARTS
        ]
        async with pool.connection() as conn, conn.cursor() as cursor:
            await cursor.executemany(_KEEP, rows)
        self._first = now
        for counts in (self._requests, self._errors):
            for key in [key for key in counts if key[0] < now]:
                del counts[key]


async def forget(pool: Pool) -> None:
    """Minutes of more than a month ago."""
    async with pool.connection() as conn:
        await conn.execute("delete from phase2.api_minutes where minute < now() - interval '30 days'")


def _minute() -> int:
    return int(time.time() // 60)
