"""Service, worker and the real apply on a server of their own: whatever dies, nothing that was accepted is lost.

Each test has an emitter that sends on until all it has is accepted, as the contract asks of one.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from psycopg import sql

from bridge import embedded, postgres, steps
from bridge.errors import CouldNotRun
from core_api import local
from core_api.ingest.queue import JOB_NAME
from tests import booking_events, serving
from tests.ingest_parts import WATCHED, Emitter, Parts, parts, until
from tests.test_apply import expected

START = datetime(2026, 11, 1, tzinfo=UTC)
SEED = int(os.environ.get("FAULT_SEED", "5"))


@dataclass
class Own:
    """A PostgreSQL of this module's own, which may be ended, and the database that tests begin with."""

    home: Path
    url: str

    def control(self, *arguments: str) -> None:
        """`pg_ctl` with these."""
        server = embedded._server(self.home)
        server.run("pg_ctl", *arguments, "-D", str(server.data), "-w", "-t", "60")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    home = tmp_path_factory.mktemp("own")
    with ThreadPoolExecutor(4) as commands:  # who come first all at once make one server, and each database once
        (made,) = set(commands.map(lambda _: embedded.ensure(home).ops, range(4)))
    url = postgres.with_database(made, "postgres")
    try:
        with serving.ready(url) as ground, postgres.connect(url, autocommit=True) as conn:
            conn.execute(postgres.statement("create database begin template {}", postgres.database_name(ground)))
        with postgres.connect(postgres.with_database(url, "begin"), autocommit=True) as conn:
            conn.execute(WATCHED)
        yield Own(home, url)
    finally:
        embedded.stop(home)
        shutil.rmtree(embedded._server(home).base)  # which may be outside of `home`


@contextmanager
def both(real: Parts, **more: str) -> Iterator[None]:
    """API and worker, at work; they outlive whatever happens meanwhile."""
    with real.api(**more) as api, real.worker(**more) as worker:
        until(lambda: real.sql(_WORKS), 20)
        yield
        assert api.poll() is worker.poll() is None


_WORKS = """
select 1 from pg_catalog.pg_stat_activity as a
where a.datname = current_database() and a.application_name = 'phase2-ingest-worker'
"""


@pytest.fixture
def real(own: Own, tmp_path: Path) -> Iterator[Parts]:
    with parts(own.url, tmp_path, "begin") as made:
        yield made


def event(number: int) -> dict[str, Any]:
    """Of one of 20 bookings."""
    chance = random.Random(SEED + number)
    at = START + timedelta(seconds=number)
    return serving.event(
        externalBookingRef=f"B-{chance.randrange(20)}",
        eventType=chance.choice(("CREATED", "UPDATED", "CANCELLED")),
        eventTime=at.isoformat(),
    )


def applied(real: Parts) -> int:
    return real.sql("select count(*) from phase2.stub_log")[0][0]


def ended(real: Parts, sent: Emitter) -> None:
    """H-02 is 0: what was accepted is there, once, and has ended as applied; no fault used up a try."""
    real.wait(30)
    rows = real.sql("select event_key, process_status, attempt_count from public.ingest_event_log")
    assert sorted(rows) == sorted((key, "DONE", 0) for key in sent.accepted.values())
    assert real.sql("select count(*) from public.ingest_dead_letter") == [(0,)]
    real.check()


def test_postgres_restarts(own: Own, real: Parts) -> None:
    chance = random.Random(SEED)
    with both(real):
        with real.emitter(event) as emitter:
            for how in ("immediate", "fast"):
                before = applied(real)
                until(lambda before=before: min(len(emitter.accepted), applied(real)) > before + 60, 20)
                time.sleep(chance.random() / 4)
                own.control("restart", "-m", how)
        ended(real, emitter)


def test_the_api_is_killed(real: Parts) -> None:
    """Before the commit, between the commit and the answer (which is while it queues), and at any moment."""
    chance = random.Random(SEED)
    with real.worker():
        with ExitStack() as outer, real.emitter(event) as emitter:
            with real.api():
                until(lambda: len(emitter.accepted) > 30, 20)
                time.sleep(chance.random() / 4)
            with real.api() as api, postgres.connect(real.ops) as holder:
                until(lambda: applied(real) > 60, 20)
                holder.execute("lock table phase2.ingest_nonces in access exclusive mode")
                until(lambda: real.sql(_WAITS), 5)
                api.kill()
                api.wait()
            number = local.pid(real.home)
            assert number is not None
            with real.api() as api:
                before = len(emitter.accepted)
                until(lambda: len(emitter.accepted) > before + 30, 20)
                os.kill(number, signal.SIGSTOP)
                time.sleep(0.3)
                api.kill()
                api.wait()
                os.kill(number, signal.SIGCONT)
                unanswered = real.sql("select count(*) from public.ingest_event_log")[0][0] - len(emitter.accepted)
            assert 0 < unanswered <= 8
            outer.enter_context(real.api())
            before = len(emitter.accepted)
            until(lambda: len(emitter.accepted) > before + 30, 20)
        ended(real, emitter)  # while the worker is there


