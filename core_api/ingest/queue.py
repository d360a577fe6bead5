"""The queue: BullMQ on Redis, wire-compatible with the Node version (blueprint 6.7, ingest_contract 2).

A job holds the event's key and nothing else, and has it as its own id, so that adding it twice adds it once. The log
in Postgres is the truth: whatever the queue loses is added again by the sweeper.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import bullmq.job
import bullmq.lock_manager
import bullmq.scripts
import bullmq.worker
import redis.asyncio
from bullmq import Queue
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from bridge.core_settings import core_settings

JOB_NAME = "booking-event"
BACKOFF = {"type": "ingest"}  # the worker's own strategy: the log says when
_DAY = 86_400
_KEPT_DAYS = {"completed": 14, "failed": 30}  # finished jobs (blueprint 6.7; gate F-05)
_FORGOTTEN_AT_ONCE = 1000  # of each, in one call
_PATIENCE = 1.0  # seconds that an accepted request may wait for Redis
_STATES = ("waiting", "active", "delayed", "completed", "failed", "paused")
_LOST = (RedisError, OSError, TimeoutError)

# of every job, whoever added it: the worker sees to that
KEPT: dict[str, Any] = {
    "removeOnComplete": {"age": _KEPT_DAYS["completed"] * _DAY},
    "removeOnFail": {"age": _KEPT_DAYS["failed"] * _DAY},
}
# of which the log keeps the true count; five retries after the first try
JOB_OPTIONS: dict[str, Any] = {"attempts": 6, "backoff": BACKOFF, "stackTraceLimit": 0, **KEPT}


class _Clock:
    """Redis' time of day, for BullMQ in the place of its process's: a time that one process writes another one compares
    with its own, and their clocks may differ. The process's own until Redis was asked."""

    def __init__(self) -> None:
        self._start: float | None = None  # of time.monotonic, which no change of the clock moves

    def time(self) -> float:
        return time.time() if self._start is None else self._start + time.monotonic()

    async def ask(self, client: redis.asyncio.Redis) -> None:
        asked = time.monotonic()
        seconds, microseconds = await client.time()
        self._start = seconds + microseconds / 1e6 - (asked + time.monotonic()) / 2


clock = _Clock()
for _module in (bullmq.job, bullmq.lock_manager, bullmq.scripts, bullmq.worker):
    _module.time = clock  # type: ignore[attr-defined]


def _counted(
    name: str, counts: dict[str, int] | None, oldest: dict[str, float | None] | None, last_error: str | None
) -> dict[str, Any]:
    return {
        "queueName": name,
        "connected": counts is not None,
        **{state: (counts or {}).get(state, 0) for state in _STATES},
        "lastError": last_error,
        "oldestDays": oldest,
    }


def nothing_counted() -> dict[str, Any]:
    """`IngestQueue.counts` where there is no queue."""
    return _counted(core_settings().ingest_queue_name, None, None, None)


def connection(url: str, *, blocking: bool = False) -> redis.asyncio.Redis:
    """A client for a Queue, or (`blocking`) for a Worker.

    A worker waits up to 10 s for a job in one call, and redis-py 8 gives up after 5 s unless it is told not to: then no
    delayed job of more than that would ever come due.
    """
    return redis.asyncio.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=None if blocking else _PATIENCE,
        socket_connect_timeout=_PATIENCE,
        socket_keepalive=True,
        # a server that restarts is found again within a second; BullMQ's own client would look every 20
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 3 if blocking else 0),
    )


