"""Two sides that answer one read: bstadmin (legacy) and the read model (new); who answers, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import time
from collections import Counter as Counts
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from uuid import uuid4

import psycopg
from prometheus_client import Counter, Histogram
from psycopg import AsyncConnection

from bridge.core_settings import core_settings
from bridge.errors import plain
from bridge.flags import Flags
from bridge.settings import SQL
from core_api import database
from core_api.app import unavailable
from core_api.auth import Admin
from core_api.database import Pool
from core_api.metrics import Metrics

SideName = Literal["new", "legacy"]
Why = Literal["flag", "fallback", "breaker", "missing"]
Row = dict[str, Any]
POOL_SIZE = 4  # connections of each side, beside those of ingestion
FLUSH_SECONDS = 5.0

_log = logging.getLogger("core_api.reads")
FEW, _ALL = 5000, 2**62  # bookings that a search looks at
_STEP = math.log(1.1)  # latencies are kept in classes 10 % wide
_SESSION = " -c default_transaction_read_only=on -c jit=off"


@lru_cache(maxsize=512)
def _statement(side: SideName, name: str, given: frozenset[str] = frozenset(), size: int | None = None) -> bytes:
    """A file of sql/ops_read without the parts (`-- @if parameter` to `-- @end`) of what is not asked for, and with the
    size of its page: so each question has a plan of its own, which its connection makes once.
    """
    if side == "legacy" and name == "unassigned":
        name = "assignments"  # one statement there
    text = (SQL / "ops_read" / f"{side}_{name}.sql").read_text("utf-8")
    parts = re.sub(r" *-- @if (\w+)\n(.*?) *-- @end\n", lambda m: m[2] if m[1] in given else "", text, flags=re.DOTALL)
    return parts.replace("%(size)s", str(size)).encode()


class Side:
    """One database that can answer."""

    def __init__(
        self, name: SideName, url: str, *, size: int = POOL_SIZE, purpose: str = "read", options: str = ""
    ) -> None:
        self.name = name
        self.pool: Pool = database.pool(
            url, size=size, application_name=f"phase2-ops-{purpose}", options=_SESSION + options, wait_seconds=1.0
        )
        self._given_up: set[asyncio.Task[list[Row]]] = set()

    async def rows(self, statement: str, parameters: dict[str, Any], *, seconds: float) -> list[Row]:
        """The rows of `sql/ops_read/{side}_{statement}.sql`. Raises psycopg.Error; TimeoutError after `seconds`."""
        asked = asyncio.create_task(self._rows(statement, parameters))
        try:
            # where the network is dead it takes 10 s to give a statement up: nobody waits for that
            await asyncio.wait({asked}, timeout=seconds)
            if not asked.done():
                raise TimeoutError
            return asked.result()
        finally:
            if not asked.done():
                self._given_up.add(asked)
                asked.add_done_callback(self._forget)
                asked.cancel()

    def _forget(self, task: asyncio.Task[list[Row]]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # has been told as a timeout

    async def _rows(self, statement: str, parameters: dict[str, Any]) -> list[Row]:
        async with self.pool.connection() as conn:
            if self.name == "new" and parameters.get("pattern"):
                parameters = parameters | {"found": await self._found(conn, parameters), "pattern": None}
            if self.name == "new" and statement == "assignments" and parameters.get("driver"):
                statement = "driven"
            return [row[0] for row in await self._ask(conn, statement, parameters)]

    async def _found(self, conn: AsyncConnection[Any], parameters: dict[str, Any]) -> list[str]:
        """Keys of the bookings that a page of a search shows: what is common is met at the top of the list, few are
        looked up; what is neither is met further down, or looked up after all. No name has a digit, and of a
        reference there are few."""
        first = [("met", FEW), ("found", FEW)]
        if re.search("[0-9]", parameters["pattern"]):
            first.reverse()
        for statement, most in (*first, ("met", 4 * FEW), ("found", _ALL)):
            ((keys,),) = await self._ask(conn, statement, parameters | {"most": most})
            if keys is not None:
                return keys
        raise AssertionError("more bookings than there are numbers")

    async def _ask(self, conn: AsyncConnection[Any], statement: str, parameters: dict[str, Any]) -> list[Any]:
        given = frozenset(name for name, value in parameters.items() if value is not None)
        text = _statement(self.name, statement, given - {"size"}, parameters.get("size"))
        # how often a word occurs decides about the plan of a search: none is kept
        found = await conn.execute(text, parameters, prepare=None if "pattern" not in given else False)
        return await found.fetchall()


class Breaker:
    """Nobody asks a side that has failed FAILURES times in a row; after OPEN_SECONDS one read tries again."""

    FAILURES = 5
    OPEN_SECONDS = 10.0

    def __init__(self) -> None:
        self._failed = 0
        self._shut_until = float("-inf")

    @property
    def is_open(self) -> bool:
        return self._failed >= self.FAILURES

    def lets_through(self) -> bool:
        if not self.is_open:
            return True
        if time.monotonic() < self._shut_until:
            return False
        self._shut_until = time.monotonic() + self.OPEN_SECONDS  # of those who come now one tries
        return True

    def succeeded(self) -> None:
        self._failed = 0

    def failed(self) -> None:
        self._failed += 1
        if self.is_open:
            self._shut_until = time.monotonic() + self.OPEN_SECONDS


@dataclass(frozen=True)
class Served:
    """What a read was answered with."""

    rows: list[Row]
    side: SideName
    why: Why
    seconds: float  # that the side took

    @property
    def header(self) -> str:
        return self.side if self.why == "flag" else f"{self.side}; {self.why}"


class Sides:
    """Both sides of one process, and the counts of what they answered."""

    def __init__(self, ops_url: str, legacy_url: str | None, metrics: Metrics) -> None:
        self.new = Side("new", ops_url)
        self.legacy = Side("legacy", legacy_url) if legacy_url else None
        self.breaker = Breaker()
        self.instance = uuid4()
        self._seconds = core_settings().ops_read_timeout_seconds
        self._counts: Counts[tuple[int, str, str, str, bool, int]] = Counts()
        self._changed: set[int] = set()
        self._reads = Counter(
            "ops_reads",
            "Reads of the back office by side and reason",
            ["read", "side", "why"],
            registry=metrics.registry,
        )
        self._latency = Histogram(
            "ops_read_seconds",
            "Time that a side took",
            ["read", "side"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=metrics.registry,
        )

    async def open(self) -> None:
        for side in (self.new, self.legacy):
            if side:
                await side.pool.open()

    async def close(self) -> None:
        for side in (self.new, self.legacy):
            if side:
                await side.pool.close(timeout=1.0)

    async def serve(
        self, flags: Flags, pool: Pool, admin: Admin, read: str, parameters: dict[str, Any], *, one: bool = False
    ) -> Served:
        """The answer of the side that the flag names for this person; `one`: no row means that the other is asked.

        Raises Refused 503 when bstadmin does not answer and nobody else may.
        """
        # whoever's name is an e-mail address is also found by the list of them
        on_new = await flags.is_on("OPS_READ_NEW_MODEL_ENABLED", pool, actor=admin.actor, email=admin.actor)
        why: Why = "flag"
        if on_new:
            why = "breaker"
            if self.breaker.lets_through():
                why = "fallback"
                started = time.perf_counter()
                try:
                    rows = await self.new.rows(read, parameters, seconds=self._seconds)
                except (psycopg.Error, TimeoutError, OSError) as error:
                    self.breaker.failed()
                    _log.warning("the read model does not answer %s: %s", read, plain(error) or type(error).__name__)
                else:
                    self.breaker.succeeded()
                    if rows or not one:
                        return self._counted(read, Served(rows, "new", "flag", time.perf_counter() - started))
                    why = "missing"
        return await self._from_legacy(read, parameters, why)

    async def _from_legacy(self, read: str, parameters: dict[str, Any], why: Why) -> Served:
        started = time.perf_counter()
        try:
            if self.legacy is None:
                raise unavailable()
            rows = await self.legacy.rows(read, parameters, seconds=5 * self._seconds)
        except psycopg.DataError:
            raise  # a value that cannot be: 422
        except (psycopg.Error, TimeoutError, OSError) as error:
            self.count(read, "legacy", why, time.perf_counter() - started, server_error=True)
            _log.error("bstadmin does not answer %s: %s", read, plain(error) or type(error).__name__)
            raise unavailable() from None
        return self._counted(read, Served(rows, "legacy", why, time.perf_counter() - started))

    def _counted(self, read: str, served: Served) -> Served:
        self.count(read, served.side, served.why, served.seconds)
        return served

    def count(self, read: str, side: SideName, why: Why, seconds: float, *, server_error: bool = False) -> None:
        """One answer, for Prometheus and for the gates."""
        self._reads.labels(read, side, why).inc()
        self._latency.labels(read, side).observe(seconds)
        minute = int(time.time() // 60)
        latency = math.ceil(math.log(max(seconds, 1e-5)) / _STEP)
        self._counts[minute, read, side, why, server_error, latency] += 1
        self._changed.add(minute)

    async def flush(self, pool: Pool) -> None:
        """Keep the counts of the minutes that have changed; what cannot be kept now is kept the next time."""
        changed, self._changed = self._changed, set()
        rows = [(*key, count) for key, count in self._counts.items() if key[0] in changed]
        try:
            async with pool.connection() as conn, conn.cursor() as cursor:
                await cursor.executemany(_KEEP, [(self.instance, *row) for row in rows])
        except (psycopg.Error, OSError):
            self._changed |= changed
            return
        now = int(time.time() // 60)
        for key in [key for key in self._counts if key[0] < now - 1 and key[0] not in self._changed]:
            del self._counts[key]

    async def keep_flushing(self, pool: Pool) -> None:
        """Until cancelled; once an hour what is a month old is forgotten."""
        forget_at = 0.0
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush(pool)
            if time.monotonic() >= forget_at:
                forget_at = time.monotonic() + 3600
                with contextlib.suppress(psycopg.Error, OSError):
                    await forget(pool)


async def forget(pool: Pool) -> None:
    """Counts of reads, and shadow reads with their differences, of more than a month ago."""
    async with pool.connection() as conn:
        await conn.execute("delete from phase2.ops_reads where minute < now() - interval '30 days'")
        await conn.execute("delete from phase2.shadow_reads where compared_at < now() - interval '30 days'")


_KEEP = """
insert into phase2.ops_reads (instance, minute, read_name, side, why, server_error, latency_class, reads)
values (%s, to_timestamp(%s * 60), %s, %s, %s, %s, %s, %s)
on conflict (minute, instance, read_name, side, why, server_error, latency_class)
do update set reads = excluded.reads
"""