_OTHERS = """
select count(*) from pg_catalog.pg_stat_activity as a
where a.datname = current_database() and a.pid <> pg_backend_pid()
"""
_WAITS = """
select 1 from pg_catalog.pg_stat_activity as a
where a.datname = current_database() and a.application_name = 'phase2-core-api' and a.wait_event_type = 'Lock'
"""


class Cutter:
    """A way to the server on which answers get lost, and their connections with them, while `cutting`."""

    def __init__(self, url: str) -> None:
        self._server = ("127.0.0.1", urlsplit(url).port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.cutting, self.cut = False, 0
        self._chance = random.Random(SEED)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
                for one, other, answers in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=(one, other, answers), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if answers and self.cutting and self._chance.random() < 0.04:
                    self.cut += 1
                    break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


def test_answers_of_postgres_get_lost(real: Parts) -> None:
    """What was asked for may be committed or not when its connection breaks: nobody is told."""
    with closing(Cutter(real.ops)) as cutter:
        parts_of = urlsplit(real.ops)
        by_way = parts_of._replace(netloc=parts_of.netloc.replace(f":{parts_of.port}", f":{cutter.port}")).geturl()
        with both(real, OPS_DB_URL=by_way):
            with real.emitter(event) as emitter:
                until(lambda: applied(real) > 30, 20)
                cutter.cutting = True
                until(lambda: cutter.cut > 20, 20)
                cutter.cutting = False
            ended(real, emitter)


@pytest.fixture
def small_disk(own: Own) -> Iterator[Path]:
    """A disk of 4 MB that the server may write to; as much as it likes after `remount`."""
    if os.geteuid() != 0:
        pytest.skip("a small disk can be made by root only")
    base = embedded._server(own.home).base
    disk = base / f"small-{uuid4().hex[:6]}"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False).returncode:
        disk.rmdir()
        pytest.skip("this machine lets nobody mount a disk")
    os.chown(disk, base.stat().st_uid, base.stat().st_gid)
    disk.chmod(0o700)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=512m", disk], check=True)


def large(number: int) -> dict[str, Any]:
    return event(number) | {"raw": {"providerPayload": random.Random(number).randbytes(60_000).hex()}}


def test_the_disk_of_the_log_is_full(own: Own, real: Parts, small_disk: Path) -> None:
    with postgres.connect(real.ops, autocommit=True) as conn:
        conn.execute(sql.SQL("create tablespace small location {}").format(sql.Literal(str(small_disk))))
        conn.execute("alter table public.ingest_event_log set tablespace small")
    try:
        with both(real):
            with real.emitter(large) as emitter:
                until(lambda: emitter.refused > 50, 20)
                assert emitter.accepted
                time.sleep(1)
                enlarge(small_disk)
            ended(real, emitter)
    finally:
        with postgres.connect(real.ops, autocommit=True) as conn:
            conn.execute("alter table public.ingest_event_log set tablespace pg_default")
            conn.execute("drop tablespace small")


def test_the_disk_of_the_write_ahead_log_is_full(own: Own, real: Parts, small_disk: Path) -> None:
    """A commit that cannot be written down takes the whole server with it; it starts again when there is room."""
    server = embedded._server(own.home)
    with postgres.connect(own.url, autocommit=True) as conn:
        conn.execute("select pg_switch_wal()")  # with room in the one file that it gets
    embedded.stop(own.home)
    now = server.run("pg_controldata", "-D", str(server.data)).stdout.split("REDO WAL file:")[1].split()[0]
    wal, aside = server.data / "pg_wal", server.data / "pg_wal.before"
    subprocess.run(["mount", "-o", f"remount,size={(wal / now).stat().st_size + 2**20}", small_disk], check=True)
    wal.rename(aside)
    subprocess.run(["cp", "-a", aside / now, small_disk], check=True)  # not those that would be used again
    wal.symlink_to(small_disk)
    embedded.ensure(own.home)
    try:
        with both(real):
            with real.emitter(large) as emitter:
                until(lambda: emitter.refused > 8, 30)
                assert emitter.accepted
                enlarge(small_disk)
                until(lambda: answers(own), 20)
            ended(real, emitter)
        assert "PANIC" in (server.base / "server.log").read_text()
    finally:
        embedded.stop(own.home)
        wal.unlink()
        shutil.rmtree(aside)
        subprocess.run(["cp", "-a", small_disk, wal], check=True)
        embedded.ensure(own.home)


