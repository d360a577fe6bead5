"""The worker: takes jobs from the queue and events one step on in the log (`sql/ingest/work.sql`).

All that is ready goes to the database in one call: one transaction, one round trip, each event for itself. What the
call answers decides what becomes of the job; a worker that lost a job meanwhile changes nothing, because only one
transaction can end an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from bullmq import UnrecoverableError, Worker
from bullmq.custom_errors import DelayedError
from psycopg import errors
from redis.exceptions import RedisError

from bridge.core_settings import CoreSettings, core_settings
from bridge.errors import plain
from bridge.flags import Flags
from core_api.database import Pool, is_away
from core_api.ingest import sweeper
from core_api.ingest.queue import BACKOFF, KEPT, IngestQueue, clock, connection

log = logging.getLogger("core_api.worker")

_WORK = (
    "select w.event_key, w.outcome, w.wait_ms, w.reason"
    " from phase2.work_events(%s::uuid[], %s::double precision[]) as w"
)
# of the booking of this event the one whose turn it is
_FAILED = """
select e.event_key, case when e.event_key = t.event_key then f.outcome else 'BUSY' end, f.wait_ms, f.reason
from public.ingest_event_log as e
cross join lateral pg_advisory_xact_lock(phase2.booking_lock(e.channel_code, e.external_booking_ref))
cross join lateral phase2.first_pending(e.source_enum, e.external_booking_ref) as t
cross join lateral phase2.event_failed(t.event_key, %s, %s, %s::double precision[]) as f
where e.event_key = %s
"""
_FLAG_SECONDS = 0.5
_GRACE_SECONDS = 25.0  # for what is held
_SOON = 0.02  # seconds: somebody else is at this booking
_SOON_TRIES = 10
_AWAY_SECONDS = 1.0  # the database is away: no try of the event
_DEADLY = 3  # times that the server gave up under an event


class Retry(Exception):
    """The try failed and was counted; the next one is due after `wait_ms`."""

    def __init__(self, wait_ms: int) -> None:
        super().__init__(f"retry in {wait_ms} ms")
        self.wait_ms = wait_ms


@dataclass(frozen=True)
class Step:
    """What became of an event, as `phase2.work_events` says it; AWAY: the database did not answer."""

    event_key: UUID
    outcome: str
    wait_ms: int | None
    reason: str | None


def _say(error: Exception, *_: object) -> None:
    """BullMQ's errors: a job that ended while its lock was renewed, or was lost meanwhile, is in the log's hands."""
    level = logging.WARNING if isinstance(error, RedisError | OSError) else logging.DEBUG
    log.log(level, "queue: %s %s", type(error).__name__, error if level == logging.DEBUG else "")


class Stepper:
    """Brings events to the database, those that come at the same time together."""

    def __init__(self, pool: Pool, retry_seconds: tuple[float, ...], at_once: int) -> None:
        self._pool = pool
        self._retry_seconds = list(retry_seconds)
        self._at_once = at_once
        self._asked: list[tuple[UUID, asyncio.Future[Step]]] = []
        self._working: asyncio.Task[None] | None = None
        self._died: Counter[UUID] = Counter()  # under these the server gave up; they go alone next time

    async def step(self, event_key: UUID) -> Step:
        """One step of this event, after which it is committed what became of it."""
        done: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        self._asked.append((event_key, done))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await done

    async def close(self) -> None:
        if self._working:
            await self._working

    async def _work(self) -> None:
        while self._asked:
            batch, self._asked = self._asked[: self._at_once], self._asked[self._at_once :]
            waiting: dict[UUID, list[asyncio.Future[Step]]] = {}
            for key, done in batch:
                waiting.setdefault(key, []).append(done)
            alone = [key for key in waiting if self._died[key]]
            together = [key for key in waiting if not self._died[key]]
            for keys in filter(None, (together, *([key] for key in alone))):
                try:
                    steps = await self._steps(keys)
                except Exception as error:  # no error that we know of; who waits here would wait for ever
                    log.error("no step of %d events: %s", len(keys), type(error).__name__, exc_info=True)
                    steps = [Step(key, "AWAY", None, None) for key in keys]
                for step in steps:
                    for done in waiting.pop(step.event_key):
                        if not done.done():  # whose job was cancelled
                            done.set_result(step)

    async def _steps(self, keys: list[UUID]) -> list[Step]:
        """One call for these; when it fails as a whole each gets its own, unless the server itself is away."""
        connected = False
        try:
            async with self._pool.connection() as conn:
                connected = True
                rows = await (await conn.execute(_WORK, (keys, self._retry_seconds))).fetchall()
        except errors.QueryCanceled as error:
            return await (self._each(keys) if len(keys) > 1 else self._count(keys[0], error))
        except psycopg.Error as error:
            log.warning("the database did not take %d events: %s", len(keys), plain(error))
            if connected:
                self._died.update(keys)
            if len(keys) > 1 and not is_away(error):
                return await self._each(keys)
            if len(keys) == 1 and self._died[keys[0]] > _DEADLY:
                return await self._count(keys[0], error)
            return [Step(key, "AWAY", None, None) for key in keys]
        for key in keys:
            self._died.pop(key, None)
        return [Step(*row) for row in rows]

    async def _each(self, keys: list[UUID]) -> list[Step]:
        return [step for key in keys for step in await self._steps([key])]

    async def _count(self, key: UUID, error: psycopg.Error) -> list[Step]:
        """A try that took the statement or its connection down: counted from outside."""
        state = error.sqlstate or "08006"
        try:
            async with self._pool.connection() as conn:
                row = await (
                    await conn.execute(_FAILED, (state, f"SQLSTATE {state}", self._retry_seconds, key))
                ).fetchone()
        except psycopg.Error:
            return [Step(key, "AWAY", None, None)]
        self._died.pop(key, None)
        assert row is not None
        return [Step(*row)]


class _Worker(Worker):
    """BullMQ's, but while jobs come one by one it asks for one at a time: else all that are free ask, and in vain."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._asking = asyncio.Lock()
        self._are_few = True

    async def getNextJob(self, token: str) -> Any:
        async with self._asking if self._are_few else contextlib.nullcontext():
            if self.closing:
                return None
            waits = self.drained
            job = await super().getNextJob(token)
            self._are_few = waits or job is None
            return job


