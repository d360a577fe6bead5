"""The real parts around the queue, for tests: a Valkey, an ops database with a stub in the place of `apply_event`.

The stub keeps the contract of `phase2.apply_event` and writes down when it was at which event, so that a test can see
order and overlap. What an event is to suffer stands in its payload: {"fail": 2} fails twice, {"state": "P2001"} says
how, {"sleep": 0.1} takes so long, {"adults": 2} is written to the booking.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
from psycopg.rows import dict_row

from bridge import postgres, scripts, steps
from bridge.runlog import uuid7
from bridge.settings import ROOT
from core_api import database, local
from core_api.database import Pool
from core_api.ingest.queue import IngestQueue
from tests import serving

T = TypeVar("T")

STUB = """
-- of the rulebook what accepting an event needs
create schema rulebook;
create function rulebook.norm_ref(ref text) returns text language sql as $$ select nullif(upper(trim(ref)), '') $$;
create function rulebook.booking_channel(source text) returns text language sql as $$ select source $$;
-- and what the sweeper asks for
create function rulebook.bali_date(at timestamptz) returns date language sql as $$ select at::date $$;
create sequence phase2.stub_steps;
create table phase2.stub_log (event_key uuid, ref text, started bigint, ended bigint, pid integer);
create or replace function phase2.apply_event(event_key uuid) returns text language plpgsql as $$
#variable_conflict use_column
declare
    applied_key constant uuid := event_key;
    e record;
    step bigint;
begin
    select l.* into e from public.ingest_event_log as l where l.event_key = applied_key;
    if e.process_status = 'DONE' then
        return 'ALREADY';
    end if;
    if not pg_try_advisory_xact_lock(
        hashtextextended('booking:' || e.channel_code || ':' || e.external_booking_ref, 0)
    ) then
        return 'BUSY';
    end if;
    if exists (
        select 1 from public.ingest_event_log as l
        where l.source_enum = e.source_enum and l.external_booking_ref = e.external_booking_ref
            and phase2.is_pending(l.process_status, l.next_retry_at)
            and (l.created_at, l.event_key) < (e.created_at, e.event_key)
    ) then
        return 'WAITS';
    end if;
    step := nextval('phase2.stub_steps');
    perform pg_sleep(coalesce((e.raw_payload ->> 'sleep')::float, 0));
    if e.attempt_count < coalesce((e.raw_payload ->> 'fail')::integer, 0) then
        raise exception 'on purpose, of somebody@example.com'
            using errcode = coalesce(e.raw_payload ->> 'state', 'P0001');
    end if;
    update public.ingest_event_log as l
    set process_status = 'DONE', processed_at = clock_timestamp(), next_retry_at = null
    where l.event_key = applied_key and l.process_status <> 'DONE';
    if not found then
        return 'ALREADY';
    end if;
    if e.raw_payload ? 'adults' then
        insert into public.booking_core as c (
            booking_key, channel_code, external_booking_ref, booking_created_at, tour_date, customer_payment_status,
            ops_fulfillment_status, package_ref_type, number_of_adult, note
        )
        values (
            gen_random_uuid(), e.channel_code, e.external_booking_ref, now(), current_date, 'PAID', 'NEW',
            'LEGACY_PACKAGE', (e.raw_payload ->> 'adults')::integer, 'peanuts: ' || (e.raw_payload ->> 'adults')
        )
        on conflict (channel_code, external_booking_ref) do update
        set number_of_adult = excluded.number_of_adult, note = excluded.note, updated_at = now();
    end if;
    insert into phase2.stub_log values (
        applied_key, e.external_booking_ref, step, nextval('phase2.stub_steps'), pg_backend_pid()
    );
    return 'APPLIED';
end
$$;
"""

# Beside the real function what the stub writes down, but for how long it was at an event.
WATCHED = """
create sequence phase2.stub_steps;
create table phase2.stub_log (event_key uuid, ref text, started bigint, ended bigint, pid integer);
create function phase2.note_the_end() returns trigger language plpgsql as $$
declare
    step bigint := nextval('phase2.stub_steps');
begin
    insert into phase2.stub_log values (new.event_key, new.external_booking_ref, step, step, pg_backend_pid());
    return null;