class IngestQueue:
    """The producer's side, one for each process. Make it inside the event loop; `close` it in the end."""

    def __init__(self, url: str, name: str | None = None) -> None:
        self.name = name or core_settings().ingest_queue_name
        self._client = connection(url)
        self._queue = Queue(self.name, {"connection": self._client})
        self._new: list[tuple[UUID, asyncio.Future[bool]]] = []
        self._adding: asyncio.Task[None] | None = None
        self._down_until = 0.0
        self.last_error: str | None = None

    async def add(self, event_key: UUID) -> bool:
        """Queue an accepted event. False, soon and without an error, when Redis is away: the sweeper brings it later.

        Requests that come at the same time share a round trip.
        """
        if time.monotonic() < self._down_until:
            return False
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._new.append((event_key, done))
        if self._adding is None or self._adding.done():
            self._adding = asyncio.create_task(self._add_new())
        return await done

    async def _add_new(self) -> None:
        while self._new:
            batch, self._new = self._new, []
            added = False
            try:
                await self.add_all([(key, 0.0) for key, _ in batch])
                added = True
            except _LOST as error:
                self._lost(error)
            finally:
                for _, done in batch:
                    if not done.done():
                        done.set_result(added)

    async def add_all(self, events: Sequence[tuple[UUID, float]]) -> None:
        """Queue these, in this order, each after so many seconds; what is queued already stays. Raises RedisError."""
        jobs = [
            {
                "name": JOB_NAME,
                "data": {"eventId": str(key)},
                "opts": JOB_OPTIONS | {"jobId": str(key)} | ({"delay": round(delay * 1000)} if delay > 0 else {}),
            }
            for key, delay in events
        ]
        if len(jobs) == 1:
            await self._queue.add(**jobs[0])
        elif jobs:
            await self._queue.addBulk(jobs)

    async def add_again(self, events: Sequence[tuple[UUID, float]]) -> None:
        """Queue these anew, also where a finished job of the same event is kept. A job at work is left alone."""
        async with self._client.pipeline(transaction=False) as pipe:
            for key, _ in events:
                pipe.zscore(self._queue.keys["completed"], str(key))
                pipe.zscore(self._queue.keys["failed"], str(key))
            finished = await pipe.execute() if events else []
        for (key, _), *ended in zip(events, finished[::2], finished[1::2], strict=True):
            if any(score is not None for score in ended):
                await self._queue.backend.remove(str(key), True)
        await self.add_all(events)

    async def not_at_work(self, event_keys: Sequence[UUID]) -> list[UUID]:
        """Those of which the queue holds no job, or only a finished one. Raises RedisError."""
        async with self._client.pipeline(transaction=False) as pipe:
            for key in event_keys:
                pipe.exists(self._queue.toKey(str(key)))
                pipe.zscore(self._queue.keys["completed"], str(key))
                pipe.zscore(self._queue.keys["failed"], str(key))
            found = await pipe.execute() if event_keys else []
        answers = zip(event_keys, found[::3], found[1::3], found[2::3], strict=True)
        return [key for key, there, done, failed in answers if not there or done is not None or failed is not None]

    async def set_clock(self) -> None:
        """From now on this process delays by Redis' clock. Who delays jobs does this first. Raises RedisError."""
        await clock.ask(self._client)

    async def forget_old(self) -> None:
        """Remove finished jobs that have served their time: BullMQ does it only as the next one ends so."""
        for state, days in _KEPT_DAYS.items():
            await self._queue.clean(days * _DAY * 1000, _FORGOTTEN_AT_ONCE, state)

    async def _oldest_days(self) -> dict[str, float | None]:
        """Days since the oldest finished job that is kept ended, by Redis' clock; None where there is none."""
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            for state in _KEPT_DAYS:
                pipe.zrange(self._queue.keys[state], 0, 0, withscores=True)
            (seconds, _), *oldest = await pipe.execute()
        return {
            state: round((seconds - found[0][1] / 1000) / _DAY, 2) if found else None
            for state, found in zip(_KEPT_DAYS, oldest, strict=True)
        }

    async def counts(self) -> dict[str, Any]:
        """`queue` of `GET /v1/ingest/metrics/queue`, but for `enabled`; never raises."""
        try:
            return _counted(
                self.name, await self._queue.getJobCounts(*_STATES), await self._oldest_days(), self.last_error
            )
        except _LOST as error:
            self._lost(error)
            return _counted(self.name, None, None, self.last_error)

    async def is_connected(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(await self._client.ping())
        except _LOST as error:
            self._lost(error)
            return False

    async def close(self) -> None:
        if self._adding:
            await self._adding
        await self._client.aclose()

    def _lost(self, error: BaseException) -> None:
        self._down_until = time.monotonic() + _PATIENCE
        self.last_error = type(error).__name__  # its words may quote the URL