class IngestWorker:
    """One process's worker and sweeper. `run` returns after `stop`, when what it held is finished."""

    def __init__(self, pool: Pool, url: str, flags: Flags | None = None, chosen: CoreSettings | None = None) -> None:
        self._pool, self._url = pool, url
        self._flags = flags or Flags()
        self._settings = chosen or core_settings()
        self._stop = asyncio.Event()
        self._queue = IngestQueue(url, self._settings.ingest_queue_name)
        concurrency = self._settings.ingest_worker_concurrency
        # half of what it holds is with the database while the other half comes from and goes to the queue
        self._stepper = Stepper(pool, self._settings.ingest_retry_seconds, max(1, concurrency // 2))

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Work until `stop`; while INGEST_QUEUE_ENABLED is off nothing is taken, from within seconds of the change."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            while not self._stop.is_set():
                if await self._is_on():
                    await self._work()
                else:
                    await self._pause(_FLAG_SECONDS)
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            await self._stepper.close()
            await self._queue.close()

    async def _work(self) -> None:
        """A BullMQ worker for as long as the flag is on; when Redis is away at its start, the next round makes one."""
        client = connection(self._url, blocking=True)
        lock_ms = round(self._settings.ingest_lock_seconds * 1000)
        options: dict[str, Any] = {
            "connection": client,
            "autorun": False,
            "concurrency": self._settings.ingest_worker_concurrency,
            "lockDuration": lock_ms,
            "stalledInterval": max(500, lock_ms // 2),
            "maxStalledCount": 1_000_000,  # it is the log that says when an event has failed
            "runRetryDelay": 500,
            "settings": {"backoffStrategy": lambda _made, _type, error, _job: getattr(error, "wait_ms", 1000)},
        }
        worker = _Worker(self._settings.ingest_queue_name, self._process, options)
        worker.on("error", _say)
        with contextlib.suppress(RedisError, OSError, TimeoutError):  # it is away: the sweeper asks again
            await self._queue.set_clock()
        log.info("working")
        running = asyncio.create_task(worker.run())
        while not self._stop.is_set() and not running.done() and await self._is_on():
            await self._pause(_FLAG_SECONDS)
        log.info("finishing what is held")
        closing = asyncio.create_task(worker.close())
        deadline = time.monotonic() + _GRACE_SECONDS
        while not (await asyncio.wait({closing}, timeout=_FLAG_SECONDS))[0]:
            if not worker.jobs or time.monotonic() > deadline:
                worker.cancelProcessing()  # it only asks Redis for more, which is away; it would ask for ever
        await asyncio.gather(closing, running, return_exceptions=True)
        await client.aclose()
        if running.done() and not running.cancelled() and running.exception():
            await self._pause(_AWAY_SECONDS)

    async def _process(self, job: Any, token: str) -> dict[str, str]:
        """One job to its end: returned when its event has ended, else raised what BullMQ is to do with it."""
        job.opts |= KEPT
        try:
            key = UUID(job.data["eventId"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UnrecoverableError("no eventId") from None
        step = await self._stepper.step(key)
        for _ in range(_SOON_TRIES):
            if step.outcome == "BUSY":
                await asyncio.sleep(_SOON)
            elif step.outcome != "MORE":
                break
            step = await self._stepper.step(key)
        match step.outcome:
            case "APPLIED" | "ALREADY":
                return {"outcome": step.outcome}
            case "RETRY":
                job.opts |= {"attempts": job.attemptsMade + 2, "backoff": BACKOFF}  # as the log says, not the job
                raise Retry(step.wait_ms or 0)
            case "DEAD":
                log.warning("event %s is among the dead letters: %s", key, step.reason)
                raise UnrecoverableError(step.reason or "DEAD")
            case "MISSING":
                raise UnrecoverableError("no such event")
            case "MORE":
                seconds = 0.0
            case "AWAY":
                seconds = _AWAY_SECONDS
            case "WAITS" if step.wait_ms:
                seconds = step.wait_ms / 1000
            case _:  # somebody is at it for long: a backfill, or what a lost worker left; later and later
                seconds = min(self._settings.ingest_recover_seconds, 0.1 * 2 ** min(job.attemptsStarted, 10))
        await job.moveToDelayed(round((clock.time() + seconds) * 1000), token)  # no attempt is used
        raise DelayedError()

    async def _sweep(self) -> None:
        while True:
            started = time.monotonic()
            try:
                if await self._is_on():
                    await sweeper.sweep(self._pool, self._queue, self._settings.ingest_recover_seconds)
            except Exception as error:  # the next round looks again
                log.warning("sweeper: %s", type(error).__name__)
            took = time.monotonic() - started
            await asyncio.sleep(max(self._settings.ingest_sweep_seconds, 10 * took))

    async def _is_on(self) -> bool:
        return await self._flags.is_on("INGEST_QUEUE_ENABLED", self._pool)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