end
$$;
create trigger note_the_end after update on public.ingest_event_log
for each row when (new.process_status = 'DONE' and old.process_status <> 'DONE') execute function phase2.note_the_end();
"""

_ACCEPT = """
insert into public.ingest_event_log (
    event_key, idempotency_key, nonce, source_enum, channel_code, external_booking_ref, event_type, event_time,
    event_time_normalized, payload_hash, signature_verified, process_status, raw_payload
)
values (%(key)s, %(key)s, %(key)s, 'GYG', 'GYG', %(ref)s, 'UPDATED', %(at)s, %(at)s, '', true, 'RECEIVED', %(payload)s)
"""


@dataclass
class Parts:
    """Where the parts of one test are."""

    ops: str
    home: Path
    redis: str
    queue: str

    def environment(self, **more: str) -> dict[str, str]:
        """What a process of ours is told: short times, ingestion on."""
        return os.environ | {
            "OPS_DB_URL": self.ops,
            "BALISNAP_DB_URL": postgres.with_database(self.ops, "balisnap"),
            "BSTADMIN_DB_URL": postgres.with_database(self.ops, "bstadmin"),
            "PHASE2_ENV": "local",
            "PHASE2_HOME": str(self.home),
            "INGEST_REDIS_URL": self.redis,
            "INGEST_QUEUE_NAME": self.queue,
            "INGEST_QUEUE_ENABLED": "true",
            "INGEST_RETRY_SECONDS": "[0.3, 0.3, 0.3, 0.3, 0.3]",
            "INGEST_LOCK_SECONDS": "2",
            "INGEST_SWEEP_SECONDS": "0.5",
            "INGEST_RECOVER_SECONDS": "2",
            "PYTHONPATH": str(ROOT),
            **more,
        }

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with postgres.connect(self.ops, autocommit=True) as conn:
            done = conn.execute(statement, values or None)
            return done.fetchall() if done.description else []

    def accept(self, refs: Sequence[str], **payload: object) -> list[UUID]:
        """Accepted events of these bookings, in this order: rows as `accept_event` writes them, each committed."""
        keys = []
        with postgres.connect(self.ops, autocommit=True) as conn:
            for ref in refs:
                keys.append(uuid7())
                values = {"key": keys[-1], "ref": ref, "payload": json.dumps(payload)}
                conn.execute(_ACCEPT, values | {"at": _moment(len(self._seen))})
                self._seen.append(keys[-1])
        return keys

    def __post_init__(self) -> None:
        self._seen: list[UUID] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @contextmanager
    def worker(self, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker's process; killed in the end if it still lives."""
        with (self.home / f"worker-{uuid4().hex[:6]}.log").open("wb") as said:
            child = subprocess.Popen(
                [sys.executable, "-m", "core_api", "worker"], env=self.environment(**more), stderr=said
            )
            try:
                yield child
            finally:
                if child.poll() is None:
                    os.kill(child.pid, signal.SIGCONT)
                    child.kill()
                child.wait()

    @contextmanager
    def api(self, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """The API's process on `self.port`, once it answers; killed in the end if it still lives."""
        environment = self.environment(CORE_API_PORT=str(self.port), **serving.ENVIRONMENT, **more)
        with (self.home / f"api-{uuid4().hex[:6]}.log").open("wb") as said:
            child = subprocess.Popen([sys.executable, "-m", "core_api", "api"], env=environment, stderr=said)
            try:
                until(lambda: _listens(self.port), 20)
                yield child
            finally:
                if child.poll() is None:
                    os.kill(child.pid, signal.SIGCONT)
                    child.kill()
                child.wait()

    @contextmanager
    def emitter(self, event: Callable[[int], dict[str, Any]], at_once: int = 8) -> Iterator[Emitter]:
        """Somebody who sends event 0, 1, … to the API as long as this lasts; in the end each of them is accepted."""
        with ThreadPoolExecutor(at_once) as threads:
            made = Emitter(self.port, event)
            sending = [threads.submit(made.send) for _ in range(at_once)]
            try:
                yield made
                made.patient = True
            finally:
                made.enough = True
            for one in sending:
                one.result()
        assert sorted(made.accepted) == list(range(made.begun))

    def quiet(self) -> None:
        """No worker complained, but of dead letters."""
        said = [line for log in self.home.glob("worker-*.log") for line in log.read_text().splitlines()]
        assert said
        assert [line for line in said if '"INFO"' not in line and "dead letters" not in line] == []

    def wait(self, seconds: float = 20.0) -> None:
        """Until no event is pending; fails with what is left."""
        until(lambda: not self.pending(), seconds, lambda: f"{len(self.pending())} pending: {self.pending()[:3]}")

    def pending(self) -> list[tuple[Any, ...]]:
        return self.sql(
            "select event_key, process_status, attempt_count, next_retry_at from public.ingest_event_log"
            " where phase2.is_pending(process_status, next_retry_at)"
        )

    def check(self) -> None:
        """H-02 and the order: every event ended exactly once, as applied or dead-lettered; one at a time a booking."""
        lost = self.sql(
            "select e.event_key, e.process_status, count(distinct s.started), count(distinct d.dead_letter_key)"
            " from public.ingest_event_log as e left join phase2.stub_log as s on s.event_key = e.event_key"
            " left join public.ingest_dead_letter as d"
            " on d.event_key = e.event_key and d.status not in ('SUCCEEDED', 'REPLAYING')"
            " group by 1, 2 having (e.process_status, count(distinct s.started), count(distinct d.dead_letter_key))"
            " not in (('DONE', 1, 0), ('FAILED', 0, 1))"
        )
        assert lost == []
        overlaps = self.sql(
            "select a.event_key, b.event_key from phase2.stub_log as a join phase2.stub_log as b"
            " on a.ref = b.ref and a.started < b.started and b.started < a.ended"
        )
        assert overlaps == []
        out_of_order = self.sql(
            "select a.event_key, b.event_key from phase2.stub_log as a join phase2.stub_log as b"
            " on a.ref = b.ref and a.started < b.started"
            " join public.ingest_event_log as ea on ea.event_key = a.event_key"
            " join public.ingest_event_log as eb on eb.event_key = b.event_key"
            " where (eb.created_at, eb.event_key) < (ea.created_at, ea.event_key)"
            " and not exists (select 1 from public.ingest_dead_letter as d where d.event_key = b.event_key)"
        )
        assert out_of_order == []

    def event(self, key: UUID) -> dict[str, Any]:
        """Its row."""
        with postgres.connect(self.ops) as conn:
            row = conn.cursor(row_factory=dict_row).execute(
                "select * from public.ingest_event_log where event_key = %s", (key,)
            )
            return row.fetchone() or {}

    def call(self, work: Callable[[Pool, IngestQueue], Awaitable[T]]) -> T:
        """Run `work` with a pool and a queue, as the API would."""

        async def run() -> T:
            pool = database.pool(self.ops, size=4, application_name="test")
            queue = IngestQueue(self.redis, self.queue)
            await pool.open()
            try:
                return await work(pool, queue)
            finally:
                await queue.close()
                await pool.close()

        return asyncio.run(run())

    def add(self, *keys: UUID) -> None:
        async def work(_: Pool, queue: IngestQueue) -> None:
            assert all(await asyncio.gather(*(queue.add(key) for key in keys)))

        self.call(work)

    def job(self, key: UUID) -> tuple[str, dict[str, Any]]:
        """State of its job, and the job as Redis holds it."""

        async def work(_: Pool, queue: IngestQueue) -> tuple[str, dict[str, Any]]:
            state = await queue._queue.getJobState(str(key))
            return state, await queue._client.hgetall(queue._queue.toKey(str(key)))

        return self.call(work)


class Emitter:
    """Sends each event under one key, with a nonce of its own each time, until it is accepted, as an emitter must."""

    def __init__(self, port: int, event: Callable[[int], dict[str, Any]]) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._event = event
        self._next = threading.Lock()
        self.begun = 0
        self.accepted: dict[int, UUID] = {}  # number -> the event's id, as the first answer that came has it
        self.refused = 0  # answers 503, or none
        self.enough = False
        self.patient = False  # with what is begun

    def send(self) -> None:
        """One of those who send."""
        with httpx.Client(base_url=self._url, timeout=10) as client:
            while not self.enough:
                with self._next:
                    number, self.begun = self.begun, self.begun + 1
                body = json.dumps(self._event(number)).encode()
                deadline = time.monotonic() + 30
                while number not in self.accepted and (self.patient or not self.enough):
                    assert time.monotonic() < deadline, "an event was not accepted in 30 s"
                    try:
                        answered = serving.post(client, body, x_idempotency_key=f"number-{number}")
                    except httpx.TransportError:
                        answered = None
                    if answered is not None and answered.status_code == 202:
                        self.accepted[number] = UUID(answered.json()["data"]["eventId"])
                        continue
                    assert answered is None or answered.status_code == 503, answered.text
                    self.refused += 1
                    time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _moment(number: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_767_225_600 + number))