def answers(own: Own) -> bool:
    """Whether the server is there; it is started when it has given up."""
    try:
        embedded.ensure(own.home)
    except CouldNotRun:
        return False
    return True


def test_events_wait_for_batch_d_and_use_no_try(real: Parts) -> None:
    with postgres.connect(real.ops, autocommit=True) as runner:
        runner.execute("select pg_advisory_lock(%s)", (steps._RUNNER_LOCK,))
        runner.execute("insert into phase2.batch_state (batch, status) values ('D', 'RUNNING')")
        with real.worker():
            for number, kind in enumerate(("UPDATED", "CREATED", "CANCELLED") * 5):
                booking_events.accept(runner, booking_events.Event(kind, number), "GYG", f"B-{number % 4}")
            waiting = real.pending()
            time.sleep(2)
            assert real.pending() == waiting
            assert len(waiting) == 15
            runner.execute("update phase2.batch_state set status = 'PASS'")
            real.wait(4)
            until(lambda: real.sql("select 1 from phase2.watermarks where name = 'fulfilment'"), 4)  # the day is done
    assert real.sql("select distinct process_status, attempt_count from public.ingest_event_log") == [("DONE", 0)]
    real.check()


FAILING = """
create function phase2.fail_once() returns trigger language plpgsql as $$
begin
    raise exception 'on purpose';
end
$$;
create trigger fail_once before update on public.ingest_event_log
for each row when (new.process_status = 'DONE' and old.attempt_count = 0 and old.raw_payload ? 'fail')
execute function phase2.fail_once();
"""


def test_two_workers_one_booking_in_any_order_with_duplicates(real: Parts) -> None:
    """A thousand events of one booking, some of which fail: it shows what it would had they come in order."""
    chance = random.Random(SEED)

    def made(at: int) -> booking_events.Event:
        return booking_events.Event(
            chance.choice(("CREATED", "UPDATED", "CANCELLED")), at, day=chance.randrange(2), total=at,
            name=chance.choice(booking_events.NAMES), email=chance.choice(booking_events.EMAILS),
            phone=chance.choice(booking_events.PHONES), time=chance.choice(booking_events.TIMES),
            pickup=chance.choice(booking_events.PLACES), note=chance.choice(booking_events.NOTES),
        )  # fmt: skip

    history = [made(at) for at in chance.sample(range(1000), 1000)]
    history[100] = replace(history[100], day=55_000)  # in the year 2300: dead
    with postgres.connect(real.ops, autocommit=True) as conn:
        conn.execute(FAILING)
        keys = [booking_events.accept(conn, event, "GYG", "HOT") for event in history]
        keys += [booking_events.accept(conn, event, "GYG", f"B-{event.at}") for event in history[:50]]
        conn.execute(
            "update public.ingest_event_log set raw_payload = raw_payload || '{\"fail\": true}'"
            " where event_key = any(%s)",
            ([keys[3], keys[250], keys[1020]],),
        )
    shuffled = keys + chance.sample(keys, 300)
    chance.shuffle(shuffled)

    async def work(_pool: object, queue: Any) -> None:
        await queue._queue.addBulk(
            [
                {"name": JOB_NAME, "data": {"eventId": str(key)}, "opts": {"jobId": f"{key}-{number}"}}
                for number, key in enumerate(shuffled)  # jobs of other ids: nothing of the queue's helps
            ]
        )

    with real.worker(), real.worker():
        real.call(work)
        real.wait(40)
        assert real.sql("select event_key from public.ingest_dead_letter") == [(keys[100],)]
        assert real.sql("select count(distinct pid) > 1 from phase2.stub_log") == [(True,)]
    real.check()
    real.quiet()
    assert real.sql("select event_key from public.ingest_event_log where attempt_count = 1 order by created_at") == [
        (keys[number],) for number in (3, 100, 250, 1020)
    ]
    with postgres.connect(real.ops) as conn:
        assert booking_events.rows(conn, "GYG", "HOT") == expected(history[:100] + history[101:], "GYG")


def test_what_serve_has_started_ends_when_it_is_killed(real: Parts) -> None:
    local.stop(real.home)
    environment = real.environment(CORE_API_PORT=str(real.port), **serving.ENVIRONMENT)
    del environment["INGEST_REDIS_URL"]
    served = subprocess.Popen([sys.executable, "-m", "core_api", "serve"], env=environment, stderr=subprocess.DEVNULL)
    try:
        with real.emitter(event) as emitter:
            until(lambda: applied(real) > 10, 20)
        assert emitter.accepted
        assert local.pid(real.home)
    finally:
        served.kill()
        served.wait()
    until(lambda: local.pid(real.home) is None, 10)
    until(lambda: real.sql(_OTHERS) == [(0,)], 10)