def until(true: Callable[[], Any], seconds: float, otherwise: Callable[[], str] = lambda: "in vain") -> Any:
    """Wait for it; its value."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)
    return found


@contextmanager
def parts(server: str, home: Path, template: str | None = None) -> Iterator[Parts]:
    """A database with our state, the canonical tables and the stub; a Valkey below `home`; both gone in the end.

    `template`: a database to begin with instead.
    """
    name = f"q_{uuid4().hex[:12]}"
    with postgres.connect(server, autocommit=True) as conn:
        conn.execute(postgres.statement("create database {} template {}", name, template or "template1"))
    ops = postgres.with_database(server, name)
    try:
        if template is None:
            steps.bootstrap(ops)
            for script in ("001_create_core_bridge_tables", "002_add_indexes_and_unique_constraints",
                           "003_seed_required_enums_and_checks", "010_seed_channel_registry"):  # fmt: skip
                scripts.run_script(ops, f"{script}.sql")
            with postgres.connect(ops, autocommit=True) as conn:
                conn.execute(STUB)
        yield Parts(ops, home, local.ensure(home)[0], f"q-{uuid4().hex[:8]}")
    finally:
        local.stop(home)
        with postgres.connect(server, autocommit=True) as conn:
            conn.execute(postgres.statement("drop database {} with (force)", name))
